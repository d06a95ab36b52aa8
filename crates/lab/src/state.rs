//! What a lab writes down about itself, so that a later one can clean up after it even
//! when it was killed: who it was, and which processes it had started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Name of the file in a lab's folder.
const FILE: &str = "state.json";

/// A process that cannot be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

impl ProcessId {
    /// `None` when there is no such process any more.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started })
    }

    /// Still running; a zombie is not.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }
}

struct Stat {
    ended: bool,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name and may hold anything; it ends at the last
    // parenthesis. State is field 3, start time is field 22.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some(Stat { ended, started: fields.nth(18)?.parse().ok()? })
}

/// A child of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChildRecord {
    pub name: String,
    #[serde(flatten)]
    pub process: ProcessId,
}

/// The content of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The lab's own process.
    pub lab: ProcessId,
    /// Links outside of namespaces that go away by themselves: by decision none, but a
    /// sweep looks for these names in the host's namespace.
    pub links: Vec<String>,
    pub children: Vec<ChildRecord>,
}

impl State {
    pub fn read(folder: &Path) -> io::Result<Self> {
        serde_json::from_str(&fs::read_to_string(folder.join(FILE))?).map_err(io::Error::other)
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let fresh = folder.join("state.json.new");
        fs::write(&fresh, serde_json::to_string_pretty(self).map_err(io::Error::other)?)?;
        fs::rename(fresh, folder.join(FILE))
    }
}

/// The state of a living lab, on disk whenever it changes.
#[derive(Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
    state: Mutex<State>,
}

impl Ledger {
    pub fn new(folder: &Path, state: State) -> Self {
        Self { folder: folder.to_owned(), state: Mutex::new(state) }
    }

    /// To be called right after the start of a child.
    pub fn started(&self, name: &str, pid: u32) -> io::Result<()> {
        let Some(process) = i32::try_from(pid).ok().and_then(ProcessId::of) else {
            return Ok(());
        };
        let record = ChildRecord { name: name.to_owned(), process };
        self.change(|state| state.children.push(record))
    }

    /// To be called when a child was seen to have ended.
    pub fn ended(&self, pid: u32) -> io::Result<()> {
        self.change(|state| {
            state.children.retain(|child| u32::try_from(child.process.pid) != Ok(pid));
        })
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.write(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let me = ProcessId::of(own).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { started: me.started + 1, ..me }.is_alive());
        assert_eq!(ProcessId::of(i32::MAX), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(State::read(folder.path()).is_err());
        let lab = ProcessId { pid: 7, started: 8 };
        let ledger = Ledger::new(folder.path(), State { lab, links: vec![], children: vec![] });
        ledger.started("me", std::process::id()).unwrap();
        let read = State::read(folder.path()).unwrap();
        assert_eq!((read.lab, read.children.len()), (lab, 1));
        assert_eq!(read.children[0].process.pid.cast_unsigned(), std::process::id());
        ledger.ended(std::process::id()).unwrap();
        assert_eq!(State::read(folder.path()).unwrap().children, []);
    }
}
