//! The threads that carry traffic.
//!
//! A worker is one thread with one current-thread runtime. A connection is placed on a
//! worker once; its sockets, its tunnel, the tunnel's driver and the copying between them
//! all live there, so that no byte of it wakes another thread. The rest of ztunnel (view,
//! certificates, agent, administration) runs on the main runtime.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many more tasks than the least busy worker one must have before its connections
/// are placed elsewhere: moving a socket costs system calls, and pods that talk to the
/// same peers from two workers need two tunnels.
const CLEARLY_BUSIER: usize = 64;

/// All workers. Cloning shares them; they end with the last clone, or by
/// [`Workers::shutdown`].
#[derive(Clone, Debug)]
pub struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    all: Box<[Worker]>,
    next: AtomicUsize,
    stop: CancellationToken,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One thread that carries traffic. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
    handle: Handle,
    tasks: TaskTracker,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// Out of threads or descriptors.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        // Dropped on the way out of an error, it ends those that have started.
        let unfinished = stop.clone().drop_guard();
        let mut all = Vec::with_capacity(count.get());
        let mut threads = Vec::with_capacity(count.get());
        for index in 0..count.get() {
            let (handle, thread) = start_thread(index, stop.clone())?;
            all.push(Worker { index, handle, tasks: TaskTracker::new() });
            threads.push(thread);
        }
        unfinished.disarm();
        let (all, threads) = (all.into_boxed_slice(), Mutex::new(threads));
        Ok(Self { shared: Arc::new(Shared { all, next: AtomicUsize::new(0), stop, threads }) })
    }

    /// In the order of [`Worker::index`]; never empty.
    #[must_use]
    pub fn all(&self) -> &[Worker] {
        &self.shared.all
    }

    /// The worker with the fewest tasks. Equals take turns.
    #[must_use]
    pub fn least_busy(&self) -> &Worker {
        let all = self.all();
        let turn = self.shared.next.fetch_add(1, Ordering::Relaxed) % all.len();
        let (before, after) = all.split_at(turn);
        after
            .iter()
            .chain(before)
            .min_by_key(|worker| worker.busy())
            .expect("there is at least one worker")
    }

    /// Where a connection that `accepting` has accepted shall live: there, unless another
    /// worker has clearly less to do.
    #[must_use]
    pub fn place<'a>(&'a self, accepting: &'a Worker) -> &'a Worker {
        let best = self.all().iter().min_by_key(|worker| worker.busy()).unwrap_or(accepting);
        if accepting.busy() > best.busy() + CLEARLY_BUSIER { best } else { accepting }
    }

    /// Ends the threads and all their tasks, and waits for the threads. Blocks; for the
    /// main thread after its runtime has ended. Threads that have not ended within
    /// `patience` are left to the end of the process.
    pub fn shutdown(&self, patience: Duration) {
        self.shared.stop.cancel();
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = std::mem::take(&mut *threads);
        let (done, all_done) = mpsc::channel();
        // A thread cannot be joined with a deadline, but a message can be waited for.
        let joiner = thread::Builder::new().name("joiner".to_owned()).spawn(move || {
            for thread in threads {
                // A worker does not panic: its runtime catches the panics of tasks.
                let _ = thread.join();
            }
            // Nobody waits any more after the deadline.
            let _ = done.send(());
        });
        if joiner.is_err() || all_done.recv_timeout(patience).is_err() {
            tracing::warn!("workers have not ended within {patience:?}");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Not joined here: the last clone may be dropped by a worker's own task.
        self.stop.cancel();
    }
}

impl Worker {
    /// Its place in [`Workers::all`].
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `task` on this worker, as one of the tasks of `tracker`. A panic ends only the
    /// task. Dropped with the worker if it has not ended by then.
    pub fn spawn<Task>(&self, tracker: &TaskTracker, task: Task)
    where
        Task: Future<Output: Send> + Send + 'static,
    {
        drop(tracker.spawn_on(self.tasks.track_future(task), &self.handle));
    }

    /// How many tasks it has.
    fn busy(&self) -> usize {
        self.tasks.len()
    }
}

fn start_thread(index: usize, stop: CancellationToken) -> io::Result<(Handle, JoinHandle<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(stop.cancelled()))?;
    Ok((handle, thread))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn workers(count: usize) -> Workers {
        Workers::start(NonZeroUsize::new(count).unwrap()).unwrap()
    }

    async fn thread_of(worker: &Worker) -> thread::ThreadId {
        let (sender, receiver) = oneshot::channel();
        worker.spawn(&TaskTracker::new(), async move {
            tokio::task::yield_now().await;
            sender.send(thread::current().id()).unwrap();
        });
        timeout(PATIENCE, receiver).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn each_worker_is_a_thread_of_its_own_and_stays_it() {
        let workers = workers(3);
        let mut seen = HashSet::new();
        for worker in workers.all() {
            let first = thread_of(worker).await;
            assert_eq!(thread_of(worker).await, first);
            seen.insert(first);
        }
        assert_eq!(seen.len(), 3);
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let workers = workers(1);
        let (worker, tracker) = (&workers.all()[0], TaskTracker::new());
        let (sender, receiver) = oneshot::channel::<()>();
        worker.spawn(&tracker, async move {
            receiver.await.unwrap();
        });
        worker.spawn(&tracker, async { panic!("a connection's mistake") });
        thread_of(worker).await;
        assert_eq!(tracker.len(), 1);
        sender.send(()).unwrap();
        tracker.close();
        timeout(PATIENCE, tracker.wait()).await.unwrap();
        assert_eq!(worker.busy(), 0);
    }

    #[tokio::test]
    async fn connections_stay_unless_another_worker_is_clearly_less_busy() {
        let workers = workers(2);
        let [first, second] = workers.all() else { panic!("two") };
        let tracker = TaskTracker::new();
        for _ in 0..CLEARLY_BUSIER {
            first.spawn(&tracker, std::future::pending::<()>());
        }
        assert_eq!(workers.place(first).index(), first.index());
        assert_eq!(workers.least_busy().index(), second.index());
        first.spawn(&tracker, std::future::pending::<()>());
        assert_eq!(workers.place(first).index(), second.index());
        assert_eq!(workers.place(second).index(), second.index());
    }

    #[test]
    fn an_idle_crew_takes_turns() {
        let workers = workers(2);
        assert_ne!(workers.least_busy().index(), workers.least_busy().index());
    }

    #[test]
    fn a_shutdown_drops_what_still_runs() {
        let workers = workers(2);
        let tracker = TaskTracker::new();
        for worker in workers.all() {
            worker.spawn(&tracker, std::future::pending::<()>());
        }
        workers.shutdown(PATIENCE);
        assert!(tracker.is_empty());
    }
}
