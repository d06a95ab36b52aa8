//! The runtime's side: executes the plugin once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netns::PodNetns;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The plugin's binary.
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_sluice-cni");

/// A generous bound for what must end by itself.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A pod as a runtime knows it, about to be given to the plugin.
pub struct Pod {
    pub netns: PodNetns,
    pub folder: TempDir,
    variables: BTreeMap<&'static str, String>,
    config: Value,
}

/// What one execution left.
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub success: bool,
    pub took: Duration,
}

impl Pod {
    /// `default/web`, with an address and a namespace of its own.
    pub fn new() -> Self {
        let netns = PodNetns::scratch().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([
            ("CNI_CONTAINERID", "c0ffee".to_owned()),
            ("CNI_NETNS", path_of(&netns)),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
            (
                "CNI_ARGS",
                "K8S_POD_UID=0b1c-2d;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;\
                 K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_NAME=web"
                    .to_owned(),
            ),
        ]);
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "lab",
            "type": "sluice-cni",
            "agentSocket": folder.path().join("plugin.sock"),
            "excludeNamespaces": ["kube-system", "sluice-system"],
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}],
                "ips": [{"address": "10.0.0.7/24", "interface": 0}, {"address": "fd00::7/64"}],
            },
        });
        Self { netns, folder, variables, config }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("plugin.sock")
    }

    /// Sets a variable, or removes it with an empty value.
    pub fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.insert(variable, value.to_owned());
        self
    }

    /// Sets a key of the configuration, or removes it with `null`.
    pub fn with_key(mut self, key: &str, value: Value) -> Self {
        let config = self.config.as_object_mut().unwrap();
        if value.is_null() {
            config.remove(key);
        } else {
            config.insert(key.to_owned(), value);
        }
        self
    }

    pub fn call(&self, command: &str) -> Outcome {
        self.call_with(command, self.config.to_string().as_bytes())
    }

    /// The system calls that it makes from its start to its end, as `strace` writes them.
    pub fn trace(&self, command: &str) -> Vec<String> {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let path = trace.path().display().to_string();
        let status = self.traced(command, &["-f", "-o", &path]);
        assert!(status.success(), "{status}");
        let trace = std::fs::read_to_string(trace.path()).unwrap();
        // In front is which process it was.
        let call = |line: &str| Some(line.split_once(' ')?.1.trim_start().to_owned());
        trace.lines().filter_map(call).filter(|line| line.contains('(')).collect()
    }

    /// Has the kernel kill it as it makes this system call for the `occurrence`th time.
    pub fn kill_at(&self, command: &str, call: &str, occurrence: usize) {
        let inject = format!("inject={call}:signal=SIGKILL:when={occurrence}");
        let status = self.traced(command, &["-o", "/dev/null", "-e", &inject]);
        // The tracer ends as what it traces.
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{call} {occurrence}: {status}");
    }

    fn traced(&self, command: &str, options: &[&str]) -> ExitStatus {
        let mut child = self.spawn_as(command, &[&["strace"], options, &[PLUGIN]].concat());
        // It may be dead before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(self.config.to_string().as_bytes());
        child.wait_with_output().unwrap().status
    }

    /// Starts it and lets it run.
    pub fn start(&self, command: &str) -> Child {
        let mut child = self.spawn(command);
        child.stdin.take().unwrap().write_all(self.config.to_string().as_bytes()).unwrap();
        child
    }

    fn spawn(&self, command: &str) -> Child {
        self.spawn_as(command, &[PLUGIN])
    }

    #[expect(clippy::disallowed_methods, reason = "the subject is a process")]
    fn spawn_as(&self, command: &str, words: &[&str]) -> Child {
        let (program, arguments) = words.split_first().unwrap();
        Command::new(program)
            .args(arguments)
            .env_clear()
            .env("CNI_COMMAND", command)
            .envs(self.variables.iter().filter(|(_, value)| !value.is_empty()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// With no standard input at all.
    pub fn call_without_stdin(&self, command: &str) -> Outcome {
        let start = Instant::now();
        let mut child = self.spawn_as(command, &["sh", "-c", "exec \"$0\" <&-", PLUGIN]);
        drop(child.stdin.take());
        Outcome::of(child, start)
    }

    /// With `stdin` in place of the configuration.
    pub fn call_with(&self, command: &str, stdin: &[u8]) -> Outcome {
        let start = Instant::now();
        let mut child = self.spawn(command);
        let mut input = child.stdin.take().unwrap();
        let bytes = stdin.to_owned();
        // The plugin may end without having read everything.
        let writer = thread::spawn(move || drop(input.write_all(&bytes)));
        let outcome = Outcome::of(child, start);
        writer.join().unwrap();
        outcome
    }

    /// The folder holds nothing but what the test put there.
    pub fn assert_nothing_left(&self, expected: &[&str]) {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, expected);
    }
}

impl Outcome {
    fn of(child: Child, start: Instant) -> Self {
        let output = child.wait_with_output().unwrap();
        Self {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            success: output.status.success(),
            took: start.elapsed(),
        }
    }

    /// The error that must be on standard output, alone and complete.
    pub fn error(&self) -> Value {
        assert!(!self.success, "succeeded with {:?}", self.stdout);
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        let mut keys: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
        assert!(!error["msg"].as_str().unwrap().is_empty());
        error
    }

    /// Fails with `code`, and the message contains all of `words`.
    pub fn assert_error(&self, code: u32, words: &[&str]) {
        let error = self.error();
        let message = error["msg"].as_str().unwrap();
        assert_eq!(error["code"], code, "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
    }

    /// Succeeds and says nothing.
    pub fn assert_silent_success(&self) {
        assert!(self.success, "{} {}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
    }
}

/// A path under which other processes open a namespace that has no name.
pub fn path_of(netns: &PodNetns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

/// Device and inode of an open namespace.
pub fn identity(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let metadata = File::open(path).unwrap().metadata().unwrap();
    (metadata.dev(), metadata.ino())
}
