//! Asking and answering by datagram, as resolvers and their servers do.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

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

/// What becomes of a datagram's content.
pub type Answer = fn(&[u8]) -> Vec<u8>;

/// Sends every datagram back to whom it came from, as it was or with another content. It ends
/// when dropped.
#[derive(Debug)]
pub struct Echo {
    answering: JoinHandle<()>,
}

impl Echo {
    pub(crate) async fn start(place: &Place, port: u16) -> Result<Self, AppError> {
        let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        Self::answering(place, addr, <[u8]>::to_vec).await
    }

    pub(crate) async fn answering(
        place: &Place,
        addr: SocketAddr,
        answer: Answer,
    ) -> Result<Self, AppError> {
        let failed =
            |error| AppError::new(format!("{}: answer datagrams at {addr}", place.name()), &error);
        let bound = place.inside(move || std::net::UdpSocket::bind(addr)).await;
        let socket = bound.map_err(io::Error::other).and_then(|bound| bound).map_err(failed)?;
        Self::with(socket, answer).map_err(failed)
    }

    /// Answers on a bound socket.
    pub(crate) fn on(socket: std::net::UdpSocket) -> io::Result<Self> {
        Self::with(socket, <[u8]>::to_vec)
    }

    fn with(socket: std::net::UdpSocket, answer: Answer) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { answering: tokio::spawn(answer_all(socket, answer)) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

async fn answer_all(socket: UdpSocket, answer: Answer) {
    let mut datagram = vec![0; MOST];
    loop {
        // An error is that of an answer that found nobody; the next datagram is none of it.
        if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&answer(&datagram[..length]), from).await;
        }
    }
}
