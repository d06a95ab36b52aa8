//! An agent that does as the test says.

use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use netns::PodNetns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use plugin_api::{Call, Code, Outcome, Reply, Request, VERSION, Verb};

use crate::runtime::PATIENCE;

/// One connection as the agent saw it.
pub struct Asked {
    pub call: Call,
    pub netns: Option<PodNetns>,
    /// What followed the request: nothing, and then the plugin's end.
    pub rest: Vec<u8>,
}

impl Asked {
    /// What it was asked about a pod.
    pub fn request(&self) -> &Request {
        match &self.call {
            Call::Pod(request) => request,
            other => panic!("not about a pod: {other:?}"),
        }
    }
}

/// Answers one connection.
pub struct Agent {
    seen: Receiver<Asked>,
}

impl Agent {
    /// Replies with `outcome`.
    pub fn answering(socket: &Path, outcome: Outcome) -> Self {
        Self::sending(socket, &plugin_api::encode(&Reply { version: VERSION, outcome }).unwrap())
    }

    /// Refuses with `code`.
    pub fn refusing(socket: &Path, code: Code) -> Self {
        let (message, details) = ("rules: because".to_owned(), "do this".to_owned());
        Self::answering(socket, Outcome::Error { code, message, details })
    }

    /// Replies with exactly these bytes, and hangs up only after the plugin did.
    pub fn sending(socket: &Path, bytes: &[u8]) -> Self {
        let bytes = bytes.to_owned();
        Self::conversing(socket, move |mut stream| {
            stream.write_all(&bytes).unwrap();
            stream
        })
    }

    /// Reads the request, replies with a part of what it owes, and hangs up.
    pub fn hanging_up(socket: &Path, bytes: &[u8]) -> Self {
        let bytes = bytes.to_owned();
        Self::conversing(socket, move |mut stream| {
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
            stream
        })
    }

    /// Says when the request is there, and never replies.
    pub fn hanging(socket: &Path) -> (Self, Receiver<()>) {
        let (sender, heard) = channel();
        let agent = Self::conversing(socket, move |stream| {
            sender.send(()).unwrap();
            stream
        });
        (agent, heard)
    }

    /// Answers `count` connections, all of which must come before the first answer does.
    pub fn answering_together(socket: &Path, count: usize, outcome: Outcome) -> JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        let reply = plugin_api::encode(&Reply { version: VERSION, outcome }).unwrap();
        thread::spawn(move || {
            let streams: Vec<_> = (0..count).map(|_| listener.accept().unwrap().0).collect();
            for mut stream in streams {
                read_call(&mut stream);
                stream.write_all(&reply).unwrap();
            }
        })
    }

    fn conversing(
        socket: &Path,
        reply: impl FnOnce(UnixStream) -> UnixStream + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (sender, seen) = channel();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (call, netns) = read_call(&mut stream);
            let mut stream = reply(stream);
            let mut rest = Vec::new();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut rest);
            sender.send(Asked { call, netns, rest }).unwrap();
        });
        Self { seen }
    }

    /// What it was asked, once the plugin has gone.
    pub fn asked(&self) -> Asked {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }

    /// It was not asked at all.
    pub fn assert_not_asked(&self) {
        assert!(self.seen.try_recv().is_err());
    }
}

/// What a standing agent saw of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It ended within the request.
    Cut,
    /// It ended before the answer.
    Whole,
    /// The answer was taken, as far as the kernel tells.
    Answered(Verb),
}

/// Answers as many connections as come, and goes on whatever they do.
pub fn standing(socket: &Path) -> Receiver<Visit> {
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, seen) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The test has ended.
            if sender.send(visit(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    seen
}

fn visit(mut stream: UnixStream) -> Visit {
    let Ok((call, _)) = try_read_call(&mut stream) else {
        return Visit::Cut;
    };
    let (verb, outcome) = match call {
        Call::Pod(Request { verb: Verb::Del, .. }) => (Verb::Del, Outcome::Done),
        Call::Pod(Request { verb, .. }) => (verb, Outcome::Captured),
        Call::Status => (Verb::Status, Outcome::Ready { note: String::new() }),
        Call::Gc(_) => (Verb::Gc, Outcome::Collected { attachments: 0 }),
    };
    let reply = plugin_api::encode(&Reply { version: VERSION, outcome }).unwrap();
    match stream.write_all(&reply) {
        Ok(()) => Visit::Answered(verb),
        Err(_) => Visit::Whole,
    }
}

fn read_call(stream: &mut UnixStream) -> (Call, Option<PodNetns>) {
    try_read_call(stream).unwrap()
}

/// The first byte alone carries the descriptor, so read that one alone.
fn try_read_call(stream: &mut UnixStream) -> io::Result<(Call, Option<PodNetns>)> {
    let mut prefix = [0; 4];
    let descriptor = {
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut first = [IoSliceMut::new(&mut prefix[..1])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut first, Some(&mut space), flags)?;
        let mut all = message.cmsgs()?.filter_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = all.next().unwrap_or_default();
        assert!(fds.len() <= 1 && all.next().is_none(), "more than one descriptor");
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fds.first().copied()
    };
    let netns = descriptor.map(|fd| {
        let netns = PodNetns::open(format!("/proc/self/fd/{fd}").as_ref()).unwrap();
        nix::unistd::close(fd).unwrap();
        netns
    });
    stream.read_exact(&mut prefix[1..])?;
    let mut body = vec![0; plugin_api::decode_length(prefix).unwrap()];
    stream.read_exact(&mut body)?;
    Ok((plugin_api::decode_call(&body).unwrap(), netns))
}
