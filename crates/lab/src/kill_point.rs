//! Ends a part in the middle of what it does: as it sends its N-th message.

use std::time::Duration;

use tokio::process::Child;

use crate::part::{Part, PartError};
use crate::patience::eventually;
use crate::process::{self, Job};

/// What counts as a message: to the kernel, to programs, to other processes, to the API; and
/// the start of a program, and a file that takes its name.
const MESSAGES: &str = "sendto,sendmsg,writev,clone3,rename,renameat2";

/// How long `strace` may take to let go.
const DEADLINE: Duration = Duration::from_secs(5);

/// A running part that is to be killed. Dropped, the part lives on.
#[derive(Debug)]
pub struct KillPoint {
    tracer: Child,
}

impl Part {
    /// From now on, has this part killed as a thread of it sends its `number`th message,
    /// before the message is out. Needs `strace`.
    ///
    /// # Errors
    /// [`PartError`], also when the part does not run.
    pub async fn kill_at(&self, number: usize) -> Result<KillPoint, PartError> {
        let threads = threads(self.running().await?);
        let log = self.log().with_extension("strace");
        // What an earlier one said must not be taken for this one's.
        let _ = std::fs::remove_file(&log);
        let inject = format!("inject={MESSAGES}:signal=SIGKILL:when={number}");
        let trace = format!("trace={MESSAGES}");
        let mut job = vec!["strace", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        // Each by its number: programs that the part starts are not to be killed.
        threads.iter().for_each(|thread| job.extend(["-p", thread]));
        let started = process::start_logged(self.place(), &Job::of(&job), &log).await;
        let tracer = started.map_err(|source| self.not_traced(source))?;
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let attached = eventually("strace at all threads", self.place().patience(), || async {
            (met(&said()) >= threads.len()).then_some(())
        });
        attached.await.map_err(|source| self.not_watched(source, said()))?;
        Ok(KillPoint { tracer })
    }
}

impl KillPoint {
    /// Waits until the part has been killed. Cancel-safe.
    pub async fn struck(&mut self) {
        // With the last thread that it watches, the tracer ends, whatever its status.
        let _ = self.tracer.wait().await;
    }

    /// Spares the part, unless it has been killed.
    pub async fn end(mut self) {
        // Its end is what is wanted, whatever the status.
        let _ = process::stop(&mut self.tracer, DEADLINE).await;
    }
}

/// How many threads strace has told of: those that it watches, and those that had ended before.
fn met(said: &str) -> usize {
    said.matches(" attached").count() + said.matches("No such process").count()
}

/// The numbers of a process' threads.
fn threads(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::met;

    #[test]
    fn a_thread_that_ended_in_the_meantime_is_not_waited_for() {
        let said = "strace: Process 10725 attached\n\
            strace: attach: ptrace(PTRACE_SEIZE, 10733): No such process\n";
        assert_eq!(met(said), 2);
    }
}
