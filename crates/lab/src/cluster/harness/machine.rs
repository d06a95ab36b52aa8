//! What a machine of a cluster is: names, and the programs that run on it. Plain data, written
//! to a file by the harness and read by the machine's first process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file in a machine's folder that says what it is.
const FILE: &str = "machine.json";

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Its name, which is its host name too.
    pub name: String,
    /// Its folder, on a file system of its own: disk, root and logs.
    pub folder: PathBuf,
    /// Settings of the host's kernel that the machine is to see with values of its own, by the
    /// path below `/proc/sys`. Nothing but what is seen changes.
    pub pretended: BTreeMap<String, String>,
    /// What runs on it, in the order of their start.
    pub services: Vec<Service>,
}

/// A program that is started when the machine boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its name, that of its log too.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its environment but for `PATH`.
    pub env: BTreeMap<String, String>,
    /// What happens when it ends.
    pub kind: Kind,
    /// The task that must have succeeded before.
    pub after: Option<String>,
}

/// What happens when a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// It is started again.
    Daemon,
    /// It is started again until it succeeds.
    Task,
}

impl Machine {
    /// The file in a machine's folder that says that it has booted.
    pub(crate) const BOOTED: &str = "booted";

    pub(crate) fn new(name: &str, folder: PathBuf) -> Self {
        Self { name: name.to_owned(), folder, pretended: BTreeMap::new(), services: Vec::new() }
    }

    /// What differs from the root of the host; it survives a reboot.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// What is not laid over the root of the host; it survives a reboot too.
    pub(crate) fn plain(&self) -> PathBuf {
        self.folder.join("plain")
    }

    /// Where the overlay keeps its own things.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Where the root is put together.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Where the programs write what they say.
    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What a program has said so far.
    pub(crate) fn log(&self, service: &str) -> PathBuf {
        self.logs().join(format!("{service}.log"))
    }

    /// Written by the first process when the root stands.
    pub(crate) fn booted(&self) -> PathBuf {
        self.folder.join(Self::BOOTED)
    }

    /// Puts a file on the machine's disk. The machine must not run.
    pub(crate) fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let file = self.disk().join(path.trim_start_matches('/'));
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, content)
    }

    /// Puts a program on the machine's disk. The machine must not run.
    pub(crate) fn install(&self, program: &Path, path: &str) -> io::Result<()> {
        let file = self.disk().join(path.trim_start_matches('/'));
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(program, file).map(drop)
    }

    /// Writes down what it is.
    pub(crate) fn save(&self) -> io::Result<()> {
        for folder in [self.disk(), self.work(), self.root(), self.logs()] {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        fs::write(self.folder.join(FILE), text)
    }

    /// Reads what [`Machine::save`] wrote.
    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE))?).map_err(io::Error::other)
    }
}

impl Service {
    /// A program that is to run all the time.
    pub(crate) fn daemon(name: &str, program: &Path) -> Self {
        Self {
            name: name.to_owned(),
            argv: vec![program.display().to_string()],
            env: BTreeMap::new(),
            kind: Kind::Daemon,
            after: None,
        }
    }

    /// A program that is to succeed once in each boot.
    pub(crate) fn task(name: &str, program: &Path) -> Self {
        Self { kind: Kind::Task, ..Self::daemon(name, program) }
    }

    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    pub(crate) fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn after(mut self, task: &str) -> Self {
        self.after = Some(task.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new("node1", folder.path().to_owned());
        let task = Service::task("prepare", Path::new("/bin/true")).env("A", "1");
        let daemon = Service::daemon("run", Path::new("/bin/run")).arg("-v").after("prepare");
        machine.services = vec![task, daemon];
        machine.save().unwrap();
        assert_eq!(Machine::load(folder.path()).unwrap(), machine);
    }

    #[test]
    fn a_file_lands_on_the_disk_below_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::new("node1", folder.path().to_owned());
        machine.write("/etc/cni/net.d/10.conf", b"{}").unwrap();
        let found = fs::read(folder.path().join("disk/etc/cni/net.d/10.conf")).unwrap();
        assert_eq!(found, b"{}");
    }
}
