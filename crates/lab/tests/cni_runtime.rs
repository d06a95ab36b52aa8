//! The order, input and undoing of plugin calls, seen by plugins that are shell scripts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lab::cni_runtime::{Attachment, CniError, Conflist, PluginError, Runtime};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes down how it was called, then answers with its own name added to `seen`.
const RECORDER: &str = r#"#!/bin/sh
log=FOLDER/log
stdin=$(cat)
echo "$CNI_COMMAND NAME netns=$CNI_NETNS" >> "$log"
printf '%s\n' "$stdin" > "FOLDER/$CNI_COMMAND-NAME.stdin"
env > "FOLDER/$CNI_COMMAND-NAME.env"
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[],"by":"NAME"}'
exit 0
"#;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(plugins: &[(&str, &str)]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        for sub in ["bin", "conf", "cache"] {
            fs::create_dir(bench.path().join(sub)).unwrap();
        }
        for (name, script) in plugins {
            let folder = bench.path().display().to_string();
            let file = bench.path().join("bin").join(name);
            fs::write(&file, script.replace("FOLDER", &folder).replace("NAME", name)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let entries: Vec<_> = plugins.iter().map(|(name, _)| json!({"type": name})).collect();
        bench.conflist(&json!({"cniVersion": "1.0.0", "name": "net", "plugins": entries}));
        bench
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn conflist(&self, list: &Value) {
        fs::write(self.path().join("conf/10-test.conflist"), list.to_string()).unwrap();
    }

    fn runtime(&self) -> Runtime {
        let folder = |name| self.path().join(name);
        Runtime::new(&folder("conf"), &folder("cache"), vec![folder("bin")], None)
    }

    fn list(&self) -> Conflist {
        self.runtime().load().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path().join("log")).unwrap_or_default();
        let call = |line: &str| line.rsplit_once(" netns=").unwrap().0.to_owned();
        log.lines().map(call).collect()
    }

    fn stdin(&self, call: &str) -> Value {
        let text = fs::read_to_string(self.path().join(format!("{call}.stdin"))).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn cached(&self) -> usize {
        fs::read_dir(self.path().join("cache/results")).map_or(0, Iterator::count)
    }
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "c1".into(),
        netns: Some("/run/netns/x".into()),
        ifname: "eth0".into(),
        args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "p".into())],
        capability_args: serde_json::Map::new(),
    }
}

#[tokio::test]
async fn results_are_chained_cached_and_given_back() {
    let bench = Bench::new(&[("one", RECORDER), ("two", RECORDER), ("three", RECORDER)]);
    let (runtime, list) = (bench.runtime(), bench.list());

    let result = runtime.add(&list, &attachment()).await.unwrap();
    assert_eq!(result["by"], "three");
    assert_eq!(bench.stdin("ADD-one").get("prevResult"), None);
    assert_eq!(bench.stdin("ADD-two")["prevResult"]["by"], "one");
    assert_eq!(bench.stdin("ADD-three")["prevResult"]["by"], "two");
    for call in ["ADD-one", "ADD-three"] {
        let stdin = bench.stdin(call);
        assert_eq!((&stdin["name"], &stdin["cniVersion"]), (&json!("net"), &json!("1.0.0")));
    }
    assert_eq!(bench.cached(), 1);

    runtime.check(&list, &attachment()).await.unwrap();
    assert_eq!(bench.stdin("CHECK-one")["prevResult"]["by"], "three");

    runtime.del(&list, &attachment()).await.unwrap();
    assert_eq!(bench.stdin("DEL-one")["prevResult"]["by"], "three");
    assert_eq!(bench.cached(), 0);

    runtime.del(&list, &attachment().without_netns()).await.unwrap();
    assert_eq!(bench.stdin("DEL-one").get("prevResult"), None);
    let log = fs::read_to_string(bench.path().join("log")).unwrap();
    assert!(log.lines().last().unwrap().ends_with("netns="), "{log}");

    let order = ["ADD one", "ADD two", "ADD three", "CHECK one", "CHECK two", "CHECK three"];
    let undo = ["DEL three", "DEL two", "DEL one"];
    assert_eq!(bench.calls(), [&order[..], &undo, &undo].concat());
}

#[tokio::test]
async fn plugins_get_the_stated_environment_and_nothing_else() {
    let bench = Bench::new(&[("one", RECORDER)]);
    bench.runtime().add(&bench.list(), &attachment()).await.unwrap();
    let text = fs::read_to_string(bench.path().join("ADD-one.env")).unwrap();
    let mut names: Vec<_> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // The shell's own.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    let expected = [
        "CNI_ARGS",
        "CNI_COMMAND",
        "CNI_CONTAINERID",
        "CNI_IFNAME",
        "CNI_NETNS",
        "CNI_PATH",
        "PATH",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_failed_add_undoes_all_plugins_and_names_the_one() {
    let failing = r#"#!/bin/sh
        echo "$CNI_COMMAND NAME netns=" >> FOLDER/log
        [ "$CNI_COMMAND" = ADD ] || exit 0
        echo '{"cniVersion":"1.0.0","code":11,"msg":"not yet","details":"agent is starting"}'
        exit 1"#;
    let bench = Bench::new(&[("one", RECORDER), ("bad", failing), ("three", RECORDER)]);
    let error = bench.runtime().add(&bench.list(), &attachment()).await.unwrap_err();
    assert!(error.is_try_again());
    assert_eq!(
        error.to_string(),
        "plugin bad failed ADD with code 11: not yet (agent is starting)"
    );
    assert_eq!(bench.calls(), ["ADD one", "ADD bad", "DEL three", "DEL bad", "DEL one"]);
    assert_eq!(bench.cached(), 0);
}

#[tokio::test]
async fn del_carries_on_past_a_failure_and_keeps_the_result() {
    let stubborn = r#"#!/bin/sh
        echo "$CNI_COMMAND NAME netns=" >> FOLDER/log
        [ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0"}' && exit 0
        echo '{"cniVersion":"1.0.0","code":100,"msg":"no"}'; exit 1"#;
    let bench = Bench::new(&[("one", RECORDER), ("two", stubborn)]);
    let (runtime, list) = (bench.runtime(), bench.list());
    runtime.add(&list, &attachment()).await.unwrap();
    let error = runtime.del(&list, &attachment()).await.unwrap_err();
    assert_eq!(error.code(), Some(100));
    assert_eq!(bench.calls()[2..], ["DEL two", "DEL one"]);
    assert_eq!(bench.cached(), 1, "another DEL still needs it");
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let hanging = r#"#!/bin/sh
        [ "$CNI_COMMAND" = ADD ] || exit 0
        sleep 600 & echo $! > FOLDER/child
        wait"#;
    let bench = Bench::new(&[("slow", hanging)]);
    let runtime = bench.runtime().with_deadline(Duration::from_secs(1));
    let error = runtime.add(&bench.list(), &attachment()).await.unwrap_err();
    assert!(error.to_string().contains("slow"), "{error}");
    let child = fs::read_to_string(bench.path().join("child")).unwrap();
    let gone =
        lab::eventually("the end of the plugin's child", Duration::from_secs(10), || async {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
        });
    gone.await.unwrap();
}

#[tokio::test]
async fn plugins_that_are_missing_or_speak_nonsense_are_named() {
    let nonsense = "#!/bin/sh\necho hello; exit 0";
    let crash = "#!/bin/sh\necho out of luck >&2; exit 7";
    for (script, word) in [(nonsense, "hello"), (crash, "out of luck")] {
        let bench = Bench::new(&[("odd", script)]);
        let error = bench.runtime().add(&bench.list(), &attachment()).await.unwrap_err();
        assert!(matches!(&error, CniError::Add { cause: PluginError::Mute { .. }, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("plugin odd") && text.contains(word), "{text}");
    }
    let bench = Bench::new(&[("here", RECORDER)]);
    let list = Conflist::parse(r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"gone"}]}"#);
    let error = bench.runtime().add(&list.unwrap(), &attachment()).await.unwrap_err();
    assert!(matches!(&error, CniError::Add { cause: PluginError::Missing { .. }, .. }), "{error}");
}

#[tokio::test]
async fn check_is_for_what_was_added_in_a_version_that_has_it() {
    let bench = Bench::new(&[("one", RECORDER)]);
    let (runtime, mut list) = (bench.runtime(), bench.list());
    let error = runtime.check(&list, &attachment()).await.unwrap_err();
    assert!(matches!(error, CniError::CannotCheck { .. }), "{error}");
    list.disable_check = true;
    runtime.check(&list, &attachment()).await.unwrap();
    list.disable_check = false;
    list.version = "0.3.1".into();
    runtime.add(&list, &attachment()).await.unwrap();
    let error = runtime.check(&list, &attachment()).await.unwrap_err();
    assert!(matches!(error, CniError::CannotCheck { .. }), "{error}");
    runtime.del(&list, &attachment()).await.unwrap();
    assert_eq!(bench.stdin("DEL-one").get("prevResult"), None, "0.3.1 knows none on DEL");
}

#[tokio::test]
async fn status_asks_in_order_until_one_refuses() {
    let refusing = r#"#!/bin/sh
        echo "$CNI_COMMAND NAME netns=" >> FOLDER/log
        echo '{"cniVersion":"1.1.0","code":50,"msg":"not now"}'
        exit 1"#;
    let bench = Bench::new(&[("one", RECORDER), ("bad", refusing), ("three", RECORDER)]);
    let (runtime, mut list) = (bench.runtime(), bench.list());
    runtime.status(&list).await.unwrap();
    assert_eq!(bench.calls(), [""; 0], "1.0.0 has no STATUS");
    list.version = "1.1.0".into();
    let error = runtime.status(&list).await.unwrap_err();
    assert_eq!(error.code(), Some(50), "{error}");
    assert_eq!(bench.calls(), ["STATUS one", "STATUS bad"]);
    assert_eq!(bench.stdin("STATUS-one").get("prevResult"), None);
}

#[tokio::test]
async fn gc_ends_what_is_cached_and_tells_all_plugins_what_is_valid() {
    let refusing = r#"#!/bin/sh
        echo "$CNI_COMMAND NAME netns=" >> FOLDER/log
        [ "$CNI_COMMAND" = GC ] || { echo '{"cniVersion":"1.1.0"}'; exit 0; }
        echo '{"cniVersion":"1.1.0","code":11,"msg":"later"}'
        exit 1"#;
    let bench = Bench::new(&[("bad", refusing), ("two", RECORDER)]);
    let (runtime, mut list) = (bench.runtime(), bench.list());
    list.version = "1.1.0".into();
    let stale = Attachment { container_id: "c2".into(), ..attachment() };
    for attachment in [attachment(), stale] {
        runtime.add(&list, &attachment).await.unwrap();
    }
    let before = bench.calls().len();
    let error = runtime.gc(&list, &[&attachment()]).await.unwrap_err();
    assert_eq!(error.code(), Some(11), "{error}");
    assert_eq!(bench.calls()[before..], ["DEL two", "DEL bad", "GC bad", "GC two"]);
    assert_eq!(bench.cached(), 1);
    let environment = fs::read_to_string(bench.path().join("DEL-two.env")).unwrap();
    assert!(environment.contains("CNI_CONTAINERID=c2\n"), "{environment}");
    assert!(environment.contains("CNI_NETNS=/run/netns/x\n"), "{environment}");
    let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
    assert_eq!(bench.stdin("GC-two")["cni.dev/valid-attachments"], valid);

    // Nothing is valid any more, and this version can say so to the cache's own only.
    list.version = "1.0.0".into();
    let before = bench.calls().len();
    runtime.gc(&list, &[]).await.unwrap();
    assert_eq!(bench.calls()[before..], ["DEL two", "DEL bad"]);
    assert_eq!(bench.cached(), 0);
}

#[tokio::test]
async fn gc_can_be_switched_off() {
    let bench = Bench::new(&[("one", RECORDER)]);
    let (runtime, mut list) = (bench.runtime(), bench.list());
    runtime.add(&list, &attachment()).await.unwrap();
    (list.version, list.disable_gc) = ("1.1.0".into(), true);
    runtime.gc(&list, &[]).await.unwrap();
    assert_eq!((bench.calls(), bench.cached()), (vec!["ADD one".to_owned()], 1));
}
