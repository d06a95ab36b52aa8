#![no_main]
//! Packets between the agent and ztunnel, with any number of descriptors, at both ends.

use std::fs::File;
use std::os::fd::OwnedFd;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use zds::{
    Ack, AddWorkload, DelWorkload, Hello, KeepWorkload, ListenerEntry, Request, SnapshotSent,
    WorkloadInfo, WorkloadRequest, WorkloadResponse, workload_request, workload_response,
};

#[derive(Debug, Arbitrary)]
enum Packet {
    Bytes(Vec<u8>),
    Hello {
        version: i32,
        features: u32,
    },
    Add {
        uid: String,
        info: Option<(String, String, String)>,
        listeners: Vec<Listener>,
        features: u32,
    },
    Keep(String, u32),
    Del(String),
    SnapshotSent,
    Ack {
        error: String,
        listeners: Vec<Listener>,
        has_netns: bool,
    },
}

#[derive(Debug, Arbitrary)]
struct Listener {
    port: u16,
    beyond: bool,
    kind: u8,
}

impl Listener {
    fn entry(&self) -> ListenerEntry {
        let port = u32::from(self.port) + if self.beyond { 1 << 16 } else { 0 };
        ListenerEntry { port, kind: i32::from(self.kind % 6) }
    }
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        use workload_request::Payload;
        let entries = |all: &[Listener]| all.iter().map(Listener::entry).collect();
        let request = |features: u32, payload| {
            WorkloadRequest { features, payload: Some(payload) }.encode_to_vec()
        };
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Hello { version, features } => {
                Hello { version: *version, features: *features }.encode_to_vec()
            }
            Self::Add { uid, info, listeners, features } => {
                let info = info.clone().map(|(name, namespace, service_account)| WorkloadInfo {
                    name,
                    namespace,
                    service_account,
                });
                let listeners = entries(listeners);
                let add = AddWorkload {
                    uid: uid.clone(),
                    workload_info: info,
                    listeners,
                    lookups: (*features % 4).cast_signed(),
                };
                request(*features, Payload::Add(add))
            }
            Self::Keep(uid, features) => {
                request(*features, Payload::Keep(KeepWorkload { uid: uid.clone() }))
            }
            Self::Del(uid) => request(0, Payload::Del(DelWorkload { uid: uid.clone() })),
            Self::SnapshotSent => request(0, Payload::SnapshotSent(SnapshotSent {})),
            Self::Ack { error, listeners, has_netns } => {
                let (error, listeners) = (error.clone(), entries(listeners));
                let ack = Ack { error, listeners, has_netns: *has_netns };
                let payload = Some(workload_response::Payload::Ack(ack));
                WorkloadResponse { payload }.encode_to_vec()
            }
        }
    }
}

fn descriptors(count: usize) -> Vec<OwnedFd> {
    let null = File::open("/dev/null").expect("it is there");
    (0..count).map(|_| null.try_clone().expect("few are open").into()).collect()
}

fuzz_target!(|input: (Packet, u8)| {
    let (packet, count) = input;
    let (bytes, count) = (packet.bytes(), usize::from(count % 24));
    if let Ok(hello) = zds::decode_hello(&bytes, &descriptors(count)) {
        assert_eq!((hello.version, count), (1, 0));
    }
    match zds::decode_request(&bytes, descriptors(count)) {
        Ok(Request::Add { workload, listeners, .. }) => {
            assert!(!workload.uid.is_empty());
            assert_eq!(count, 1 + listeners.len());
            assert!(listeners.iter().all(|it| it.at.port != 0));
        }
        Ok(Request::Keep(uid, _) | Request::Del(uid)) => assert!(!uid.is_empty() && count == 0),
        Ok(Request::SnapshotSent) => assert_eq!(count, 0),
        Err(_) => {}
    }
    match zds::decode_response(&bytes, descriptors(count)) {
        Ok(Ok(returned)) => {
            assert_eq!(count, returned.listeners.len() + usize::from(returned.netns.is_some()));
        }
        Ok(Err(reason)) => assert!(!reason.is_empty() && count == 0),
        Err(_) => {}
    }
});
