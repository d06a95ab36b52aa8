//! A lab whose process was killed is cleaned up by the next one. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "the lab to be killed is another process")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lab::{Lab, Options, PodSpec, Subject};

/// What the lab that is killed prints when it is up.
const UP: &str = "lab is up:";

/// Does something only as a child of the test below, which names the root as one more
/// filter: no test has a slash in its name.
#[tokio::test(flavor = "multi_thread")]
async fn helper_lab_that_waits_to_be_killed() {
    let Some(root) = std::env::args().skip(1).find(|word| word.starts_with('/')) else {
        return;
    };
    let root = PathBuf::from(root);
    let program = root.join("sleeper");
    let subject =
        Subject { node_agent: program.clone(), ztunnel: program, cni_plugin_dir: root.clone() };
    let plain = Options { root: root.clone(), ..Options::default() };
    let lab = Lab::start(Options { subject: Some(subject), ..plain }).await.unwrap();
    let part = lab.node(1).ztunnel().unwrap();
    part.start().await.unwrap();
    println!("{UP} {} {}", lab.id(), part.pid().await.unwrap());
    std::future::pending::<()>().await;
}

struct Killed {
    id: String,
    child_pid: u32,
}

fn start_and_kill(root: &Path) -> Killed {
    let mut lab = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "helper_lab_that_waits_to_be_killed"])
        .arg(root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let killed = hear(&mut lab);
    lab.kill().unwrap();
    lab.wait().unwrap();
    killed.expect("the helper came up")
}

fn hear(lab: &mut Child) -> Option<Killed> {
    for line in BufReader::new(lab.stdout.as_mut()?).lines() {
        let line = line.ok()?;
        if let Some((_, rest)) = line.split_once(UP) {
            let (id, pid) = rest.trim().split_once(' ')?;
            return Some(Killed { id: id.to_owned(), child_pid: pid.parse().ok()? });
        }
    }
    None
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lab_is_swept_and_a_living_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let program = root.join("sleeper");
    fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();

    let killed = start_and_kill(root);
    let folder = root.join(&killed.id);
    assert!(folder.join("netns/node1").exists());
    assert!(is_running(killed.child_pid), "a child outlives a lab that is killed");
    assert_eq!(lab::others(root), []);

    let swept = lab::sweep(root);
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0].id, killed.id);
    assert!(swept[0].leftovers.is_clean(), "{}", swept[0].leftovers);
    assert!(!folder.exists());
    assert!(!is_running(killed.child_pid));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()));

    let living = Lab::start(Options { root: root.into(), ..Options::default() }).await.unwrap();
    assert!(lab::sweep(root).is_empty());
    assert_eq!(lab::others(root)[0].id, living.id());
    living.create_pod(PodSpec::new("default", "client", 1)).await.unwrap();
    let leftovers = living.teardown().await;
    assert!(leftovers.is_clean(), "{leftovers}");
}
