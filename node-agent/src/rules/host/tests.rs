use std::net::{SocketAddr, TcpListener, TcpStream};

use netns::Fence;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{HostProbes, Metrics, NodeAddresses, PodUid, Rules};
use crate::testing::{PATIENCE, ScratchPod, eventually, options, programs};

/// A node with its keeper.
struct Host {
    /// Stands for the node's namespace.
    place: ScratchPod,
    rules: Rules,
    probes: HostProbes,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Host {
    fn new() -> Self {
        Self::at(ScratchPod::new())
    }

    fn at(place: ScratchPod) -> Self {
        let rules = Rules::new(programs(), Fence::new(2).unwrap(), Handle::current());
        let probes = HostProbes::new(&rules, place.netns(), Metrics::default());
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(probes.clone().keep(stop.clone()));
        Self { place, rules, probes, stop, keeper }
    }

    /// The agent ends and starts again.
    async fn restarted(self) -> Self {
        self.stop.cancel();
        self.keeper.await.unwrap();
        Self::at(self.place)
    }

    async fn exempt(&self, name: &str, ip: &str, port: u16) {
        self.probes.exempt(&PodUid(name.into()), &[ip.parse().unwrap()], &[port].into()).await;
    }

    fn shows(&self) -> String {
        self.place.run("nft list ruleset")
    }

    async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        eventually(what, || async { holds(&self.shows()) }).await;
    }

    async fn test(&self) -> Result<(), String> {
        let kernel = self.probes.inner.kernel.as_ref().unwrap();
        self.probes.test_once(kernel, &self.rules, &options()).await
    }
}

#[tokio::test]
async fn a_pods_probes_are_let_through_before_it_starts_and_no_longer_than_it_lives() {
    let host = Host::new();
    host.exempt("a", "10.0.0.1", 8080).await;
    host.exempt("b", "fd00::2", 9090).await;
    let shown = host.shows();
    assert!(shown.contains("10.0.0.1 . 8080") && shown.contains("fd00::2 . 9090"), "{shown}");
    host.probes.release(&PodUid("a".into()));
    host.until("the element is gone", |shown| !shown.contains("10.0.0.1")).await;
    assert!(host.shows().contains("fd00::2 . 9090"));
}

#[tokio::test]
async fn what_somebody_flushes_is_repaired() {
    let host = Host::new();
    host.exempt("a", "10.0.0.1", 8080).await;
    let whole = host.shows();
    for damage in [
        "nft flush ruleset",
        "nft delete table bridge sluice_host",
        "nft flush set inet sluice_host probe4",
        "nft flush chain inet sluice_host guard",
    ] {
        host.place.run(damage);
        assert_ne!(host.shows(), whole, "{damage}");
        host.until(damage, |shown| shown == whole).await;
    }
}

#[tokio::test]
async fn where_cilium_routes_answers_to_probes_have_a_way_that_is_kept_and_goes_with_us() {
    let host = Host::new();
    host.exempt("a", "10.0.0.1", 8080).await;
    let ways = || {
        let shown = ["ip route show table local", "ip -6 route show table local"];
        let shown = shown.map(|command| host.place.run(command)).concat();
        let of_ours = ["local 169.254.7.127 dev lo", "local fd16:9254:7127:1337:"];
        of_ours.map(|way| shown.contains(way))
    };
    assert_eq!(ways(), [false; 2], "nobody drops answers here");
    host.place.run("ip link add cilium_host type veth peer name cilium_net");
    eventually("both ways are there", || async { ways() == [true; 2] }).await;
    host.place.run("ip route del local 169.254.7.127 dev lo");
    eventually("the way is there again", || async { ways() == [true; 2] }).await;
    assert!(host.probes.present().await.unwrap());
    host.stop.cancel();
    let Host { place, probes, keeper, .. } = &host;
    eventually("the keeper ends", || async { keeper.is_finished() }).await;
    place.run("nft flush ruleset");
    assert!(probes.present().await.unwrap(), "the ways are something of ours");
    probes.remove().await.unwrap();
    probes.remove().await.unwrap();
    assert_eq!(ways(), [false; 2]);
    assert!(!probes.present().await.unwrap());
}

#[tokio::test]
async fn an_agent_that_ends_leaves_the_rules_and_the_next_one_takes_them_over() {
    let host = Host::new();
    host.exempt("a", "10.0.0.1", 8080).await;
    host.exempt("gone", "10.0.0.9", 8080).await;
    let host = host.restarted().await;
    host.exempt("b", "10.0.0.2", 8080).await;
    let shown = host.shows();
    assert!(shown.contains("10.0.0.1 . 8080"), "before its pod was looked at: {shown}");
    assert!(shown.contains("10.0.0.2 . 8080"), "{shown}");
    host.exempt("a", "10.0.0.1", 8080).await;
    host.probes.all_known();
    host.until("nobody's element is gone", |shown| !shown.contains("10.0.0.9")).await;
    assert!(host.shows().contains("10.0.0.1 . 8080"));
}

#[tokio::test]
async fn an_uninstall_leaves_nothing_also_when_asked_twice() {
    let host = Host::new();
    host.exempt("a", "10.0.0.1", 8080).await;
    host.stop.cancel();
    host.keeper.await.unwrap();
    host.probes.remove().await.unwrap();
    host.probes.remove().await.unwrap();
    assert_eq!(host.place.run("nft list ruleset"), "");
}

#[tokio::test]
async fn the_self_test_passes_on_a_bare_node_and_leaves_no_link() {
    let host = Host::new();
    assert_eq!(host.test().await, Ok(()));
    let links = host.place.run("ip -o link");
    assert!(!links.contains("sluice-probe"), "{links}");
    host.until("its element is gone", |shown| !shown.contains("169.254.7.126")).await;
    assert_eq!(host.test().await, Ok(()), "and again");
}

#[tokio::test]
async fn the_self_test_says_what_is_in_the_way() {
    let host = Host::new();
    let rules = [
        (
            "type nat hook postrouting priority 80",
            "oif sluice-probe snat ip to 10.9.0.5",
            "came from 10.9.0.5 instead of 169.254.7.127",
        ),
        ("type filter hook input priority 0", "ip saddr 169.254.7.126 drop", "not answered"),
    ];
    for (chain, rule, expected) in rules {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("foreign.nft");
        let rule = rule.replace("oif sluice-probe", "oifname \"sluice-probe\"");
        std::fs::write(&file, format!("table ip other {{ chain c {{ {chain};\n{rule}\n}}\n}}\n"))
            .unwrap();
        host.place.run(&format!("nft -f {}", file.display()));
        let told = host.test().await.unwrap_err();
        assert!(told.contains(expected), "{told}");
        host.place.run("nft delete table ip other");
    }
    assert!(!host.place.run("ip -o link").contains("sluice-probe"));
}

#[tokio::test]
async fn a_probe_reaches_a_captured_pod_and_sees_whether_its_application_lives() {
    let (host, pod) = (Host::new(), ScratchPod::new());
    let fd = format!("{}", pod.path().display());
    host.place.run(&format!("ip link add pod type veth peer name eth0 netns {fd}"));
    host.place.run("ip link set pod up");
    // Both have 10.9.0.5 already, so neither may use it here.
    host.place.run("ip address add 10.9.0.7/32 dev pod");
    host.place.run("ip route add 10.9.0.6/32 dev pod src 10.9.0.7");
    pod.run("ip link set eth0 up");
    pod.run("ip address add 10.9.0.6/32 dev eth0");
    pod.run("ip route add 10.9.0.7/32 dev eth0");
    pod.run("ip route add default via 10.9.0.7");
    let mut declared = options();
    declared.probes.ports = [8080].into();
    host.rules.apply(&pod.netns(), &declared).await.unwrap();
    host.exempt("a", "10.9.0.6", 8080).await;
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let _other = pod.inside(|| TcpListener::bind("0.0.0.0:8081").unwrap());
    let probe = |port| {
        let to = SocketAddr::from(([10, 9, 0, 6], port));
        host.place.inside(move || {
            TcpStream::connect_timeout(&to, PATIENCE).map(drop).map_err(|error| error.kind())
        })
    };
    assert_eq!(probe(8080), Ok(()));
    assert_eq!(app.accept().unwrap().1.ip().to_string(), "169.254.7.127");
    assert_eq!(probe(8081), Err(std::io::ErrorKind::ConnectionRefused), "it is captured");
    drop(app);
    // A child of another test may hold the listener until it has become another program.
    let is_down = || async { probe(8080) == Err(std::io::ErrorKind::ConnectionRefused) };
    eventually("it is down", is_down).await;
}

#[tokio::test]
async fn the_nodes_addresses_are_those_that_pods_may_see() {
    let host = Host::new();
    host.place.run("ip address add fd09::5/128 dev lo");
    let addresses = NodeAddresses::open(&host.rules, &host.place.netns()).await.unwrap();
    let known = ["10.9.0.5", "fd09::5"].map(|address| address.parse().unwrap());
    assert_eq!(addresses.read().await.unwrap(), known.into());
    host.place.run("ip address del fd09::5/128 dev lo");
    assert_eq!(addresses.read().await.unwrap(), [known[0]].into());
}
