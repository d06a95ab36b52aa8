//! Looks at the interfaces of the namespace that the program is in, for what concerns a few
//! addresses. What stays on the loopback device is on no wire, and is not looked at.
//!
//! A packet of a pod passes several interfaces of its node (veth, bridge, tunnel device), and
//! is seen on each: it is the ports and the payload that count here, not the number. Link
//! headers are left to the kernel, so that devices without Ethernet are read as well; what a
//! tunnel carries is seen on the tunnel's device.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::packet::{Packet, ip};
use super::socket::{ALL_PROTOCOLS, MAX_FRAME, RECEIVE_BUFFER};
use super::{Observation, SniffError};

/// What is kept at most.
const MAX_BYTES: usize = 64 << 20;
const MAX_PACKETS: usize = 1 << 18;

/// The loopback device has index 1 in every namespace.
const LOOPBACK: usize = 1;

/// A listening socket and what it has heard.
#[derive(Debug)]
pub struct NodeTap {
    fd: AsyncFd<OwnedFd>,
    about: Vec<IpAddr>,
    packets: Vec<Arc<Packet>>,
    bytes: usize,
    by_kernel: u64,
    by_bound: u64,
}

impl NodeTap {
    /// From now on packets from and to these addresses are kept. Needs `CAP_NET_RAW`; with
    /// `CAP_NET_ADMIN` it gets a buffer that does not run over on a busy node.
    ///
    /// # Errors
    /// The system's answer.
    pub fn open(about: Vec<IpAddr>) -> io::Result<Self> {
        // A packet socket that is bound to no interface hears all of them.
        let protocol = Some(Protocol::from(ALL_PROTOCOLS));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), protocol)?;
        let fd = OwnedFd::from(socket);
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        setsockopt(&fd, sockopt::RxqOvfl, &1)?;
        #[expect(deprecated, reason = "a descriptor that is owned here stays open as long as this")]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd, about, packets: Vec::new(), bytes: 0, by_kernel: 0, by_bound: 0 })
    }

    /// Listens until `stop`, and then until all is read that arrived before.
    ///
    /// # Errors
    /// The system's answer.
    pub async fn listen(&mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let mut buffer = vec![0; MAX_FRAME];
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return self.read_ready(&mut buffer),
                ready = self.fd.readable() => {
                    ready?.clear_ready();
                    self.read_ready(&mut buffer)?;
                }
            }
        }
    }

    /// What was heard.
    ///
    /// # Errors
    /// [`SniffError::Dropped`] when anything is missing from it.
    pub fn close(self) -> Result<Observation, SniffError> {
        let Self { by_kernel, by_bound, packets, .. } = self;
        if by_kernel + by_bound > 0 {
            let interface = "all interfaces".to_owned();
            return Err(SniffError::Dropped { interface, by_kernel, by_bound });
        }
        Ok(Observation::new(packets))
    }

    fn read_ready(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.read_one(buffer) {
                Ok(()) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    // Told once when an interface goes down; the others go on.
                    io::ErrorKind::Interrupted | io::ErrorKind::NetworkDown => {}
                    _ => return Err(error),
                },
            }
        }
    }

    fn read_one(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut control = cmsg_space!(u32);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.fd.get_ref().as_raw_fd();
        let message = recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), flags)?;
        for message in message.cmsgs()? {
            if let ControlMessageOwned::RxqOvfl(drops) = message {
                self.by_kernel = u64::from(drops);
            }
        }
        let cut = message.flags.contains(MsgFlags::MSG_TRUNC);
        let on_loopback = message.address.is_some_and(|from| from.ifindex() == LOOPBACK);
        let protocol = message.address.map_or(0, |from| u16::from_be(from.protocol()));
        let length = message.bytes;
        self.by_bound += u64::from(cut);
        if on_loopback {
            return Ok(());
        }
        if let Some(packet) = buffer.get(..length).and_then(|frame| ip(protocol, frame)) {
            self.keep(packet);
        }
        Ok(())
    }

    fn keep(&mut self, packet: Packet) {
        if !self.about.contains(&packet.from) && !self.about.contains(&packet.to) {
            return;
        }
        if self.packets.len() == MAX_PACKETS || self.bytes + packet.payload.len() > MAX_BYTES {
            self.by_bound += 1;
            return;
        }
        self.bytes += packet.payload.len();
        self.packets.push(Arc::new(packet));
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use netns::{Fence, NamedNetns};
    use tokio::sync::oneshot;

    use super::*;
    use crate::net::links::Links;
    use crate::place::Place;

    /// Needs root, as all tests of this crate.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_concerns_the_address_and_crosses_a_link_is_heard_until_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("netns");
        let named = NamedNetns::create(&mounted, "scratch").unwrap();
        let fence = Fence::new(1).unwrap();
        let place = Place::new("scratch", &named, &fence, Duration::from_secs(20));
        let links = Links::open(&place).await.unwrap();
        links.veth("a", "b").await.unwrap();
        for name in ["lo", "a", "b"] {
            links.up(name).await.unwrap();
        }
        links.address("a", "10.77.1.1/24".parse().unwrap()).await.unwrap();
        let neighbour = "ip neigh replace 10.77.1.9 lladdr 02:00:00:00:00:09 dev a";
        place.run(&neighbour.split(' ').collect::<Vec<_>>()).await.unwrap();

        let mine: IpAddr = "10.77.1.1".parse().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let open = move || {
            let _reactor = runtime.enter();
            NodeTap::open(vec![mine])
        };
        let mut tap = place.inside(open).await.unwrap().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let talk = async {
            let say = || {
                let socket = UdpSocket::bind("10.77.1.1:0").unwrap();
                socket.send_to(b"marker-on-the-wire", "10.77.1.9:9").unwrap();
                socket.send_to(b"marker-on-loopback", socket.local_addr().unwrap()).unwrap();
                let other = UdpSocket::bind("127.0.0.1:0").unwrap();
                other.send_to(b"marker-of-others", "127.0.0.1:9").unwrap();
            };
            place.inside(say).await.unwrap();
            stop.send(()).unwrap();
        };
        let listen = tap.listen(async { stopped.await.unwrap() });
        let both = async { tokio::join!(listen, talk) };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap().0.unwrap();
        let seen = tap.close().unwrap();
        assert!(seen.marker(b"marker-on-the-wire") > 0);
        assert_eq!(seen.marker(b"marker-on-loopback") + seen.marker(b"marker-of-others"), 0);
        drop(named);
        nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}
