//! The plugin under `cnitool`, which is libcni as the authors of the specification wrote it:
//!
//! ```text
//! go install github.com/containernetworking/cni/cnitool@latest
//! CNITOOL=$(go env GOPATH)/bin/cnitool cargo test -p cni-plugin cnitool -- --ignored
//! ```

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use plugin_api::Verb;
use serde_json::{Value, json};

use crate::agent::{Visit, standing};
use crate::runtime::{PATIENCE, PLUGIN, Pod, path_of};

/// As simple as a primary plugin can be.
const PRIMARY: &str = r#"#!/bin/sh
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"@version","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{@family"interface":0,"address":"10.0.0.7/24"}]}' ;;
VERSION) echo '{"cniVersion":"@version","supportedVersions":["@version"]}' ;;
esac
"#;

/// libcni keeps results where nobody else shall find them: in a mount of this call's own, over
/// a folder of the test.
const IN_PRIVATE: &str = r#"mount --bind "$1" /var/lib && shift && exec "$@""#;

struct Bench {
    pod: Pod,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(version: &str) -> Self {
        let bench = Self { pod: Pod::new(), folder: tempfile::tempdir().unwrap() };
        // Versions compare as texts.
        let family = if version < "1.0.0" { r#""version":"4","# } else { "" };
        let script = PRIMARY.replace("@version", version).replace("@family", family);
        let primary = bench.path().join("primary");
        std::fs::write(&primary, script).unwrap();
        std::fs::set_permissions(primary, Permissions::from_mode(0o755)).unwrap();
        let own =
            json!({"type": "sluice-cni", "agentSocket": bench.pod.socket(), "timeoutSeconds": 5});
        let plugins = [json!({"type": "primary"}), own];
        let list = json!({"cniVersion": version, "name": "lab", "plugins": plugins});
        std::fs::write(bench.path().join("10-lab.conflist"), list.to_string()).unwrap();
        std::fs::create_dir(bench.path().join("lib")).unwrap();
        bench
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its output, or what it complained about.
    #[expect(clippy::disallowed_methods, reason = "the runtime is a process, and is looked for")]
    fn call(&self, verb: &str) -> Result<String, String> {
        let cnitool = std::env::var_os("CNITOOL").unwrap_or_else(|| "cnitool".into());
        let plugins = Path::new(PLUGIN).parent().unwrap();
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", IN_PRIVATE, "sh"])
            .arg(self.path().join("lib"))
            .arg(cnitool)
            .args([verb, "lab", &path_of(&self.pod.netns)])
            .env("NETCONFPATH", self.path())
            .env("CNI_PATH", format!("{}:{}", self.path().display(), plugins.display()))
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web")
            .output()
            .unwrap();
        let [said, complained] =
            [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        if output.status.success() { Ok(said) } else { Err(format!("{said}{complained}")) }
    }
}

#[test]
#[ignore = "needs cnitool; its file says how to get and run it"]
fn libcni_gets_along_with_every_verb_in_every_version() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let bench = Bench::new(version);
        let seen = standing(&bench.pod.socket());
        let added = bench.call("add").unwrap();
        let result: Value = serde_json::from_str(&added).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.0.0.7/24", "{added}");
        assert_eq!(result["cniVersion"], version, "{added}");
        for verb in ["check", "status", "del", "del"] {
            bench.call(verb).unwrap();
        }
        let mut asked = vec![Verb::Add, Verb::Check, Verb::Del, Verb::Del];
        match version {
            "1.1.0" => {
                asked.insert(2, Verb::Status);
                // It says which attachments are valid by saying nothing, and means none.
                let complaint = bench.call("gc").unwrap_err();
                assert!(complaint.contains("valid-attachments is missing"), "{complaint}");
            }
            _ => drop(bench.call("gc").unwrap()),
        }
        for verb in asked {
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Visit::Answered(verb), "{version}");
        }
    }
}

#[test]
#[ignore = "needs cnitool; its file says how to get and run it"]
fn libcni_reports_what_the_plugin_says() {
    let bench = Bench::new("1.1.0");
    let complaint = bench.call("add").unwrap_err();
    assert!(complaint.contains("the node agent is away"), "{complaint}");
    let complaint = bench.call("status").unwrap_err();
    assert!(complaint.contains("the node agent is away"), "{complaint}");
    bench.call("del").unwrap();
}
