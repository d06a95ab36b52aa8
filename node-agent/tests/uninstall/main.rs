//! `node-agent uninstall` as a process, on a node made of scratch namespaces: nothing of the
//! machine that runs the tests is looked at or touched.
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as expected")]

mod ground;
#[path = "../support/mod.rs"]
mod support;

use ground::{Ground, Pod, UIDS, lives, names, told};
use support::{PATIENCE, eventually};

const THEIRS: &str =
    r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge","mtu":1500.0}]}"#;
const WITH_OURS: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge","mtu":1500.0},{"type":"sluice-cni"}]}"#;

/// A node as an agent that was killed leaves it: a pod that is recorded, one that only a
/// process leads to, and everything around.
fn occupied() -> (Ground, [Pod; 2]) {
    let ground = Ground::new();
    let pods = [Pod::new(&ground), Pod::new(&ground)];
    for pod in &pods {
        ground.capture(pod);
        pod.run("nft add table inet theirs");
        assert_ne!(pod.traces(), "");
    }
    ground.record(&pods[0], "web");
    ground.process(10, &pods[1], UIDS[1]);
    for file in ["memory.json", "lock", "pods.json.new"] {
        ground.write(&format!("agent/{file}"), "");
    }
    drop(std::os::unix::net::UnixListener::bind(ground.at("ztunnel.sock")).unwrap());
    ground.write("conf/00-sluice.conflist", WITH_OURS);
    ground.write("conf/10-net.conflist", WITH_OURS);
    ground.write("bin/sluice-cni", "#!/bin/sh\n");
    ground.write("bin/bridge", "#!/bin/sh\n");
    ground.on_host("nft add table inet sluice_host");
    ground.on_host("nft add table inet others");
    (ground, pods)
}

/// Everything that the command may touch, as it is.
fn picture(ground: &Ground, pods: &[Pod]) -> Vec<String> {
    let mut picture = vec![ground.on_host("nft list ruleset")];
    for pod in pods {
        picture.extend([pod.traces(), pod.run("nft list ruleset")]);
    }
    for folder in ["agent", "conf", "bin", "."] {
        for name in names(&ground.at(folder)) {
            let text = std::fs::read_to_string(ground.at(folder).join(&name));
            picture.push(format!("{folder}/{name}: {}", text.unwrap_or_default()));
        }
    }
    picture
}

#[test]
fn nothing_of_ours_is_left_and_what_is_of_others_stays() {
    let (ground, pods) = occupied();
    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for pod in &pods {
        assert_eq!(pod.traces(), "");
        assert!(pod.run("nft list tables").contains("theirs"));
    }
    assert_eq!(ground.on_host("nft list tables").trim(), "table inet others");
    assert_eq!(names(&ground.at("conf")), ["10-net.conflist"]);
    assert_eq!(ground.read("conf/10-net.conflist"), THEIRS);
    assert_eq!(names(&ground.at("bin")), ["bridge"]);
    assert!(!ground.at("agent").exists() && !ground.at("ztunnel.sock").exists());
    for said in ["pod shop/web", UIDS[1], "probe rules", "10-net.conflist", "second look"] {
        assert!(done.out.contains(said), "{said}: {}", done.out);
    }
    assert!(done.out.contains("NODE_NAME is not set: peers are not told"), "{}", done.out);

    let again = ground.uninstall(&[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    // To hold the lock it makes the directory, which goes again.
    assert!(!again.out.contains("release"), "{}", again.out);
    assert!(!ground.at("agent").exists());
}

#[test]
fn a_dry_run_tells_the_same_and_changes_nothing() {
    let (ground, pods) = occupied();
    let before = picture(&ground, &pods);
    let dry = ground.uninstall(&["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert_eq!(picture(&ground, &pods), before);
    assert!(dry.out.ends_with("dry run: nothing was changed\n"), "{}", dry.out);

    let earnest = ground.uninstall(&[]);
    let things = |out: &str| {
        let is_thing =
            |line: &&str| ["remove", "take", "release"].iter().any(|v| line.starts_with(v));
        let mut lines: Vec<_> = out.lines().filter(is_thing).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(things(&dry.out), things(&earnest.out));
    assert!(things(&dry.out).len() > 8, "{}", dry.out);
}

#[test]
fn a_dry_run_on_a_node_without_us_makes_nothing() {
    let ground = Ground::new();
    std::fs::remove_dir(ground.at("agent")).unwrap();
    let dry = ground.uninstall(&["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let lines: Vec<_> = dry.out.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert_eq!(lines, ["dry run: nothing was changed"]);
    assert!(!ground.at("agent").exists());
}

#[test]
fn while_an_agent_runs_nothing_is_touched_and_it_is_named() {
    let ground = Ground::new();
    let pods = [Pod::new(&ground)];
    ground.capture(&pods[0]);
    ground.process(10, &pods[0], UIDS[0]);
    ground.write("conf/10-net.conflist", WITH_OURS);
    let agent = ground.agent();
    let before = picture(&ground, &pods);
    let refused = ground.uninstall(&["--drain"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let named = format!("node-agent, process {}", agent.pid());
    assert!(refused.err.contains(&named) && refused.err.contains("stop it first"), "{refused:?}");
    assert_eq!(refused.out, "");
    assert_eq!(picture(&ground, &pods), before);
    let dry = ground.uninstall(&["--dry-run"]);
    assert!(dry.out.contains(&named) && dry.out.contains("release"), "{dry:?}");

    drop(agent);
    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(pods[0].traces(), "");
    assert!(!ground.at("agent").exists());
}

#[test]
fn what_an_agent_has_installed_goes_as_it_came() {
    let ground = Ground::new();
    let plugin = "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}'\n";
    ground.write("source", plugin);
    ground.write("conf/10-net.conflist", THEIRS);
    let source = ground.at("source").display().to_string();
    let agent = ground.agent_with(&[("INSTALL_CNI", "own"), ("CNI_PLUGIN", &source)]);
    let own = ground.at("conf/00-sluice.conflist");
    eventually("our list is there", || own.exists());
    assert_eq!(ground.read("bin/sluice-cni"), plugin);
    drop(agent);
    assert!(own.exists(), "an agent that is killed leaves it");

    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(names(&ground.at("conf")), ["10-net.conflist"]);
    assert_eq!(ground.read("conf/10-net.conflist"), THEIRS);
    assert_eq!(names(&ground.at("bin")), Vec::<String>::new());
    assert!(!ground.at("agent").exists());
}

#[test]
fn a_pod_that_is_gone_is_no_obstacle() {
    let ground = Ground::new();
    let gone = Pod::new(&ground);
    ground.record(&gone, "gone");
    ground.process(10, &gone, UIDS[0]);
    drop(gone);
    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.out.contains("release"), "{}", done.out);
}

#[test]
fn a_pod_that_ends_meanwhile_is_no_obstacle() {
    let ground = Ground::new();
    let pod = Pod::new(&ground);
    ground.capture(&pod);
    ground.process(10, &pod, UIDS[0]);
    let (_ztunnel, app, _accepted) = pod.dial();
    let leaving = ground.begin(&["--drain"], &[("DRAIN_DEADLINE", "1m")]);
    eventually("new connections are direct", || {
        let rules = pod.run("nft list ruleset");
        rules.contains("chain mark_out") && !rules.contains("redirect")
    });
    // Its name goes first, its last connection then.
    std::fs::remove_dir_all(ground.at("proc/10")).unwrap();
    drop(pod);
    drop(app);
    drop(_accepted);
    let done = told(leaving);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn with_drain_connections_end_by_themselves() {
    let ground = Ground::new();
    let pod = Pod::new(&ground);
    ground.capture(&pod);
    ground.process(10, &pod, UIDS[0]);
    // Its lookups went through ztunnel too.
    let asked_for = serde_json::json!({"options": {"ambient.istio.io/dns-capture": "true"}});
    let memory = serde_json::json!({"version": 1, "pods": {UIDS[0]: asked_for}});
    ground.write("agent/memory.json", &memory.to_string());
    let (_ztunnel, mut app, mut accepted) = pod.dial();
    let leaving = ground.begin(&["--drain"], &[("DRAIN_DEADLINE", "1m")]);
    eventually("new connections are direct", || {
        let rules = pod.run("nft list ruleset");
        rules.contains("chain mark_out") && !rules.contains("redirect")
    });
    let rules = pod.run("nft list ruleset");
    assert!(rules.contains("15053"), "the pod's own options count: {rules}");
    assert!(lives(&mut app, &accepted) && lives(&mut accepted, &app));
    drop(app);
    drop(accepted);
    let done = told(leaving);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(pod.traces(), "");
}

#[test]
fn what_has_not_ended_by_the_deadline_is_ended() {
    for arguments in [&["--drain"][..], &[]] {
        let ground = Ground::new();
        let pod = Pod::new(&ground);
        ground.capture(&pod);
        ground.process(10, &pod, UIDS[0]);
        let (ztunnel, app, _accepted) = pod.dial();
        let done = told(ground.begin(arguments, &[("DRAIN_DEADLINE", "300ms")]));
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(pod.traces(), "");
        app.set_read_timeout(Some(PATIENCE)).unwrap();
        let heard = std::io::Read::read(&mut &app, &mut [0]);
        assert!(!matches!(heard, Ok(1)), "{heard:?}");
        let held =
            format!("listeners at 15001, held by {}", "a process that is not seen from here");
        assert!(done.out.contains(&held), "{}", done.out);
        drop(ztunnel);
    }
}

#[test]
fn the_plugin_stays_for_sandboxes_that_were_attached_with_it() {
    let ground = Ground::new();
    ground.write("bin/sluice-cni", "#!/bin/sh\n");
    ground.write("bin/.sluice-cni.new", "half");
    ground.write("cache/results/net-c1-eth0", r#"{"plugins":[{"type":"sluice-cni"}]}"#);
    let kept = ground.uninstall(&[]);
    assert_eq!(kept.code, Some(0), "{kept:?}");
    assert!(kept.out.contains("sluice-cni stays, because a sandbox may need it"), "{}", kept.out);
    assert_eq!(names(&ground.at("bin")), ["sluice-cni"]);

    std::fs::remove_file(ground.at("cache/results/net-c1-eth0")).unwrap();
    let kept = ground.uninstall(&["--plugin=keep"]);
    assert!(kept.out.contains("sluice-cni stays, as asked"), "{}", kept.out);
    assert_eq!(ground.uninstall(&[]).code, Some(0));
    assert_eq!(names(&ground.at("bin")), Vec::<String>::new());
}

#[test]
fn what_cannot_be_removed_is_named_and_counts() {
    let ground = Ground::new();
    // No program, but a folder of its name.
    std::fs::create_dir_all(ground.at("bin/sluice-cni/somebodys")).unwrap();
    ground.write("conf/10-broken.conflist", r#"{"plugins":[{"type":"sluice-cni""#);
    let left = ground.uninstall(&[]);
    assert_eq!(left.code, Some(1), "{left:?}");
    for said in ["failed: remove plugin", "still there: remove plugin", "10-broken.conflist"] {
        assert!(left.err.contains(said), "{said}: {}", left.err);
    }
    assert!(!left.out.contains("second look"), "{}", left.out);
}

#[test]
fn the_agents_directory_stays_with_what_is_not_ours() {
    let (ground, _pods) = occupied();
    std::fs::create_dir(ground.at("agent/somebodys")).unwrap();
    ground.write("agent/theirs.sock", "");
    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(names(&ground.at("agent")), ["somebodys", "theirs.sock"]);
    assert!(done.out.contains("stays: somebodys, theirs.sock in it is not ours"), "{}", done.out);
}

#[test]
fn outside_of_the_nodes_network_nothing_is_done() {
    let (ground, pods) = occupied();
    // Process 1 of the node is in another namespace than the command.
    ground.process(1, &pods[0], UIDS[0]);
    let before = picture(&ground, &pods);
    let refused = ground.uninstall(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("hostNetwork: true"), "{}", refused.err);
    assert_eq!(picture(&ground, &pods), before);
}

#[test]
fn what_stands_where_an_earlier_life_was_told_to_install_goes_too() {
    let ground = Ground::new();
    for folder in ["old.d", "old-bin"] {
        std::fs::create_dir(ground.at(folder)).unwrap();
    }
    ground.write("old.d/10-net.conflist", WITH_OURS);
    ground.write("old-bin/sluice-cni", "#!/bin/sh\n");
    let record = serde_json::json!({"conf": [ground.at("old.d")], "bin": [ground.at("old-bin")]});
    ground.write("agent/installed.json", &record.to_string());
    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(ground.read("old.d/10-net.conflist"), THEIRS);
    assert_eq!(names(&ground.at("old-bin")), Vec::<String>::new());
    assert!(!ground.at("agent").exists());
}

#[test]
fn multus_is_told_to_call_the_primarys_list_before_ours_goes() {
    let ground = Ground::new();
    let multus = r#"{"name":"m","cniVersion":"0.3.1","type":"multus-shim","clusterNetwork":"/host/net.d/00-sluice.conflist"}"#;
    let ours = WITH_OURS.replace("cni\"}", "cni\",\"listOf\":\"10-net.conflist\"}");
    for (file, text) in
        [("00-multus.conf", multus), ("00-sluice.conflist", &ours), ("10-net.conflist", THEIRS)]
    {
        ground.write(&format!("conf/{file}"), text);
    }
    let done = ground.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(names(&ground.at("conf")), ["00-multus.conf", "10-net.conflist"]);
    let calls = multus.replace("00-sluice", "10-net");
    assert_eq!(ground.read("conf/00-multus.conf"), calls);
}

#[test]
fn all_mistakes_in_the_settings_are_told_at_once() {
    let ground = Ground::new();
    let settings = [("DRAIN_DEADLINE", "soon"), ("HOST_PROC", "proc"), ("CNI_BIN_DIR", "bin")];
    let refused = told(ground.begin(&[], &settings));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for (name, _) in settings {
        assert!(refused.err.contains(name), "{}", refused.err);
    }
}
