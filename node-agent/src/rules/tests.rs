use std::io::Write;

use super::*;
use crate::testing::{ScratchPod, eventually, options, programs};

fn rules() -> Rules {
    Rules::new(programs(), Fence::new(2).unwrap(), Handle::current())
}

async fn captured() -> (Rules, ScratchPod) {
    let (rules, pod) = (rules(), ScratchPod::new());
    rules.apply(&pod.netns(), &options()).await.unwrap();
    (rules, pod)
}

#[tokio::test]
async fn what_was_applied_is_what_is_observed() {
    let (rules, pod) = captured().await;
    assert_eq!(rules.verify(&pod.netns(), &options()).await.unwrap(), []);
    assert!(rules.present(&pod.netns()).await.unwrap());
    for family in ["-4", "-6"] {
        let rule = pod.run(&format!("ip {family} rule"));
        assert!(rule.contains("13:\tfrom all fwmark 0x111/0xfff lookup 1337"), "{rule}");
        let route = pod.run(&format!("ip {family} route show table 1337"));
        assert!(route.starts_with("local default dev lo"), "{route}");
    }
}

#[tokio::test]
async fn applying_twice_changes_nothing() {
    let (rules, pod) = captured().await;
    let (ruleset, policy) = (pod.run("nft list ruleset"), pod.run("ip rule"));
    rules.apply(&pod.netns(), &options()).await.unwrap();
    assert_eq!(pod.run("nft list ruleset"), ruleset);
    assert_eq!(pod.run("ip rule"), policy);
}

#[tokio::test]
async fn what_somebody_deletes_is_noticed_and_repaired() {
    let (rules, pod) = captured().await;
    let damages = [
        ("nft flush chain inet sluice nat_out", "nat_out"),
        ("nft add rule inet sluice nat_pre tcp dport 80 accept", "nat_pre"),
        ("nft delete table inet sluice", "table sluice is missing"),
        ("nft flush ruleset", "table sluice is missing"),
        ("ip rule del pref 13", "IPv4 policy rule is missing"),
        ("ip -6 rule del pref 13", "IPv6 policy rule is missing"),
        ("ip route flush table 1337", "IPv4 route of marked packets is missing"),
        ("ip -6 route flush table 1337", "IPv6 route of marked packets is missing"),
    ];
    for (damage, found) in damages {
        pod.run(damage);
        let drifts = list(&rules.verify(&pod.netns(), &options()).await.unwrap());
        assert!(drifts.contains(found), "{damage}: {drifts}");
        rules.apply(&pod.netns(), &options()).await.unwrap();
        assert_eq!(rules.verify(&pod.netns(), &options()).await.unwrap(), [], "{damage}");
    }
}

#[tokio::test]
async fn removal_leaves_nothing_and_may_be_repeated() {
    let (rules, pod) = captured().await;
    assert_ne!(pod.traces(), "");
    for _ in 0..2 {
        rules.remove(&pod.netns()).await.unwrap();
        assert_eq!(pod.traces(), "");
        assert!(!rules.present(&pod.netns()).await.unwrap());
    }
}

#[tokio::test]
async fn rules_of_others_stay() {
    let (rules, pod) = (rules(), ScratchPod::new());
    pod.run("nft add table inet theirs");
    pod.run("ip rule add fwmark 0x111 lookup 100 pref 13");
    let theirs = (pod.run("nft list ruleset"), pod.run("ip rule"));
    assert!(!rules.present(&pod.netns()).await.unwrap());
    rules.apply(&pod.netns(), &options()).await.unwrap();
    assert_eq!(rules.verify(&pod.netns(), &options()).await.unwrap(), []);
    rules.remove(&pod.netns()).await.unwrap();
    assert_eq!((pod.run("nft list ruleset"), pod.run("ip rule")), theirs);
}

#[tokio::test]
async fn a_pod_without_ipv6_is_captured_and_gets_its_part_later() {
    let (rules, pod) = (rules(), ScratchPod::new());
    let switch = |value: &'static str| {
        for interface in ["all", "lo"] {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            pod.inside(move || std::fs::write(path, value)).unwrap();
        }
    };
    switch("1");
    rules.apply(&pod.netns(), &options()).await.unwrap();
    assert_eq!(rules.verify(&pod.netns(), &options()).await.unwrap(), []);
    switch("0");
    let drifts = list(&rules.verify(&pod.netns(), &options()).await.unwrap());
    assert!(drifts.contains("IPv6 policy rule is missing"), "{drifts}");
    rules.apply(&pod.netns(), &options()).await.unwrap();
    assert_eq!(rules.verify(&pod.netns(), &options()).await.unwrap(), []);
    switch("1");
    rules.remove(&pod.netns()).await.unwrap();
    assert_eq!(pod.traces(), "");
}

#[tokio::test]
async fn proxied_connections_are_counted_drained_and_ended() {
    let (rules, pod) = captured().await;
    let netns = pod.netns();
    assert_eq!(rules.proxied_connections(&netns).await.unwrap(), 0);
    let (_ztunnel, mut app, accepted) = pod.dial();
    assert_eq!(rules.proxied_connections(&netns).await.unwrap(), 1);

    rules.drain(&netns, &options()).await.unwrap();
    app.write_all(b"still there").unwrap();
    assert_eq!(rules.proxied_connections(&netns).await.unwrap(), 1, "old ones live on");

    rules.end_connections(&netns).await.unwrap();
    assert_eq!(rules.proxied_connections(&netns).await.unwrap(), 0);
    drop((app, accepted));
    rules.remove(&netns).await.unwrap();
    assert_eq!(pod.traces(), "", "conntrack has forgotten as well");
}

#[tokio::test]
async fn a_direct_connection_is_forgotten_with_the_rules_and_remembered_for_those_of_others() {
    for theirs in [None, Some("nft add table inet theirs")] {
        let (rules, pod) = captured().await;
        let excluded = Options { out_skip: [80.into()].into(), ..options() };
        rules.apply(&pod.netns(), &excluded).await.unwrap();
        let (app, _server) = pod.dial_elsewhere();
        let known = || pod.run("conntrack -L -p tcp --dport 80").trim().to_owned();
        assert!(known().contains("ESTABLISHED"), "{}", known());

        theirs.map(|command| pod.run(command));
        rules.remove(&pod.netns()).await.unwrap();
        assert_eq!(known().is_empty(), theirs.is_none(), "{theirs:?}: {}", known());
        drop(app);
    }
}

#[tokio::test]
async fn a_removal_that_ended_half_way_is_seen() {
    let (rules, pod) = captured().await;
    rules.load(&pod.netns(), capture::removal()).await.unwrap();
    assert_eq!(rules.find(&pod.netns(), &options()).await.unwrap(), Found::Otherwise);
}

#[tokio::test]
async fn a_namespace_whose_lo_is_down_is_an_error_that_says_so() {
    let (rules, netns) = (rules(), PodNetns::scratch().unwrap());
    let error = rules.apply(&netns, &options()).await.unwrap_err().to_string();
    assert!(error.contains("lo is not up"), "{error}");
}

#[tokio::test]
async fn a_refused_ruleset_says_what_nft_said() {
    let (rules, pod) = (rules(), ScratchPod::new());
    let error = rules.load(&pod.netns(), "{\"nftables\": 7}".into()).await.unwrap_err();
    assert!(error.to_string().starts_with("load rules: /"), "{error}");
    let missing = Programs { nft: "/nonexistent/nft".into(), ..programs() };
    let rules = Rules::new(missing, Fence::new(1).unwrap(), Handle::current());
    let error = rules.self_test(&options()).await.unwrap_err().to_string();
    assert!(error.contains("start /nonexistent/nft"), "{error}");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed() {
    let (pod, folder) = (ScratchPod::new(), tempfile::tempdir().unwrap());
    let (script, pid) = (folder.path().join("nft"), folder.path().join("pid"));
    let text = format!("#!/bin/sh\necho $$ > {}\nexec /bin/sleep 60\n", pid.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let hanging = Programs { nft: script, ..programs() };
    let rules = Rules::new(hanging, Fence::new(1).unwrap(), Handle::current());
    let error = rules.drain(&pod.netns(), &options()).await.unwrap_err().to_string();
    assert!(error.contains("was killed"), "{error}");
    let pid = std::fs::read_to_string(pid).unwrap();
    let process = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
    // A process that has ended but was not waited for has an empty command line.
    eventually("the process is gone", || async {
        std::fs::read(&process).is_ok_and(|line| line.is_empty()) || !process.exists()
    })
    .await;
}
