//! Sending messages on to a resolver, and their answers back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::Transport;
use super::frame::{FrameReader, write_frame};
use super::sockets::Sockets;
use super::upstreams::Upstreams;
use super::wire::{Message, answers, code, set_id};
use crate::tls;

/// What one message may take altogether. The C library and Go ask again after 5 s; a
/// SERVFAIL must be there before that.
const DEADLINE: Duration = Duration::from_millis(4_500);

/// What one attempt over UDP may take before the message is sent again: datagrams get
/// lost. Longer than a resolver needs for most names.
const UDP_ATTEMPT: Duration = Duration::from_millis(1_500);

/// How often a message is sent over UDP, at least.
const UDP_ATTEMPTS: usize = 3;

/// Messages of one pod that may be on their way at once, each with a socket of its own.
const OUTSTANDING: usize = 256;

/// Longest message.
const MOST: usize = 65_535;

/// Why a message has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Nobody knows whom to ask.
    #[error(
        "no resolver is known: the one that was asked cannot be found out, and resolv.conf names none"
    )]
    NoResolver,
    /// The last one that was tried failed.
    #[error("ask resolver {to}: {source}")]
    Exchange {
        /// Which one.
        to: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// Time is up.
    #[error("no resolver answered within {} ms", DEADLINE.as_millis())]
    Deadline,
}

/// How a message came to us, which tells whom its sender had asked.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// As a datagram; conntrack knows the rest.
    Datagram {
        /// Its sender.
        client: SocketAddr,
        /// The socket that it came to.
        listener: SocketAddr,
    },
    /// On a connection that was opened to this address.
    Connection(Option<SocketAddr>),
    /// It is ztunnel's own.
    Own,
}

/// Sends messages out of one pod.
#[derive(Debug)]
pub struct Forwarder {
    sockets: Sockets,
    upstreams: Upstreams,
    places: Semaphore,
}

impl Forwarder {
    /// Out of the pod that `sockets` belong to; to `upstreams` where it is not known whom
    /// the pod itself asked.
    #[must_use]
    pub fn new(sockets: Sockets, upstreams: Upstreams) -> Self {
        Self { sockets, upstreams, places: Semaphore::new(OUTSTANDING) }
    }

    /// The answer to `query`, byte for byte but for its id, which is the query's.
    ///
    /// # Errors
    /// [`ForwardError`]; the caller tells its client with a SERVFAIL.
    pub async fn forward(
        &self,
        query: &[u8],
        origin: Origin,
        transport: Transport,
    ) -> Result<Vec<u8>, ForwardError> {
        let exchange = async {
            // Never closed.
            let _place = self.places.acquire().await;
            let resolvers = self.resolvers(origin).await;
            self.ask_in_turn(&resolvers, query, transport).await
        };
        timeout(DEADLINE, exchange).await.unwrap_or(Err(ForwardError::Deadline))
    }

    /// A connection to the resolver that was asked, for what is more than a question and its
    /// answer.
    ///
    /// # Errors
    /// As [`Forwarder::forward`].
    pub(super) async fn connect(&self, origin: Origin) -> Result<TcpStream, ForwardError> {
        let connected = async {
            let to = *self.resolvers(origin).await.first().ok_or(ForwardError::NoResolver)?;
            let failed = |source| ForwardError::Exchange { to, source };
            self.sockets.tcp(to).await.map_err(failed)
        };
        timeout(DEADLINE, connected).await.unwrap_or(Err(ForwardError::Deadline))
    }

    /// A client's failing resolver is not replaced by another one: that might give a wrong
    /// answer where the client expected none, and the client has a list of its own.
    async fn resolvers(&self, origin: Origin) -> Vec<SocketAddr> {
        let asked = match origin {
            Origin::Datagram { client, listener } => self.sockets.asked(client, listener).await,
            Origin::Connection(asked) => asked,
            Origin::Own => None,
        };
        match asked.filter(|asked| is_reachable(asked.ip())) {
            Some(asked) => vec![asked],
            None => self.upstreams.all().to_vec(),
        }
    }

    async fn ask_in_turn(
        &self,
        resolvers: &[SocketAddr],
        query: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, ForwardError> {
        let attempts = match transport {
            Transport::Udp => resolvers.len().max(UDP_ATTEMPTS),
            Transport::Tcp => resolvers.len(),
        };
        // One that does not even answer must leave time for the next.
        let share = DEADLINE / u32::try_from(resolvers.len().max(1)).unwrap_or(u32::MAX);
        let mut last = Err(ForwardError::NoResolver);
        for (attempt, &to) in resolvers.iter().cycle().take(attempts).enumerate() {
            let result = match transport {
                Transport::Udp => self.over_udp(to, query).await,
                Transport::Tcp => match timeout(share, self.over_tcp(to, query)).await {
                    Ok(result) => result,
                    Err(late) => Err(late.into()),
                },
            };
            match result {
                // The next one may be willing; if none is, this is the answer.
                Ok(answer) if declined(&answer) && attempt + 1 < resolvers.len() => {
                    last = Ok(answer);
                }
                Ok(answer) => return Ok(answer),
                Err(source) if last.is_err() => last = Err(ForwardError::Exchange { to, source }),
                Err(_) => {}
            }
        }
        last
    }

    async fn over_udp(&self, to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let attempt = async {
            let socket = self.sockets.udp(to).await?;
            let sent = renumbered(query)?;
            socket.send(&sent).await?;
            loop {
                let answer = receive(&socket).await?;
                // Anything else is late, or somebody guesses.
                if answers(&answer, &sent) {
                    return Ok(restored(answer, query));
                }
            }
        };
        timeout(UDP_ATTEMPT, attempt).await?
    }

    async fn over_tcp(&self, to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut connection = self.sockets.tcp(to).await?;
        let sent = renumbered(query)?;
        write_frame(&mut connection, &sent).await?;
        let mut frames = FrameReader::default();
        while let Some(answer) = frames.next(&mut connection).await? {
            if answers(&answer, &sent) {
                return Ok(restored(answer, query));
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Conntrack does not know on which interface a link-local IPv6 address is; and what stays
/// in the pod was never redirected.
fn is_reachable(ip: IpAddr) -> bool {
    let is_link_local_v6 = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !ip.is_loopback() && !ip.is_unspecified() && !is_link_local_v6
}

fn declined(answer: &[u8]) -> bool {
    let declined = [code::SERVER_FAILURE, code::NOT_IMPLEMENTED, code::REFUSED];
    Message::read(answer).is_some_and(|answer| declined.contains(&answer.code()))
}

/// With an id that nobody can guess, whatever the client's was.
fn renumbered(query: &[u8]) -> io::Result<Vec<u8>> {
    let mut sent = query.to_vec();
    set_id(&mut sent, u16::from_ne_bytes(tls::random().map_err(|_| io::ErrorKind::Unsupported)?));
    Ok(sent)
}

fn restored(mut answer: Vec<u8>, query: &[u8]) -> Vec<u8> {
    if let Some(query) = Message::read(query) {
        set_id(&mut answer, query.id());
    }
    answer
}

/// Memory is taken when there is something to read.
async fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        socket.readable().await?;
        let mut answer = Vec::with_capacity(MOST);
        match socket.try_recv_buf(&mut answer) {
            Ok(_) => {
                answer.shrink_to_fit();
                return Ok(answer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
