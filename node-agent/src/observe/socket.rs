//! One netlink socket that lives in a pod: it hears what changes there, and asks.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, recvfrom, send, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::{Received, parse};

/// The kernel packs news into packets of at most two pages.
const LONGEST: usize = 16 * 1024;
/// What the kernel calls itself.
const KERNEL: u32 = 0;
/// So many packets are read at once; more news means that everything is looked at anyway.
const MOST_PACKETS: usize = 256;

/// A socket that is not in the runtime yet.
#[derive(Debug)]
pub(super) struct Made {
    fd: OwnedFd,
    port: u32,
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct NetlinkSocket {
    fd: AsyncFd<OwnedFd>,
    /// The kernel's name for it: answers to us carry it, news do not.
    port: u32,
}

/// Why a socket wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// Something waits to be heard.
    News,
    /// More came than there was room for.
    Overrun,
}

/// What was waiting.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) answers: Vec<Received>,
    pub(super) news: Vec<Received>,
    /// More came than there was room for: nobody knows what.
    pub(super) overrun: bool,
}

/// Makes a socket in the calling thread's namespace: from a fence job. `groups` are what it
/// hears, as bits.
pub(super) fn make(protocol: SockProtocol, groups: u32) -> io::Result<Made> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
    Ok(Made { fd, port })
}

impl NetlinkSocket {
    /// Brings a socket into the runtime.
    #[expect(deprecated, reason = "what replaces it is unsafe; an OwnedFd is what it asks for")]
    pub(super) fn new(Made { fd, port }: Made) -> io::Result<Self> {
        Ok(Self { fd: AsyncFd::with_interest(fd, Interest::READABLE)?, port })
    }

    /// Until something waits to be heard; it is left there. An overrun is told once, and so
    /// it is told to whoever asks this.
    pub(super) async fn noticed(&self) -> io::Result<Noticed> {
        loop {
            let mut guard = self.fd.readable().await?;
            let peek = |fd: &AsyncFd<OwnedFd>| {
                let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
                match recv(fd.as_raw_fd(), &mut [0; 16], flags) {
                    Ok(_) => Ok(Noticed::News),
                    Err(Errno::ENOBUFS) => Ok(Noticed::Overrun),
                    Err(error) => Err(io::Error::from(error)),
                }
            };
            if let Ok(waiting) = guard.try_io(peek) {
                return waiting;
            }
        }
    }

    /// Sends requests. The kernel answers them before this returns.
    pub(super) fn ask(&self, requests: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), requests, MsgFlags::empty())?;
        Ok(())
    }

    /// Everything that waits to be heard and is the kernel's: a process in the pod may send
    /// to this socket too, and say what it likes.
    pub(super) fn hear(&self) -> io::Result<Heard> {
        let (mut heard, mut packet) = (Heard::default(), vec![0; LONGEST]);
        for _ in 0..MOST_PACKETS {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut packet) {
                Ok((length, Some(sender))) if sender.pid() == KERNEL => {
                    heard.take(parse(&packet[..length]), self.port);
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(heard),
                Err(Errno::ENOBUFS) => heard.overrun = true,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        heard.overrun = true;
        Ok(heard)
    }
}

impl Heard {
    fn take(&mut self, all: Vec<Received>, port: u32) {
        let (answers, news): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.port == port);
        self.answers.extend(answers);
        self.news.extend(news);
    }
}

#[cfg(test)]
mod tests {
    use netns::{Fence, PodNetns};
    use nix::sys::socket::sendto;

    use super::super::message::{STRANGERS, get_route};
    use super::*;

    #[tokio::test]
    async fn what_a_process_in_the_pod_says_in_the_kernels_name_is_not_heard() {
        let (pod, fence) = (PodNetns::scratch().unwrap(), Fence::new(1).unwrap());
        let make = || make(SockProtocol::NetlinkRoute, 0).unwrap();
        let (ours, theirs) = fence.run(&pod, move || (make(), make())).unwrap();
        let ours = NetlinkSocket::new(ours).unwrap();
        let to = NetlinkAddr::new(ours.port, 0);
        let forged = get_route(0, STRANGERS[0], 0);
        sendto(theirs.fd.as_raw_fd(), &forged, &to, MsgFlags::empty()).unwrap();
        assert_eq!(ours.noticed().await.unwrap(), Noticed::News);
        let heard = ours.hear().unwrap();
        assert!(heard.news.is_empty() && heard.answers.is_empty(), "{heard:?}");
        ours.ask(&forged).unwrap();
        assert_eq!(ours.hear().unwrap().answers.len(), 1, "the kernel itself");
    }
}
