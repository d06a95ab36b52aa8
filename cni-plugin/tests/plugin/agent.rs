//! An agent that does as the test says.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use netns::PodNetns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use plugin_api::{Call, Code, Outcome, Reply, Request, VERSION};

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

/// The first byte alone carries the descriptor, so read that one alone.
fn read_call(stream: &mut UnixStream) -> (Call, Option<PodNetns>) {
    let mut prefix = [0; 4];
    let descriptor = {
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut first = [IoSliceMut::new(&mut prefix[..1])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut first, Some(&mut space), flags).unwrap();
        let mut all = message.cmsgs().unwrap().filter_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = all.next().unwrap_or_default();
        assert!(fds.len() <= 1 && all.next().is_none(), "more than one descriptor");
        fds.first().copied()
    };
    let netns = descriptor.map(|fd| {
        let netns = PodNetns::open(format!("/proc/self/fd/{fd}").as_ref()).unwrap();
        nix::unistd::close(fd).unwrap();
        netns
    });
    stream.read_exact(&mut prefix[1..]).unwrap();
    let mut body = vec![0; plugin_api::decode_length(prefix).unwrap()];
    stream.read_exact(&mut body).unwrap();
    (plugin_api::decode_call(&body).unwrap(), netns)
}
