//! Who turns connections away when no ztunnel comes: an application that is reset knows
//! where it stands, one that waits for ever does not. Name lookups are answered with a
//! failure for the same reason: dropped, each would cost its application the whole patience
//! of its resolver, once for each server and attempt.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Duplicate, HeldListener, turned_away};
use crate::facts::PodUid;

/// Between two attempts to begin, accept or read when that fails: most often for want of
/// descriptors, and the connection stays in the queue.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The room's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    turned_away: Counter,
    lookups_failed: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "connections of captured pods that were reset because no ztunnel came in time";
        registry.register("sluice_agent_connections_turned_away", help, self.turned_away.clone());
        let help = "name lookups of captured pods that were failed because no ztunnel came in time";
        registry.register("sluice_agent_lookups_failed", help, self.lookups_failed.clone());
    }
}

/// Watches over the listeners of pods that no connected ztunnel serves.
#[derive(Debug)]
pub struct Doorman {
    hold: Duration,
    metrics: Metrics,
}

/// One pod without a ztunnel: its listeners, as inodes, and the task that waits for the
/// hold time and then resets.
struct Door {
    inodes: Vec<u64>,
    task: AbortHandle,
}

impl Doorman {
    /// Lets connections wait for `hold`.
    #[must_use]
    pub fn new(hold: Duration, metrics: Metrics) -> Self {
        Self { hold, metrics }
    }

    /// Until `stop`; asks for the listeners that nobody serves after each of `changes`.
    pub async fn run(
        self,
        mut changes: watch::Receiver<u64>,
        unserved: impl Fn() -> BTreeMap<PodUid, Vec<HeldListener>>,
        stop: CancellationToken,
    ) {
        let mut doors: HashMap<PodUid, Door> = HashMap::new();
        // Ends every door with itself.
        let mut tasks = JoinSet::new();
        loop {
            changes.borrow_and_update();
            self.attend(&mut doors, &mut tasks, &unserved());
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// One door per pod that nobody serves.
    fn attend(
        &self,
        doors: &mut HashMap<PodUid, Door>,
        tasks: &mut JoinSet<()>,
        unserved: &BTreeMap<PodUid, Vec<HeldListener>>,
    ) {
        doors.retain(|uid, door| {
            let stays = unserved.get(uid).is_some_and(|now| inodes(now) == door.inodes);
            if !stays {
                door.task.abort();
            }
            stays
        });
        for (uid, listeners) in unserved {
            if !doors.contains_key(uid) {
                let metrics = self.metrics.clone();
                let task = tasks.spawn(door(uid.clone(), listeners.clone(), self.hold, metrics));
                doors.insert(uid.clone(), Door { inodes: inodes(listeners), task });
            }
        }
    }
}

fn inodes(listeners: &[HeldListener]) -> Vec<u64> {
    listeners.iter().map(HeldListener::inode).collect()
}

async fn door(uid: PodUid, listeners: Vec<HeldListener>, hold: Duration, metrics: Metrics) {
    tokio::time::sleep(hold).await;
    tracing::warn!(
        %uid,
        ?hold,
        "no ztunnel serves the pod: its connections are reset, its name lookups fail"
    );
    let mut ports = JoinSet::new();
    for held in listeners {
        ports.spawn(turn_away(uid.clone(), held, metrics.clone()));
    }
    while ports.join_next().await.is_some() {}
}

/// At one listener, until the door is closed.
async fn turn_away(uid: PodUid, held: HeldListener, metrics: Metrics) {
    let subject = format!("{} of pod {uid}", held.at());
    match insist(&subject, || begin(&held)).await {
        Post::Connections(listener) => reset_all(listener, metrics).await,
        Post::Datagrams(socket) => fail_all(socket, metrics).await,
    }
}

/// A duplicate of a listener, ready to be waited at.
enum Post {
    Connections(TcpListener),
    Datagrams(UdpSocket),
}

fn begin(held: &HeldListener) -> io::Result<Post> {
    Ok(match held.duplicate()? {
        Duplicate::Connections(listener) => Post::Connections(TcpListener::from_std(listener)?),
        Duplicate::Datagrams(socket) => Post::Datagrams(UdpSocket::from_std(socket)?),
    })
}

/// Tries until it succeeds, and says once that it does not: descriptors that are missing now
/// may be free soon, and until then applications wait.
async fn insist<T>(subject: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let mut told = false;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(error) if !told => {
                told = true;
                tracing::error!(subject, %error, "cannot turn away at a listener, trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn reset_all(listener: TcpListener, metrics: Metrics) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                metrics.turned_away.inc();
                reset(&stream);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to reset it");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn fail_all(socket: UdpSocket, metrics: Metrics) {
    let mut query = [0; turned_away::LONGEST];
    loop {
        match socket.recv_from(&mut query).await {
            Ok((length, client)) => {
                if let Some(answer) = turned_away::answer(&query[..length]) {
                    metrics.lookups_failed.inc();
                    // Who does not hear it asks again.
                    let _ = socket.try_send_to(&answer, client);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read a name lookup to fail it");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Has the close of a connection be a reset: in order, it would look like an answer that
/// ended.
fn reset(stream: &TcpStream) {
    // Fails only for a connection that is gone.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::testing::PATIENCE;

    #[tokio::test]
    async fn want_of_descriptors_delays_and_does_not_prevent() {
        let (mut left, mut attempts) = (2, 0);
        let attempt = || {
            attempts += 1;
            if left == 0 {
                return Ok("turned away");
            }
            left -= 1;
            Err(Errno::EMFILE.into())
        };
        let insisted = tokio::time::timeout(PATIENCE, insist("15001", attempt)).await;
        assert_eq!(insisted.expect("in time"), "turned away");
        assert_eq!(attempts, 3);
    }
}
