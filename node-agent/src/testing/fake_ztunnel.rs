//! A ztunnel that serves nothing, but answers.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netns::PodNetns;
use tokio::task::JoinHandle;
use zds::link::Link;
use zds::{
    Ack, Carries, FEATURE_LISTENERS, FEATURE_LOOKUPS, GiveBack, GivenListener, Hello, Lookups,
    Request, Version, WorkloadResponse, workload_response::Payload,
};

/// How often one that is silent asks whether it still is.
const SOON: Duration = Duration::from_millis(10);

/// What a ztunnel was told.
#[derive(Debug, Default)]
pub struct Told {
    /// In the order of arrival: `add u`, `keep u`, `del u`, `snapshot`.
    pub lines: Vec<String>,
    /// What it would serve.
    pub serves: BTreeMap<String, PodNetns>,
    /// The listeners it would serve on.
    pub holds: BTreeMap<String, Vec<GivenListener>>,
    /// What it heard last of a pod's lookups.
    pub lookups: BTreeMap<String, Lookups>,
    /// Set from outside: from now on it refuses every add.
    pub refuses: bool,
    /// Set from outside: it reads, and answers when it is no longer set.
    pub is_silent: bool,
}

/// One connected ztunnel; gone when dropped.
pub struct FakeZtunnel {
    pub told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

/// What goes into an answer.
#[derive(Default)]
struct Answer {
    ack: Ack,
    fds: Vec<OwnedFd>,
}

impl FakeZtunnel {
    /// Says hello and answers every request; `refuse` names pods it cannot serve. Of
    /// version 1: it takes no listeners.
    pub fn start(link: Link, refuse: Option<&str>) -> Self {
        Self::converse(link, 0, refuse, Arc::default())
    }

    /// One that takes listeners, and gives back what it holds: at first what `told` has.
    pub fn taking(link: Link, told: Arc<Mutex<Told>>) -> Self {
        Self::converse(link, FEATURE_LISTENERS | FEATURE_LOOKUPS, None, told)
    }

    /// Like [`FakeZtunnel::taking`], of one that binds the sockets of name servers itself.
    pub fn taking_no_lookups(link: Link, told: Arc<Mutex<Told>>) -> Self {
        Self::converse(link, FEATURE_LISTENERS, None, told)
    }

    /// Like [`FakeZtunnel::taking`], of one that cannot serve a pod.
    pub fn taking_but(link: Link, refuse: &str) -> Self {
        let features = FEATURE_LISTENERS | FEATURE_LOOKUPS;
        Self::converse(link, features, Some(refuse), Arc::default())
    }

    fn converse(link: Link, features: u32, refuse: Option<&str>, told: Arc<Mutex<Told>>) -> Self {
        let (notes, refuse) = (Arc::clone(&told), refuse.map(str::to_owned));
        let task = tokio::spawn(async move {
            let hello = Hello { version: Version::V1 as i32, features };
            link.send(&zds::encode(&hello).unwrap(), &[]).await.unwrap();
            while let Ok(Some(packet)) = link.recv().await {
                let request = zds::decode_request(&packet.bytes, packet.fds).unwrap();
                let Answer { ack, fds } =
                    note(&mut notes.lock().unwrap(), request, refuse.as_deref());
                while notes.lock().unwrap().is_silent {
                    tokio::time::sleep(SOON).await;
                }
                let ack = Some(Payload::Ack(ack));
                let answer = zds::encode(&WorkloadResponse { payload: ack }).unwrap();
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                if link.send(&answer, &fds).await.is_err() {
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

    /// The sockets it would serve a pod on.
    pub fn inodes(&self, uid: &str) -> Vec<u64> {
        let told = self.told.lock().unwrap();
        let held = told.holds.get(uid).into_iter().flatten();
        let inspect = |given: &GivenListener| match given.at.carries() {
            Carries::Connections => netns::inspect_listener(&given.fd),
            Carries::Datagrams => netns::inspect_datagrams(&given.fd),
        };
        held.map(|given| inspect(given).unwrap().inode).collect()
    }
}

impl Drop for FakeZtunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes down what came; what to answer.
fn note(told: &mut Told, request: Request, refuse: Option<&str>) -> Answer {
    let mut answer = Answer::default();
    let line = match request {
        Request::Add { workload, .. } if told.refuses || Some(workload.uid.as_str()) == refuse => {
            answer.ack.error = "address in use".to_owned();
            format!("add {}", workload.uid)
        }
        Request::Add { workload, netns, listeners, give_back, lookups } => {
            let uid = workload.uid;
            told.serves.insert(uid.clone(), PodNetns::from_fd(netns).unwrap());
            let held = told.holds.entry(uid.clone()).or_default();
            held.retain(|held| {
                let again = listeners.iter().any(|given| given.at == held.at);
                !again && (lookups != Lookups::Direct || !held.at.is_for_lookups())
            });
            held.extend(listeners);
            told.lookups.insert(uid.clone(), lookups);
            give(told, &uid, give_back, &mut answer);
            format!("add {uid}")
        }
        Request::Keep(uid, give_back) => {
            give(told, &uid, give_back, &mut answer);
            format!("keep {uid}")
        }
        Request::Del(uid) => {
            told.serves.remove(&uid);
            told.holds.remove(&uid);
            format!("del {uid}")
        }
        Request::SnapshotSent => "snapshot".to_owned(),
    };
    told.lines.push(line);
    answer
}

fn give(told: &Told, uid: &str, give_back: GiveBack, answer: &mut Answer) {
    if give_back == GiveBack::NotAsked {
        return;
    }
    let netns = told.serves.get(uid).map(|netns| netns.as_fd().try_clone_to_owned().unwrap());
    answer.ack.has_netns = netns.is_some();
    answer.fds.extend(netns);
    let held = told.holds.get(uid).into_iter().flatten();
    for given in held.filter(|given| give_back.takes(given.at)) {
        answer.ack.listeners.push(given.at.entry());
        answer.fds.push(given.fd.try_clone().unwrap());
    }
}
