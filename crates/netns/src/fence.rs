//! The workers that enter namespaces.
#![expect(clippy::disallowed_methods, reason = "this room is the fence")]

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::pod::PodNetns;

/// Why a job did not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The kernel did not let the worker in: the descriptor is no network namespace, or
    /// `CAP_SYS_ADMIN` is missing.
    #[error("enter network namespace: {0}")]
    Enter(#[source] io::Error),
    /// A namespace could not be made: `CAP_SYS_ADMIN` is missing.
    #[error("make network namespace: {0}")]
    Make(#[source] io::Error),
    /// The job panicked; its worker was replaced.
    #[error("job in network namespace panicked: {0}")]
    Panicked(String),
    /// No worker could be started.
    #[error("start a fence worker: {0}")]
    Spawn(#[source] io::Error),
    /// So many jobs wait that one more would only wait longer than anybody has patience.
    #[error("{QUEUE} jobs wait for a fence worker already, try again later")]
    Busy,
    /// There are no workers: the fence was dropped, or never had any.
    #[error("the fence is closed")]
    Closed,
}

/// How many jobs may wait. A job takes well under a millisecond, a load of rules some ten.
const QUEUE: usize = 4096;

type Task = Box<dyn FnOnce(&OwnedFd) -> WorkerState + Send>;

/// Whether a worker is known to be back in its home namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    Home,
    Lost,
}

/// A fixed number of worker threads that do jobs in namespaces, each job alone in its
/// thread. Cloning shares the workers; they end with the last clone.
#[derive(Clone)]
pub struct Fence {
    queue: Sender<Task>,
    /// Tasks in the queue. The library's bounded one takes memory for all places at once.
    waiting: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fence")
    }
}

impl Fence {
    /// Starts `workers` threads whose home is the caller's namespace.
    ///
    /// # Errors
    /// [`FenceError::Spawn`] when out of threads or descriptors.
    pub fn new(workers: usize) -> Result<Self, FenceError> {
        let home = Arc::new(own_netns().map_err(FenceError::Spawn)?);
        let (queue, tasks) = channel();
        let tasks = Arc::new(Mutex::new(tasks));
        for _ in 0..workers.max(1) {
            spawn_worker(Arc::clone(&home), Arc::clone(&tasks)).map_err(FenceError::Spawn)?;
        }
        Ok(Self { queue, waiting: Arc::default() })
    }

    /// A fence that enters nothing and answers [`FenceError::Closed`] to every job. For a
    /// process that stays in its own namespace, and may lack the privilege to leave it.
    #[must_use]
    pub fn closed() -> Self {
        Self { queue: channel().0, waiting: Arc::default() }
    }

    /// Runs `job` in `netns` and waits for it. For threads that may block.
    ///
    /// # Errors
    /// Any [`FenceError`].
    pub fn run<T, F>(&self, netns: &PodNetns, job: F) -> Result<T, FenceError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        self.submit(netns, job, move |result| {
            // The receiver waits below and cannot be gone.
            let _ = sender.send(result);
        })?;
        receiver.recv().map_err(|_| FenceError::Closed)?
    }

    /// Runs `job` in `netns` and hands the result to `done`, on the worker, at home again.
    /// `done` must not block; sending on a oneshot channel is what it is for.
    ///
    /// # Errors
    /// [`FenceError::Busy`] and [`FenceError::Closed`]; everything else goes to `done`.
    pub fn submit<T, F, D>(&self, netns: &PodNetns, job: F, done: D) -> Result<(), FenceError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
        D: FnOnce(Result<T, FenceError>) + Send + 'static,
    {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(FenceError::Busy);
        }
        let (netns, waiting) = (netns.clone(), Arc::clone(&self.waiting));
        let task: Task = Box::new(move |home| {
            waiting.fetch_sub(1, Ordering::Relaxed);
            let (result, state) = run_between(&netns, home, job);
            drop(netns);
            done(result);
            state
        });
        self.queue.send(task).map_err(|_| FenceError::Closed)
    }
}

/// Runs `job` on a thread of its own that is thrown away afterwards.
pub(crate) fn run_once<T, F>(netns: &PodNetns, job: F) -> Result<T, FenceError>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    on_own_thread(|| {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| FenceError::Enter(e.into()))?;
        Ok(job())
    })
}

/// Makes a namespace and returns its only descriptor.
pub(crate) fn unshared() -> Result<OwnedFd, FenceError> {
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| FenceError::Make(e.into()))?;
        own_netns().map_err(FenceError::Make)
    })
}

fn on_own_thread<T, F>(job: F) -> Result<T, FenceError>
where
    T: Send,
    F: FnOnce() -> Result<T, FenceError> + Send,
{
    thread::scope(|scope| {
        thread::Builder::new()
            .name("fence-once".into())
            .spawn_scoped(scope, job)
            .map_err(FenceError::Spawn)?
            .join()
            .unwrap_or_else(|panic| Err(FenceError::Panicked(panic_text(panic.as_ref()))))
    })
}

/// The namespace of the calling thread.
pub(crate) fn own_netns() -> io::Result<OwnedFd> {
    std::fs::File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

fn spawn_worker(home: Arc<OwnedFd>, tasks: Arc<Mutex<Receiver<Task>>>) -> io::Result<()> {
    thread::Builder::new().name("fence".into()).spawn(move || work(home, tasks)).map(drop)
}

fn work(home: Arc<OwnedFd>, tasks: Arc<Mutex<Receiver<Task>>>) {
    // A replacement inherits the namespace of the thread that starts it, which may be
    // the one its predecessor got lost in.
    if setns(home.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
        return;
    }
    loop {
        let next = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = next else { return };
        // The job's own panics are caught further in; this one is of the callback.
        let state = catch_unwind(AssertUnwindSafe(|| task(&home))).unwrap_or(WorkerState::Lost);
        if state == WorkerState::Lost {
            // Without a replacement the pool shrinks; with none left, callers get `Closed`.
            let _ = spawn_worker(home, tasks);
            return;
        }
    }
}

fn run_between<T>(
    netns: &PodNetns,
    home: &OwnedFd,
    job: impl FnOnce() -> T,
) -> (Result<T, FenceError>, WorkerState) {
    if let Err(errno) = setns(netns.as_fd(), CloneFlags::CLONE_NEWNET) {
        return (Err(FenceError::Enter(errno.into())), WorkerState::Home);
    }
    let result = catch_unwind(AssertUnwindSafe(job))
        .map_err(|panic| FenceError::Panicked(panic_text(panic.as_ref())));
    let back = setns(home.as_fd(), CloneFlags::CLONE_NEWNET);
    let state = if result.is_ok() && back.is_ok() { WorkerState::Home } else { WorkerState::Lost };
    (result, state)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}
