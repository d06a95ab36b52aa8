//! The way from the host to the cluster's API: a port of the host's loopback, relayed into the
//! control plane's network. The host gets no link, address or route for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use netns::Fence;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::place;

/// Deadline of a connection to the API.
const DIAL: Duration = Duration::from_secs(10);

/// Relays until it is killed; the port it listens on goes to the file `told`.
///
/// # Errors
/// When it cannot begin.
pub(super) async fn relay(netns: &Path, to: SocketAddr, told: &Path) -> io::Result<()> {
    let fence = Fence::new(1).map_err(io::Error::other)?;
    let place = place::of_path("control-plane", netns, &fence, DIAL).map_err(io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let fresh = told.with_extension("new");
    std::fs::write(&fresh, listener.local_addr()?.port().to_string())?;
    std::fs::rename(fresh, told)?;
    loop {
        let (client, _) = listener.accept().await?;
        let place = place.clone();
        // Ends with its connection, or with this process.
        tokio::spawn(async move {
            if let Ok(Ok(server)) = tokio::time::timeout(DIAL, place.dial(to)).await {
                pass(client, server).await;
            }
        });
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream) {
    // Either side may end it in any way.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
