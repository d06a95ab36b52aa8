//! The first process of a machine: puts the root together, then starts the machine's programs
//! and starts them again when they end, until it is killed. With it ends everything that runs
//! on the machine, since it is the first of a process namespace.
//!
//! It runs in namespaces of its own for processes, mounts, network, control groups and host
//! name, which [`boot`] makes by executing `unshare`. Its root is the host's, with what the
//! machine changes kept in memory beside it: `/etc/cni`, `/opt/cni`, `/var/lib` and so on are
//! the machine's own, and the host's stay as they are.
#![expect(clippy::disallowed_methods, reason = "this room starts the machines' programs")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pivot_root};

use super::cgroups;
use super::machine::{Kind, Machine, Service};

/// Pause before a program that ended is started again.
const PAUSE: Duration = Duration::from_millis(500);

/// Folders of a machine that lie on its file system directly: no overlay can be made over an
/// overlay, and containers are overlays.
const PLAIN: [&str; 2] = ["var/lib/containerd", "var/lib/kubelet"];

/// Settings that would be the whole host's: a machine may read them only.
const SHARED_SETTINGS: [&str; 3] = ["proc/sys/kernel", "proc/sys/vm", "proc/sys/fs"];

/// Becomes the `unshare` that starts [`init`] for the machine of `folder`, in the machine's
/// control groups. `program` and `words` lead back to [`init`].
///
/// # Errors
/// Only returns when it failed.
pub fn boot(folder: &Path, program: &Path, words: &[&str]) -> io::Result<()> {
    let machine = Machine::load(folder)?;
    cgroups::join(&machine.name, folder)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--cgroup", "--uts", "--ipc"]);
    command.args(["--propagation", "private", "--"]).arg(program).args(words).arg(folder);
    Err(command.exec())
}

/// Runs the machine of `folder`. Returns only when it could not begin.
///
/// # Errors
/// A step of putting the root together, named.
pub fn init(folder: &Path) -> io::Result<()> {
    let machine = Machine::load(folder)?;
    nix::unistd::sethostname(&machine.name)?;
    let logs = open_logs(&machine)?;
    // The folder is out of sight once the root has changed, but not for who holds it.
    let kept = File::open(&machine.folder)?;
    put_root_together(&machine)?;
    let booted = format!("/proc/self/fd/{}/{}", kept.as_raw_fd(), Machine::BOOTED);
    fs::write(booted, std::process::id().to_string())?;
    drop(kept);
    Supervisor { machine, logs, running: BTreeMap::new(), succeeded: Vec::new() }.run()
}

fn open_logs(machine: &Machine) -> io::Result<BTreeMap<String, File>> {
    let open = |service: &Service| {
        let log = File::options().create(true).append(true).open(machine.log(&service.name))?;
        Ok((service.name.clone(), log))
    };
    machine.services.iter().map(open).collect()
}

fn put_root_together(machine: &Machine) -> io::Result<()> {
    let root = &machine.root();
    let overlay = format!(
        "lowerdir=/,upperdir={},workdir={}",
        machine.disk().display(),
        machine.work().display(),
    );
    fasten("overlay", root, "overlay", &overlay)?;
    fasten("proc", &root.join("proc"), "proc", "")?;
    fasten("sysfs", &root.join("sys"), "sysfs", "")?;
    fasten("tmpfs", &root.join("run"), "tmpfs", "mode=755")?;
    fasten("tmpfs", &root.join("tmp"), "tmpfs", "mode=1777")?;
    bind(Path::new("/dev"), &root.join("dev"), MsFlags::MS_REC)?;
    for folder in PLAIN {
        let (own, at) = (machine.plain().join(folder), root.join(folder));
        fs::create_dir_all(&own)?;
        fs::create_dir_all(&at)?;
        bind(&own, &at, MsFlags::empty())?;
    }
    fence_settings(machine, root)?;
    fasten("bpf", &root.join("sys/fs/bpf"), "bpf", "")?;
    cgroups::mount_all(&root.join("sys/fs/cgroup"))?;
    change_root(root)
}

/// Settings that are the whole host's can be read only, or are pretended.
fn fence_settings(machine: &Machine, root: &Path) -> io::Result<()> {
    for settings in SHARED_SETTINGS {
        let settings = root.join(settings);
        bind(&settings, &settings, MsFlags::empty())?;
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let mounted = mount::<str, Path, str, str>(None, &settings, None, again, None);
        step("make read-only", &settings, mounted)?;
    }
    for (setting, value) in &machine.pretended {
        let file = root.join("run").join(setting.replace('/', "."));
        fs::write(&file, value)?;
        bind(&file, &root.join("proc/sys").join(setting), MsFlags::empty())?;
    }
    Ok(())
}

fn change_root(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    fs::create_dir_all("run/host")?;
    step("change to", root, pivot_root(".", "run/host"))?;
    std::env::set_current_dir("/")?;
    let host = Path::new("/run/host");
    step("leave", host, umount2(host, MntFlags::MNT_DETACH))?;
    fs::remove_dir(host)?;
    // Pods that ask for it are to see mounts that are made later, as on any node.
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    step("share", Path::new("/"), mount::<str, str, str, str>(None, "/", None, shared, None))
}

/// Mounts a file system of its own at `at`.
pub(super) fn fasten(source: &str, at: &Path, kind: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    let mounted = mount(Some(source), at, Some(kind), MsFlags::empty(), Some(options));
    step(&format!("mount {kind} at"), at, mounted)
}

fn bind(source: &Path, at: &Path, more: MsFlags) -> io::Result<()> {
    let none: Option<&str> = None;
    step("bind", at, mount(Some(source), at, none, MsFlags::MS_BIND | more, none))
}

fn step(what: &str, path: &Path, result: nix::Result<()>) -> io::Result<()> {
    result.map_err(|errno| io::Error::other(format!("{what} {}: {errno}", path.display())))
}

/// Keeps the machine's programs running.
struct Supervisor {
    machine: Machine,
    logs: BTreeMap<String, File>,
    running: BTreeMap<i32, usize>,
    succeeded: Vec<String>,
}

impl Supervisor {
    fn run(mut self) -> io::Result<()> {
        self.start_due();
        loop {
            match waitpid(None::<Pid>, None) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, code == 0),
                Ok(WaitStatus::Signaled(pid, ..)) => self.ended(pid, false),
                Ok(_) => {}
                // Nothing could be started at all.
                Err(_) => std::thread::sleep(PAUSE),
            }
            self.start_due();
        }
    }

    fn ended(&mut self, pid: Pid, success: bool) {
        // Others are processes whose parents ended before them.
        let Some(index) = self.running.remove(&pid.as_raw()) else { return };
        let service = &self.machine.services[index];
        if success && service.kind == Kind::Task {
            self.succeeded.push(service.name.clone());
        } else {
            std::thread::sleep(PAUSE);
        }
    }

    /// Starts everything that should run and does not.
    fn start_due(&mut self) {
        for index in 0..self.machine.services.len() {
            let service = &self.machine.services[index];
            let runs = self.running.values().any(|running| *running == index);
            let done = self.succeeded.contains(&service.name);
            let waits = service.after.as_ref().is_some_and(|task| !self.succeeded.contains(task));
            if runs || done || waits {
                continue;
            }
            match self.start(service) {
                Ok(pid) => drop(self.running.insert(pid, index)),
                Err(error) => eprintln!("{}: start {}: {error}", self.machine.name, service.name),
            }
        }
    }

    fn start(&self, service: &Service) -> io::Result<i32> {
        let mut words = service.argv.iter();
        let program = words.next().map(PathBuf::from).unwrap_or_default();
        let mut command = Command::new(program);
        command.args(words).env_clear().stdin(Stdio::null());
        command.env("PATH", crate::process::search_path()).env("HOME", "/root");
        command.envs(&service.env);
        if let Some(log) = self.logs.get(&service.name) {
            command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        }
        // A group of its own: what it starts is told from what others start.
        command.process_group(0);
        Ok(command.spawn()?.id().cast_signed())
    }
}
