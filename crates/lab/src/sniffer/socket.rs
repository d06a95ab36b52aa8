//! The packet sockets: one that listens, one that sends flags. To be opened inside the
//! namespace, by a fence job.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, bind, recvmsg, send, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::packet::{FLAG_ETHERTYPE, FLAG_MAGIC};

/// `ETH_P_ALL` of linux/if_ether.h, in network order as packet(7) wants it.
pub(crate) const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;

/// Room for bursts while the reader is not scheduled.
pub(crate) const RECEIVE_BUFFER: usize = 64 << 20;

/// Larger than any frame: segmentation offload makes frames of up to 64 KiB.
pub(crate) const MAX_FRAME: usize = 80 << 10;

/// The listening end.
#[derive(Debug)]
pub(crate) struct Tap {
    pub fd: OwnedFd,
    interface: usize,
}

/// The sending end. A socket does not see what it sends itself, hence a second one.
#[derive(Debug)]
pub(crate) struct Flagger {
    fd: OwnedFd,
}

/// What one read brought.
pub(crate) struct Read {
    /// Length of the frame; `None` for one of another interface, from before the bind.
    pub frame: Option<usize>,
    /// How many frames the kernel has dropped since the socket was made, where it says.
    pub drops: Option<u32>,
    /// The frame was larger than the buffer.
    pub cut: bool,
}

pub(crate) fn open(interface: &str, receive_buffer: usize) -> io::Result<(Tap, Flagger)> {
    let address = link_address(interface)?;
    let tap = packet_socket(ALL_PROTOCOLS)?;
    setsockopt(&tap, sockopt::RcvBufForce, &receive_buffer)?;
    setsockopt(&tap, sockopt::RxqOvfl, &1)?;
    bind(tap.as_raw_fd(), &address)?;
    // A socket of protocol 0 receives nothing, so nothing piles up in it.
    let flagger = packet_socket(0)?;
    bind(flagger.as_raw_fd(), &address)?;
    Ok((Tap { fd: tap, interface: address.ifindex() }, Flagger { fd: flagger }))
}

fn packet_socket(protocol: i32) -> io::Result<OwnedFd> {
    let protocol = Some(Protocol::from(protocol));
    Ok(Socket::new(Domain::PACKET, Type::RAW, protocol)?.into())
}

/// The kernel lists every interface with its packet address; bound with that one's
/// protocol of 0, a socket keeps the protocol it was made with.
fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let mut all = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let found = all.find_map(|entry| entry.address?.as_link_addr().copied());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such interface"))
}

impl Tap {
    /// Reads one frame without waiting; `WouldBlock` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        let mut control = cmsg_space!(u32);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<LinkAddr>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let drops = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::RxqOvfl(drops) => Some(drops),
            _ => None,
        });
        let ours = message.address.is_some_and(|from| from.ifindex() == self.interface);
        Ok(Read {
            frame: ours.then_some(message.bytes),
            drops,
            cut: message.flags.contains(MsgFlags::MSG_TRUNC),
        })
    }
}

impl Flagger {
    /// Sends a frame that nobody but a sniffer looks at.
    pub fn send(&self, nonce: u64) -> io::Result<()> {
        // Locally administered unicast addresses: a receiver that is not meant ignores it.
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(FLAG_ETHERTYPE.to_be_bytes());
        frame.extend(FLAG_MAGIC);
        frame.extend(nonce.to_be_bytes());
        // The smallest Ethernet frame.
        frame.resize(60, 0);
        send(self.fd.as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }
}
