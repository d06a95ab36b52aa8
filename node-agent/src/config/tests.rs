use super::*;

fn raw(arguments: &[&str]) -> Raw {
    let programs = ["--nft=/n", "--conntrack=/c", "--ss=/s"];
    let all = ["node-agent"].iter().chain(&programs).chain(arguments);
    Raw::try_parse_from(all).unwrap()
}

#[test]
fn durations() {
    let cases = [
        ("5s", Some(5_000)),
        ("500ms", Some(500)),
        ("1m", Some(60_000)),
        ("0s", Some(0)),
        ("5", None),
        ("s", None),
        ("", None),
        ("5h", None),
        ("-1s", None),
        ("1.5s", None),
        ("99999999999999999999s", None),
    ];
    for (text, expected) in cases {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
    }
}

#[test]
fn what_was_given_is_understood() {
    let config = raw(&["--node-name=n1", "--exclude-namespaces=a, b,,", "--withdraw-wait=1m"]);
    let config = config.understand().unwrap();
    assert_eq!(config.node, "n1");
    assert_eq!(config.enrollment.excluded_namespaces, ["a", "b"].map(String::from).into());
    assert_eq!(config.pace.withdraw_wait, Duration::from_secs(60));
    assert_eq!(config.programs.nft, Path::new("/n"));
}

#[test]
fn sockets_of_the_runtime_are_the_given_or_the_usual_ones() {
    let sockets = |given: &[&str]| {
        let all: Vec<&str> = given.iter().copied().chain(["--node-name=n1"]).collect();
        raw(&all).understand().unwrap().places.runtime_sockets
    };
    assert_eq!(sockets(&[]).len(), crate::pod_netns::USUAL_SOCKETS.len());
    let given = sockets(&["--cri-socket=unix:///run/a.sock, /run/b.sock"]);
    assert_eq!(given, ["/run/a.sock", "/run/b.sock"].map(PathBuf::from));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let bad = raw(&[
        "--node-name=",
        "--run-dir=here",
        "--admin-addr=8000",
        "--withdraw-wait=soon",
        "--verify-interval=1ms",
        "--listener-hold=long",
        "--log-format=xml",
        "--dns-capture=perhaps",
        "--probe-source=kubelet",
        "--cri-socket=http://runtime",
        "--host-proc=proc",
        "--startup-taint=sluice.dev/agent-not-ready=:NoSchedule",
        "--on-escaped=restart",
    ]);
    let Mistakes(mistakes) = bad.understand().unwrap_err();
    let named = ["NODE_NAME", "RUN_DIR", "ADMIN_ADDR", "WITHDRAW_WAIT", "VERIFY_INTERVAL"];
    let more = [
        "LISTENER_HOLD",
        "LOG_FORMAT",
        "AMBIENT_DNS_CAPTURE",
        "PROBE_SOURCE",
        "CRI_SOCKET",
        "HOST_PROC",
        "STARTUP_TAINT",
        "ON_ESCAPED",
    ];
    for name in named.iter().chain(&more) {
        let hits = mistakes.iter().filter(|mistake| mistake.contains(name)).count();
        assert_eq!(hits, 1, "{name} in {mistakes:?}");
    }
    assert_eq!(mistakes.len(), 13);
}

#[test]
fn a_missing_program_is_named_with_its_setting() {
    let mut reader = Reader::default();
    reader.program("NFT", "nft", None, "relative:/nonexistent");
    assert_eq!(reader.mistakes, ["nft is not in PATH: install it or set NFT"]);
}
