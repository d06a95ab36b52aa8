//! Asking by datagram, as resolvers do.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::AppError;
use super::conversation::within;
use crate::place::Place;

/// The longest answer.
const MOST: usize = 4096;

/// Sends one datagram from a socket of its own that hears `to` only, and waits for one
/// answer. Nothing is sent again: what is lost on the way is seen.
pub(crate) async fn ask(
    place: &Place,
    to: SocketAddr,
    question: &[u8],
) -> Result<Vec<u8>, AppError> {
    let step = || format!("{}: ask {to}", place.name());
    let exchange = async {
        let socket = place.inside(move || netns::dial_udp(to, None)).await;
        let socket = UdpSocket::from_std(socket.map_err(io::Error::other)??)?;
        socket.send(question).await?;
        let mut answer = vec![0; MOST];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    };
    within(place.patience(), step, exchange).await
}
