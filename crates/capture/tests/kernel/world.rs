//! Namespaces, and programs run inside them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use capture::{Drift, Listing, Ruleset, TABLE, compare, replace};
use netns::{Fence, PodNetns};

/// A namespace with a fence to reach it; gone at the end of the test.
pub struct World {
    pub fence: Fence,
    pub pod: PodNetns,
}

impl World {
    pub fn new() -> Self {
        let pod = PodNetns::scratch().expect("these tests make namespaces and need root");
        Self { fence: Fence::new(1).unwrap(), pod }
    }

    /// Loads `ruleset` as JSON.
    pub fn apply(&self, ruleset: &Ruleset) {
        succeed(&self.load_json(&replace(ruleset)));
    }

    pub fn load_json(&self, batch: &str) -> Output {
        run(&self.fence, &self.pod, &["nft", "-j", "-f", "-"], batch)
    }

    /// Loads commands in nft's own words.
    pub fn nft(&self, commands: &str) -> Output {
        run(&self.fence, &self.pod, &["nft", "-f", "-"], commands)
    }

    pub fn listing(&self) -> Listing {
        let command = ["nft", "-j", "list", "table", "inet", TABLE];
        let output = run(&self.fence, &self.pod, &command, "");
        Listing::parse(&succeed(&output)).unwrap()
    }

    /// All tables of the namespace, as nft prints them.
    pub fn whole_ruleset(&self) -> String {
        succeed(&run(&self.fence, &self.pod, &["nft", "list", "ruleset"], ""))
    }

    /// How the namespace differs from `reference`, in words.
    pub fn drift(&self, reference: &Listing) -> Vec<String> {
        compare(reference, &self.listing()).iter().map(Drift::to_string).collect()
    }
}

/// Runs one program inside `netns`. A child belongs to the namespace of the thread that
/// starts it, and here that is a fence worker.
#[expect(clippy::disallowed_methods, reason = "these tests run nft and ip themselves")]
pub fn run(fence: &Fence, netns: &PodNetns, command: &[&str], stdin: &str) -> Output {
    let command: Vec<String> = command.iter().map(ToString::to_string).collect();
    let stdin = stdin.to_owned();
    let job = move || {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", command[0]));
        // Both programs read all input before they print; a broken pipe shows in the
        // output below.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    };
    fence.run(netns, job).unwrap()
}

/// The standard output of a program that must have succeeded.
pub fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
