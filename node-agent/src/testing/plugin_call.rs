//! The plugin's end of its socket.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use netns::PodNetns;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use plugin_api::Reply;

/// Sends `frame`, with `netns` on its first byte.
pub fn send_frame(stream: &UnixStream, frame: &[u8], netns: Option<&PodNetns>) {
    let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd().as_raw_fd()).collect();
    send(stream, frame, &fds);
}

/// Sends `frame` with any descriptor.
pub fn send_fd(stream: &UnixStream, frame: &[u8], fd: &OwnedFd) {
    send(stream, frame, &[fd.as_raw_fd()]);
}

fn send(stream: &UnixStream, frame: &[u8], fds: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(fds)];
    let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let slices = [IoSlice::new(frame)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &slices, rights, MsgFlags::MSG_NOSIGNAL, None);
    assert_eq!(sent.unwrap(), frame.len());
}

/// One request, one reply. Blocks.
pub fn plugin_call(socket: &Path, frame: &[u8], netns: Option<&PodNetns>) -> Reply {
    let stream = UnixStream::connect(socket).unwrap();
    send_frame(&stream, frame, netns);
    read_reply(stream)
}

/// The reply to what was sent. Blocks.
pub fn read_reply(mut stream: UnixStream) -> Reply {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).unwrap();
    let mut body = vec![0; plugin_api::decode_length(prefix).unwrap()];
    stream.read_exact(&mut body).unwrap();
    plugin_api::decode(&body).unwrap()
}
