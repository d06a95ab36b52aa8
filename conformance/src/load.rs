//! Applications that open one connection after the other, while something happens.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::world::{APP_PORT, Couple};

/// Connections at a time.
const AT_ONCE: usize = 4;
/// A load that nobody ends ends by itself.
const LONGEST: Duration = Duration::from_secs(60);
const MOST: usize = 20_000;

/// One connection: a line and its answer.
pub(crate) struct Attempt {
    /// When it was begun.
    pub began: Instant,
    /// Why it failed.
    pub failure: Option<String>,
}

/// What became of all connections.
#[derive(Default)]
pub(crate) struct Load {
    pub attempts: Vec<Attempt>,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures: Vec<_> = self.attempts.iter().filter_map(|a| a.failure.as_ref()).collect();
        write!(f, "{} connections, {} failed", self.attempts.len(), failures.len())?;
        failures.first().map_or(Ok(()), |first| write!(f, ", the first: {first}"))
    }
}

impl Load {
    /// Those that were begun at this time or later.
    pub(crate) fn since(self, when: Instant) -> Self {
        let attempts = self.attempts.into_iter().filter(|attempt| attempt.began >= when);
        Self { attempts: attempts.collect() }
    }

    /// There was one, and none failed.
    pub(crate) fn is_whole(&self) -> bool {
        !self.attempts.is_empty() && self.attempts.iter().all(|attempt| attempt.failure.is_none())
    }
}

/// Has the client talk to the server, in new connections all the time, while `work` goes on.
/// The line says `marker`, so that it can be looked for on the wire.
pub(crate) async fn during<T>(
    pods: &Couple,
    marker: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Load)> {
    let over = AtomicBool::new(false);
    let talk = join_all((0..AT_ONCE).map(|_| talk(pods, marker, &over)));
    let work = async {
        let done = work.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    let (done, attempts) = tokio::join!(work, talk);
    Ok((done?, Load { attempts: attempts.into_iter().flatten().collect() }))
}

async fn talk(pods: &Couple, marker: &str, over: &AtomicBool) -> Vec<Attempt> {
    let (mut attempts, end) = (Vec::new(), Instant::now() + LONGEST);
    while !over.load(Ordering::Relaxed) && Instant::now() < end && attempts.len() < MOST {
        let began = Instant::now();
        let reply = pods.client.exchange(pods.server.addr(APP_PORT), marker).await;
        attempts.push(Attempt { began, failure: reply.err().map(|error| error.to_string()) });
    }
    attempts
}
