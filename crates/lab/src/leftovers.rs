//! Removing a lab's traces, and looking whether any are left. Both work from the folder
//! and the state alone, so they serve an orderly teardown, a panicking test and a sweep
//! after a kill alike. Everything here is synchronous.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::state::{ProcessId, State};

/// How long a killed process may take to be gone.
const END_OF_KILLED: Duration = Duration::from_secs(5);

/// How often, and how far apart, the removal of the folder is tried.
const FOLDER_TRIES: usize = 50;
const FOLDER_PAUSE: Duration = Duration::from_millis(60);
/// More mounts on one path than any accident stacks up.
const MAX_STACKED: usize = 16;

/// One thing that a lab left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A process that is still running.
    Process {
        /// Its number.
        pid: i32,
        /// What it was started as.
        name: String,
    },
    /// A mount, of a namespace most likely.
    Mount(PathBuf),
    /// A link in the host's namespace.
    Link(String),
    /// The lab's folder, or what it was found to hold.
    File(PathBuf),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::Link(name) => write!(f, "link {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// What was observed to be left after a teardown; empty is what everybody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(Vec<Leftover>);

impl Leftovers {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    #[must_use]
    pub fn items(&self) -> &[Leftover] {
        &self.0
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(if items.is_empty() { "nothing" } else { "" })?;
        f.write_str(&items.join(", "))
    }
}

/// Removes what it can; what it could not is for [`observe`] to tell.
pub(crate) fn remove(folder: &Path, state: &State) {
    let children: Vec<_> = state.children.iter().map(|child| child.process).collect();
    children.iter().for_each(|process| kill_with_group(*process));
    wait_gone(&children);
    // A call that was under way on another thread when the lab fell may still make a file
    // between two looks; it ends by itself.
    for pause in [Some(FOLDER_PAUSE); FOLDER_TRIES].into_iter().chain([None]) {
        unmount(folder);
        let Err(error) = fs::remove_dir_all(folder) else { return };
        if !folder.exists() {
            return;
        }
        match pause {
            Some(pause) => std::thread::sleep(pause),
            None => {
                tracing::warn!(folder = %folder.display(), %error, "the lab's folder stays");
            }
        }
    }
}

/// The deepest first: the folder of namespaces is itself a mount point.
fn unmount(folder: &Path) {
    let mut mounts = mounts_below(folder);
    mounts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for mount in mounts {
        for _ in 0..MAX_STACKED {
            if umount2(&mount, MntFlags::MNT_DETACH).is_err() {
                break;
            }
        }
    }
}

/// Looks for traces of the lab of this folder and state.
pub(crate) fn observe(folder: &Path, state: &State) -> Leftovers {
    let mut found = Vec::new();
    for child in state.children.iter().filter(|child| child.process.is_alive()) {
        found.push(Leftover::Process { pid: child.process.pid, name: child.name.clone() });
    }
    found.extend(mounts_below(folder).into_iter().map(Leftover::Mount));
    found.extend(links_of_host(&state.links).into_iter().map(Leftover::Link));
    if folder.exists() {
        found.push(Leftover::File(folder.to_owned()));
        let held = fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(held.map(|entry| Leftover::File(entry.path())));
    }
    Leftovers(found)
}

fn kill_with_group(process: ProcessId) {
    // Each child leads a group of its own number, which may outlive the leader.
    if process.is_alive() {
        let pid = Pid::from_raw(process.pid);
        // Both may be gone by now, which is what is wanted.
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = kill(pid, Signal::SIGKILL);
    }
}

fn wait_gone(processes: &[ProcessId]) {
    let until = Instant::now() + END_OF_KILLED;
    while processes.iter().any(|process| process.is_alive()) && Instant::now() < until {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Paths of all mounts at or below `folder`, from the kernel's own list.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // proc(5): the fifth field is the mount point. Lab paths hold no characters that the
    // kernel would escape.
    let points = list.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    below.sort();
    below.dedup();
    below
}

fn links_of_host(names: &[String]) -> Vec<String> {
    let list = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let present = list.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    present.filter(|name| names.iter().any(|ours| ours == name)).map(str::to_owned).collect()
}
