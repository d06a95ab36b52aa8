//! A ztunnel that serves nothing, but answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use netns::PodNetns;
use tokio::task::JoinHandle;
use zds::link::Link;
use zds::{Ack, Hello, Request, Version, WorkloadResponse, workload_response::Payload};

/// What a ztunnel was told.
#[derive(Debug, Default)]
pub struct Told {
    /// In the order of arrival: `add u`, `keep u`, `del u`, `snapshot`.
    pub lines: Vec<String>,
    /// What it would serve.
    pub serves: BTreeMap<String, PodNetns>,
}

/// One connected ztunnel; gone when dropped.
pub struct FakeZtunnel {
    pub told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

impl FakeZtunnel {
    /// Says hello and answers every request; `refuse` names pods it cannot serve.
    pub fn start(link: Link, refuse: Option<&str>) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let (notes, refuse) = (Arc::clone(&told), refuse.map(str::to_owned));
        let task = tokio::spawn(async move {
            let hello = Hello { version: Version::V1 as i32 };
            link.send(&zds::encode(&hello).unwrap(), &[]).await.unwrap();
            while let Ok(Some(packet)) = link.recv().await {
                let request = zds::decode_request(&packet.bytes, packet.fds).unwrap();
                let error = note(&mut notes.lock().unwrap(), request, refuse.as_deref());
                let ack = Some(Payload::Ack(Ack { error }));
                let answer = zds::encode(&WorkloadResponse { payload: ack }).unwrap();
                if link.send(&answer, &[]).await.is_err() {
                    return;
                }
            }
        });
        Self { told, task }
    }

    /// Connects to an agent's socket.
    pub async fn connect(path: &std::path::Path, refuse: Option<&str>) -> Self {
        Self::start(Link::connect(path).await.unwrap(), refuse)
    }

    pub fn lines(&self) -> Vec<String> {
        self.told.lock().unwrap().lines.clone()
    }

    pub fn serves(&self, uid: &str) -> bool {
        self.told.lock().unwrap().serves.contains_key(uid)
    }
}

impl Drop for FakeZtunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes down what came; the error to answer with.
fn note(told: &mut Told, request: Request, refuse: Option<&str>) -> String {
    let (line, error) = match request {
        Request::Add(workload, _) if Some(workload.uid.as_str()) == refuse => {
            (format!("add {}", workload.uid), "address in use".to_owned())
        }
        Request::Add(workload, fd) => {
            told.serves.insert(workload.uid.clone(), PodNetns::from_fd(fd).unwrap());
            (format!("add {}", workload.uid), String::new())
        }
        Request::Keep(uid) => (format!("keep {uid}"), String::new()),
        Request::Del(uid) => {
            told.serves.remove(&uid);
            (format!("del {uid}"), String::new())
        }
        Request::SnapshotSent => ("snapshot".to_owned(), String::new()),
    };
    told.lines.push(line);
    error
}
