//! The app in the network that the program itself is in: what containers of a real cluster
//! run, where nobody enters namespaces.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::{AppError, Conversation, Echo, Server};
use crate::health::HealthServer;

/// What errors call the caller.
const NAME: &str = "here";

/// Why there is no connection with a mark.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// It takes `CAP_NET_ADMIN`, since Linux 5.17 `CAP_NET_RAW` is enough.
    #[error("the kernel does not let this process set a mark")]
    Forbidden,
    /// As of any connection.
    #[error(transparent)]
    App(#[from] AppError),
}

/// Listens on a port of all addresses; where IPv6 is switched off, of all IPv4 addresses.
///
/// # Errors
/// The system's answer.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Starts the app.
///
/// # Errors
/// [`AppError`] when the port is taken.
pub fn serve(port: u16) -> Result<Server, AppError> {
    listen(port).and_then(Server::on).map_err(|error| failed("listen on", port, &error))
}

/// Starts the application that answers probes.
///
/// # Errors
/// [`AppError`] when the port is taken.
pub fn answer_probes(port: u16) -> Result<HealthServer, AppError> {
    listen(port).and_then(HealthServer::on).map_err(|error| failed("listen on", port, &error))
}

/// Sends every datagram back.
///
/// # Errors
/// [`AppError`] when the port is taken.
pub fn echo_datagrams(port: u16) -> Result<Echo, AppError> {
    let bound = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
    bound.and_then(Echo::on).map_err(|error| failed("answer datagrams on", port, &error))
}

/// Opens a connection to an app.
///
/// # Errors
/// [`AppError`], whose kind tells refused from reset from silent.
pub async fn connect(to: SocketAddr, deadline: Duration) -> Result<Conversation, AppError> {
    Conversation::over(NAME, TcpStream::connect(to), to, deadline).await
}

/// Opens a connection to an app, with this mark on all of its packets.
///
/// # Errors
/// [`MarkError::Forbidden`]; else as [`connect`].
pub async fn connect_marked(
    to: SocketAddr,
    mark: u32,
    deadline: Duration,
) -> Result<Conversation, MarkError> {
    let dial = netns::Dial { to, mark: Some(mark), from: None };
    let socket = match netns::dial_socket(&dial) {
        Ok(socket) => TcpSocket::from_std_stream(socket.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(MarkError::Forbidden);
        }
        Err(error) => return Err(AppError::new(format!("{NAME}: make a socket"), &error).into()),
    };
    Ok(Conversation::over(NAME, socket.connect(to), to, deadline).await?)
}

/// Sends one datagram and waits for one answer. Nothing is sent again.
///
/// # Errors
/// [`AppError`], whose kind tells refused from silent.
pub async fn ask(to: SocketAddr, question: &[u8], deadline: Duration) -> Result<Vec<u8>, AppError> {
    let exchange = async {
        let from: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = tokio::net::UdpSocket::bind(from).await?;
        socket.connect(to).await?;
        socket.send(question).await?;
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    };
    super::conversation::within(deadline, || format!("{NAME}: ask {to}"), exchange).await
}

fn failed(step: &str, port: u16, error: &io::Error) -> AppError {
    AppError::new(format!("{NAME}: {step} port {port}"), error)
}
