//! The plugin's side of its socket: one request of the container runtime.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netns::PodNetns;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use plugin_api::{Outcome, Reply, Request};

const PATIENCE: Duration = Duration::from_secs(60);

/// Asks, and waits for the answer: what it is, and how long it took. Blocks.
pub(crate) fn ask(
    socket: &Path,
    request: &Request,
    netns: Option<&PodNetns>,
) -> anyhow::Result<(Outcome, Duration)> {
    let frame = plugin_api::encode(request)?;
    let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let begin = Instant::now();
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connect to the agent at {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let slices = [IoSlice::new(&frame)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &slices, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    ensure!(sent == frame.len(), "the agent took {sent} bytes of a request");
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).context("read the agent's answer")?;
    let mut body = vec![0; plugin_api::decode_length(prefix)?];
    stream.read_exact(&mut body).context("read the agent's answer")?;
    let took = begin.elapsed();
    let reply: Reply = plugin_api::decode(&body)?;
    Ok((reply.outcome, took))
}
