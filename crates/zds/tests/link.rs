//! Packets and descriptors over a real socket.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside test functions")]

use std::io::{ErrorKind, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use zds::link::{Link, LinkError, Listener};
use zds::{
    AddWorkload, ListenAt, MAX_LISTENERS, MAX_MESSAGE, Violation, WorkloadInfo, WorkloadRequest,
    decode_request, decode_response, workload_request,
};

const PATIENCE: Duration = Duration::from_secs(5);
const ADD: &[u8] = b"\x0a\x0f\x0a\x02u1\x12\x09\x0a\x01n\x12\x01s\x1a\x01a";
const DEL: &[u8] = b"\x12\x04\x12\x02u1";

/// A descriptor to give away, and the means to see when its last copy is closed.
struct Given {
    fd: OwnedFd,
    watch: UnixStream,
}

impl Given {
    fn new() -> Self {
        let (fd, watch) = UnixStream::pair().unwrap();
        watch.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { fd: fd.into(), watch }
    }

    /// Closes our copy; whoever keeps another one makes this fail.
    fn assert_closed(self) {
        drop(self.fd);
        let mut watch = self.watch;
        assert_eq!(watch.read(&mut [0]).expect("a copy of the descriptor is still open"), 0);
    }
}

fn borrow(given: &[Given]) -> Vec<BorrowedFd<'_>> {
    given.iter().map(|given| given.fd.as_fd()).collect()
}

/// A peer that obeys no rule, and the link to it.
struct Rude {
    socket: UnixSeqpacket,
    link: Link,
}

impl Rude {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zds.sock");
        let mut listener = Listener::bind(&path).unwrap();
        let socket = UnixSeqpacket::connect(&path).await.unwrap();
        Self { socket, link: listener.accept().await.unwrap() }
    }

    async fn send(&self, bytes: &[u8], given: &[Given]) {
        let mut space = vec![0; 4096];
        let mut ancillary = AncillaryMessageWriter::new(&mut space);
        if !given.is_empty() {
            ancillary.add_fds(borrow(given)).unwrap();
        }
        let parts = [IoSlice::new(bytes)];
        let sent = self.socket.send_vectored_with_ancillary(&parts, &mut ancillary);
        assert_eq!(sent.await.unwrap(), bytes.len());
    }

    async fn violation(&self) -> Violation {
        match self.link.recv().await.unwrap_err() {
            LinkError::Violation(violation) => violation,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_packet_arrives_with_its_descriptor() {
    let (agent, ztunnel) = Link::pair().unwrap();
    let given = Given::new();
    agent.send(ADD, &[given.fd.as_fd()]).await.unwrap();
    let packet = ztunnel.recv().await.unwrap().unwrap();
    assert_eq!(packet.bytes, ADD);
    let [received] = &packet.fds[..] else { panic!("{packet:?}") };
    let inode = |fd: &OwnedFd| {
        std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().ino()
    };
    assert_eq!(inode(received), inode(&given.fd));
    drop(packet);
    given.assert_closed();
}

#[tokio::test]
async fn received_descriptors_end_with_exec() {
    let (agent, ztunnel) = Link::pair().unwrap();
    let given = Given::new();
    agent.send(ADD, &[given.fd.as_fd()]).await.unwrap();
    let packet = ztunnel.recv().await.unwrap().unwrap();
    let path = format!("/proc/self/fdinfo/{}", packet.fds[0].as_raw_fd());
    let info = std::fs::read_to_string(path).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
    assert_ne!(flags & 0o2_000_000, 0, "O_CLOEXEC in {flags:o}");
}

#[tokio::test]
async fn packets_keep_their_borders() {
    let (agent, ztunnel) = Link::pair().unwrap();
    let longest = vec![7; MAX_MESSAGE];
    for bytes in [ADD, DEL, &longest] {
        agent.send(bytes, &[]).await.unwrap();
    }
    for bytes in [ADD, DEL, &longest] {
        assert_eq!(ztunnel.recv().await.unwrap().unwrap().bytes, bytes);
    }
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let (agent, ztunnel) = Link::pair().unwrap();
    let error = agent.send(&[0; MAX_MESSAGE + 1], &[]).await.unwrap_err();
    assert!(matches!(error, LinkError::Violation(Violation::TooLong(1025))));
    agent.send(DEL, &[]).await.unwrap();
    assert_eq!(ztunnel.recv().await.unwrap().unwrap().bytes, DEL);
}

#[tokio::test]
async fn a_cut_off_packet_is_a_violation_and_its_descriptors_are_closed() {
    let rude = Rude::new().await;
    let given = [Given::new(), Given::new()];
    rude.send(&[7; MAX_MESSAGE + 1], &given).await;
    assert!(matches!(rude.violation().await, Violation::Truncated));
    given.into_iter().for_each(Given::assert_closed);
}

#[tokio::test]
async fn more_descriptors_than_fit_are_a_violation_and_all_are_closed() {
    let rude = Rude::new().await;
    let given: Vec<_> = (0..100).map(|_| Given::new()).collect();
    rude.send(ADD, &given).await;
    assert!(matches!(rude.violation().await, Violation::DescriptorsTruncated));
    given.into_iter().for_each(Given::assert_closed);
}

/// From the socket to the decision, with every number of descriptors that is wrong.
#[tokio::test]
async fn surplus_and_missing_descriptors_are_counted_and_closed() {
    for (bytes, count) in [(ADD, 0), (ADD, 2), (ADD, 3), (DEL, 1), (DEL, 2)] {
        let rude = Rude::new().await;
        let given: Vec<_> = (0..count).map(|_| Given::new()).collect();
        rude.send(bytes, &given).await;
        let packet = rude.link.recv().await.unwrap().unwrap();
        let error = decode_request(&packet.bytes, packet.fds).unwrap_err();
        assert!(matches!(error, Violation::DescriptorCount { found, .. } if found == count));
        given.into_iter().for_each(Given::assert_closed);
    }
}

#[tokio::test]
async fn descriptors_of_undecodable_requests_are_closed() {
    for bytes in [&b"\xff"[..], b"\x22\x00", b"\x0a\x04\x0a\x02u1", b"\x0a\x02\x12\x00"] {
        let rude = Rude::new().await;
        let given = [Given::new()];
        rude.send(bytes, &given).await;
        let packet = rude.link.recv().await.unwrap().unwrap();
        decode_request(&packet.bytes, packet.fds).unwrap_err();
        given.into_iter().for_each(Given::assert_closed);
    }
}

#[tokio::test]
async fn the_end_of_the_peer_is_an_end_not_an_error() {
    let (agent, ztunnel) = Link::pair().unwrap();
    agent.send(DEL, &[]).await.unwrap();
    drop(agent);
    assert_eq!(ztunnel.recv().await.unwrap().unwrap().bytes, DEL);
    assert!(ztunnel.recv().await.unwrap().is_none());
    let error = ztunnel.send(DEL, &[]).await.unwrap_err();
    assert!(matches!(error, LinkError::Io { step: "send", .. }), "{error}");
}

#[tokio::test]
async fn a_given_up_receive_loses_nothing() {
    let (agent, ztunnel) = Link::pair().unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(1), ztunnel.recv()).await;
    assert!(waited.is_err(), "nothing was sent yet");
    agent.send(DEL, &[]).await.unwrap();
    assert_eq!(ztunnel.recv().await.unwrap().unwrap().bytes, DEL);
}

#[tokio::test]
async fn listening_and_connecting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zds.sock");
    let absent = Link::connect(&path).await.unwrap_err();
    assert!(matches!(&absent, LinkError::Io { step: "connect to the agent", source }
        if source.kind() == ErrorKind::NotFound));
    let mut listener = Listener::bind(&path).unwrap();
    let taken = Listener::bind(&path).unwrap_err();
    assert!(matches!(&taken, LinkError::Io { step: "bind", source }
        if source.kind() == ErrorKind::AddrInUse));
    let ztunnel = Link::connect(&path).await.unwrap();
    let agent = listener.accept().await.unwrap();
    assert_eq!(agent.peer_uid().unwrap(), std::fs::metadata(folder.path()).unwrap().uid());
    ztunnel.send(b"\x08\x01", &[]).await.unwrap();
    assert_eq!(agent.recv().await.unwrap().unwrap().bytes, b"\x08\x01");
}

/// The longest names that Kubernetes allows, and as many listeners as there may be.
#[tokio::test]
async fn the_greatest_number_of_descriptors_arrives() {
    let (agent, ztunnel) = Link::pair().unwrap();
    let listeners = (1..).take(MAX_LISTENERS).map(|port| ListenAt::any(65_000 + port).entry());
    let add = AddWorkload {
        uid: "u".repeat(36),
        workload_info: Some(WorkloadInfo {
            name: "n".repeat(253),
            namespace: "s".repeat(63),
            service_account: "a".repeat(253),
        }),
        listeners: listeners.collect(),
        lookups: zds::Lookups::Redirected.into(),
    };
    let payload = Some(workload_request::Payload::Add(add));
    let bytes = zds::encode(&WorkloadRequest { features: 0, payload }).unwrap();
    let given: Vec<_> = (0..=MAX_LISTENERS).map(|_| Given::new()).collect();
    agent.send(&bytes, &borrow(&given)).await.unwrap();
    let packet = ztunnel.recv().await.unwrap().unwrap();
    let request = decode_request(&packet.bytes, packet.fds).unwrap();
    assert!(matches!(&request, zds::Request::Add { listeners, .. }
        if listeners.len() == MAX_LISTENERS));
    drop(request);
    given.into_iter().for_each(Given::assert_closed);
}

/// Surplus and missing descriptors of answers, from the socket to the decision.
#[tokio::test]
async fn descriptors_of_broken_answers_are_closed() {
    let refusal: &[u8] = b"\x0a\x04\x0a\x02no";
    let one_listener: &[u8] = b"\x0a\x06\xc2\x3e\x03\x08\x99\x75";
    for (bytes, count) in
        [(refusal, 1), (one_listener, 0), (one_listener, 2), (b"\x0a\x00", 1), (b"\x12\x00", 1)]
    {
        let rude = Rude::new().await;
        let given: Vec<_> = (0..count).map(|_| Given::new()).collect();
        rude.send(bytes, &given).await;
        let packet = rude.link.recv().await.unwrap().unwrap();
        decode_response(&packet.bytes, packet.fds).unwrap_err();
        given.into_iter().for_each(Given::assert_closed);
    }
}
