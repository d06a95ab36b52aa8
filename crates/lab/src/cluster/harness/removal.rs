//! Removing a cluster, from its folder and record alone: after an orderly end, a failed start
//! and a crash alike. Ends only what the record names.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroups;
use super::record::{Record, Running};
use crate::state::ProcessId;

/// How long the kernel may take to end all of a machine's processes.
const ENDED_BY: Duration = Duration::from_secs(20);

/// Ends a cluster's processes and removes its control groups, mounts and folder. What is left
/// is told, one line each; nothing is what everybody wants.
pub(crate) fn remove(folder: &Path) -> Vec<String> {
    let mut left = Vec::new();
    if let Ok(record) = Record::read(folder) {
        for machine in &record.machines {
            end_machine(machine);
        }
        record.relay.iter().copied().for_each(end);
        for machine in &record.machines {
            let own = folder.join(&machine.name);
            cgroups::remove(&machine.name, &own);
            for group in cgroups::left(&machine.name, &own) {
                left.push(format!("control group {}", group.display()));
            }
            let alive = [Some(machine.launcher), machine.init];
            for process in alive.into_iter().flatten().filter(|process| process.is_alive()) {
                left.push(format!("process {} of {}", process.pid, machine.name));
            }
        }
    }
    // A file system of its own, if the cluster got that far.
    let _ = umount2(folder, MntFlags::MNT_DETACH);
    if let Err(error) = fs::remove_dir_all(folder)
        && folder.exists()
    {
        left.push(format!("folder {}: {error}", folder.display()));
    }
    left
}

/// Ends a machine and everything on it, as if its power were cut.
pub(crate) fn end_machine(machine: &Running) {
    machine.init.into_iter().for_each(end);
    end(machine.launcher);
}

fn end(process: ProcessId) {
    if !process.is_alive() {
        return;
    }
    // It may have ended by itself in the meantime.
    let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    let until = Instant::now() + ENDED_BY;
    while process.is_alive() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
}
