//! Applications that talk: blocking sockets and threads, so that they cost the same
//! whatever is measured.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use netns::{Dial, Fence, Listen, PodNetns};
use socket2::SockRef;

/// Where the talking application listens.
const TALK: u16 = 9001;
/// Where the one listens that only keeps connections.
const KEEP: u16 = 9002;
/// No single read or write takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: usize = 256 * 1024;
/// Of one request, and of its answer.
pub(crate) const MESSAGE: usize = 1024;

/// What goes over a connection; its first byte says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// As many bytes as go, one way. Counted in bytes.
    Bulk,
    /// 1 KiB there, 1 KiB back, over and over. Counted in round trips.
    Talk,
    /// Connect, one byte, its echo, close. Counted in connections.
    Connect,
}

impl Work {
    fn mark(self) -> [u8; 1] {
        match self {
            Self::Bulk => *b"B",
            Self::Talk => *b"T",
            Self::Connect => *b"C",
        }
    }
}

/// Both applications of one pod; they end when dropped.
pub(crate) struct Applications {
    listeners: [Arc<TcpListener>; 2],
    threads: Vec<JoinHandle<()>>,
    kept: Arc<Mutex<Vec<TcpStream>>>,
}

impl Applications {
    pub(crate) fn start(fence: &Fence, netns: &PodNetns) -> anyhow::Result<Self> {
        let listeners = [listen(fence, netns, TALK)?, listen(fence, netns, KEEP)?];
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (talk, keep, keeping) =
            (Arc::clone(&listeners[0]), Arc::clone(&listeners[1]), Arc::clone(&kept));
        let threads = vec![
            std::thread::spawn(move || {
                accept(&talk, |stream| drop(std::thread::spawn(move || serve(stream))));
            }),
            std::thread::spawn(move || {
                accept(&keep, |mut stream| {
                    // Whoever is gone already is not kept.
                    if stream.write_all(b"k").is_ok() {
                        keeping.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                    }
                });
            }),
        ];
        Ok(Self { listeners, threads, kept })
    }

    /// Closes what is kept.
    pub(crate) fn let_go(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Applications {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // What fails here has ended already.
            let _ = SockRef::from(&**listener).shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(fence: &Fence, netns: &PodNetns, port: u16) -> anyhow::Result<Arc<TcpListener>> {
    let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listen = Listen { addr, backlog: 4096, mark: None };
    let listener = fence.run(netns, move || netns::listen_tcp(&listen))??;
    listener.set_nonblocking(false)?;
    Ok(Arc::new(listener))
}

fn accept(listener: &TcpListener, mut each: impl FnMut(TcpStream)) {
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nodelay(true).is_ok() && patient(&stream).is_ok() {
            each(stream);
        }
    }
}

fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// One connection of the talking application. The other end sees and reports failures.
fn serve(mut stream: TcpStream) {
    let mut first = [0; 1];
    if stream.read_exact(&mut first).is_err() {
        return;
    }
    match &first {
        b"B" => {
            let mut block = vec![0; BLOCK];
            while matches!(stream.read(&mut block), Ok(1..)) {}
        }
        b"T" => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
        }
        _ => drop(stream.write_all(&first)),
    }
}

/// An application that connects to another pod.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub netns: PodNetns,
    pub to: IpAddr,
}

/// What was done, and in which time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub units: u64,
    pub took: Duration,
}

impl Client {
    fn dial(&self, port: u16) -> anyhow::Result<TcpStream> {
        let to = SocketAddr::new(self.to, port);
        let socket = netns::dial_socket_in(&self.netns, &Dial { to, mark: None, from: None })?;
        socket.set_nonblocking(false)?;
        socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("dial {to}"))?;
        let stream = TcpStream::from(socket);
        patient(&stream)?;
        Ok(stream)
    }

    /// A connection to the talking application, before its first byte.
    pub(crate) fn talk(&self) -> anyhow::Result<TcpStream> {
        self.dial(TALK)
    }

    /// A connection that the other end keeps, proved by the byte that it sent.
    pub(crate) fn keep(&self) -> anyhow::Result<TcpStream> {
        let mut stream = self.dial(KEEP)?;
        stream.read_exact(&mut [0]).context("hear from the application")?;
        Ok(stream)
    }

    /// Works on so many connections side by side until the time is over.
    pub(crate) fn work(&self, work: Work, at_once: usize, span: Duration) -> anyhow::Result<Done> {
        let start = Instant::now();
        let units = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..at_once).map(|_| scope.spawn(move || self.one(work, start + span))).collect();
            threads.into_iter().try_fold(0, |sum, thread| {
                let units = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
                anyhow::Ok(sum + units)
            })
        })?;
        Ok(Done { units, took: start.elapsed() })
    }

    fn one(&self, work: Work, until: Instant) -> anyhow::Result<u64> {
        let mut units = 0;
        if work == Work::Connect {
            while Instant::now() < until {
                let mut stream = self.dial(TALK)?;
                stream.write_all(&work.mark())?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).context("hear the echo")?;
                anyhow::ensure!(answer == work.mark(), "another byte came back");
                units += 1;
            }
            return Ok(units);
        }
        let mut stream = self.dial(TALK)?;
        stream.write_all(&work.mark())?;
        let mut block = vec![7; if work == Work::Bulk { BLOCK } else { MESSAGE }];
        while Instant::now() < until {
            stream.write_all(&block).context("send")?;
            if work == Work::Talk {
                stream.read_exact(&mut block).context("hear the answer")?;
                units += 1;
            } else {
                units += BLOCK as u64;
            }
        }
        // The end comes back when everything has arrived.
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut block)?;
        Ok(units)
    }
}
