//! A watch over a namespace in which things happen.

use std::time::Duration;

use capture::Options;
use netns::{Fence, PodNetns};
use tokio::runtime::Handle;

use super::*;
use crate::rules::Rules;
use crate::testing::{PATIENCE, ScratchPod, options, programs};

const LONG: Duration = Duration::from_secs(3600);

struct Watched {
    pod: ScratchPod,
    rules: Rules,
    watch: Arc<Watch>,
}

/// A captured pod that was found right.
async fn watched() -> Watched {
    let (pod, fence) = (ScratchPod::new(), Fence::new(2).unwrap());
    let rules = Rules::new(programs(), fence.clone(), Handle::current());
    let observer = Observer::new(fence);
    let watch = observer.watch(&PodUid("uid".into()), &pod.netns()).await.unwrap();
    let watched = Watched { pod, rules, watch };
    watched.put_right().await;
    watched
}

impl Watched {
    async fn put_right(&self) {
        self.rules.apply(&self.pod.netns(), &options()).await.unwrap();
        let sight = self.watch.look().unwrap();
        assert_eq!(self.rules.verify(&self.pod.netns(), &options()).await.unwrap(), []);
        self.watch.accept(sight, &options());
        assert!(self.stands(), "what was just found right");
    }

    fn stands(&self) -> bool {
        self.watch.stands(&self.watch.look().unwrap(), &options(), LONG)
    }

    async fn noticed(&self) {
        tokio::time::timeout(PATIENCE, self.watch.noticed()).await.expect("news").unwrap();
    }

    fn switch_v6(&self, value: &'static str) {
        for interface in ["all", "lo"] {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            self.pod.inside(move || std::fs::write(path, value)).unwrap();
        }
    }
}

#[tokio::test]
async fn whatever_is_broken_in_a_pod_is_heard_and_seen() {
    let watched = watched().await;
    let damages = [
        "nft flush ruleset",
        "nft flush chain inet sluice nat_out",
        "nft add element inet sluice in_skip { 80 }",
        "ip rule del pref 13",
        "ip -6 rule del pref 13",
        "ip rule add pref 12 fwmark 0x111/0xfff lookup main",
        "ip route flush table 1337",
        "ip -6 route flush table 1337",
    ];
    for damage in damages {
        watched.pod.run(damage);
        watched.noticed().await;
        assert!(!watched.stands(), "{damage}");
        watched.pod.try_run("ip rule del pref 12");
        watched.put_right().await;
    }
    // A device that goes down takes routes with it without a word about them.
    watched.pod.run("ip link set lo down");
    watched.noticed().await;
    assert!(!watched.stands(), "lo is down");
}

#[tokio::test]
async fn what_somebody_else_hears_while_the_pod_is_compared_is_not_lost() {
    let watched = watched().await;
    let sight = watched.watch.look().unwrap();
    // It changes nothing that a look asks for.
    watched.pod.run("ip rule add pref 12 from 10.1.2.3 lookup main");
    watched.watch.look().unwrap();
    watched.watch.accept(sight, &options());
    assert!(!watched.stands(), "the rule came after what was accepted");
    watched.put_right().await;
}

#[tokio::test]
async fn who_changed_the_rules_is_known() {
    let watched = watched().await;
    assert_eq!(watched.watch.author(), None, "our own changes are not news");
    watched.pod.run("nft flush ruleset");
    watched.noticed().await;
    assert!(!watched.stands());
    assert_eq!(watched.watch.author().unwrap().name, "nft");
    assert!(watched.watch.has_lost_table());
    watched.put_right().await;
    assert_eq!(watched.watch.author(), None);
    assert!(!watched.watch.has_lost_table());
    watched.pod.run("nft flush chain inet sluice nat_out");
    watched.noticed().await;
    assert!(!watched.stands() && !watched.watch.has_lost_table(), "damaged, but there");
}

#[tokio::test]
async fn what_does_not_concern_us_is_no_reason_to_compare() {
    let watched = watched().await;
    for change in ["ip address add 10.9.0.6/32 dev lo", "ip route add 10.8.0.0/16 dev lo"] {
        watched.pod.run(change);
        assert!(watched.stands(), "{change}");
    }
    let sight = watched.watch.look().unwrap();
    assert!(!watched.watch.stands(&sight, &options(), Duration::ZERO), "long ago");
    let others = Options { dns: capture::Dns::On, ..options() };
    assert!(!watched.watch.stands(&sight, &others, LONG), "other rules are wanted");
}

#[tokio::test]
async fn the_switch_of_ipv6_is_seen_both_ways() {
    let watched = watched().await;
    watched.switch_v6("1");
    watched.noticed().await;
    assert!(!watched.stands() && !watched.watch.had_no_v6());
    watched.put_right().await;
    assert!(watched.watch.had_no_v6());
    watched.switch_v6("0");
    watched.noticed().await;
    assert!(!watched.stands() && watched.watch.look().unwrap().has_v6());
    watched.put_right().await;
}

#[tokio::test]
async fn more_news_than_there_is_room_for_mean_that_everything_is_looked_at() {
    let watched = watched().await;
    // Some megabytes of them, in pairs that leave everything as it was.
    let burst = "for i in $(seq 400); do for n in 1 2 3 4 5 6; do \
                 echo route add 10.7.$n.0/24 dev lo; done; \
                 for n in 1 2 3 4 5 6; do echo route del 10.7.$n.0/24; done; done | ip -b -";
    watched.pod.inside(move || {
        #[expect(clippy::disallowed_methods, reason = "a test needs a crowd of changes")]
        let status = std::process::Command::new("sh").args(["-c", burst]).status().unwrap();
        assert!(status.success());
    });
    watched.noticed().await;
    // The first look may not hear its answer; then the next does.
    let seen = watched.watch.look().or_else(|_| watched.watch.look()).unwrap();
    assert!(!watched.watch.stands(&seen, &options(), LONG));
    watched.put_right().await;
}

#[tokio::test]
async fn news_wake_once_and_a_quiet_pod_does_not_wake() {
    let watched = watched().await;
    let quiet = tokio::time::timeout(Duration::from_millis(200), watched.watch.noticed());
    assert!(quiet.await.is_err(), "nothing has happened");
    watched.pod.run("nft add table inet theirs");
    watched.noticed().await;
    watched.noticed().await;
    watched.watch.look().unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(200), watched.watch.noticed());
    assert!(quiet.await.is_err(), "all was heard");
}

/// What 250 captured pods cost an idle agent, and how much of it descriptors are:
/// `cargo test -p node-agent what_watching -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_watching_costs() {
    const PODS: usize = 250;
    const ROUNDS: u32 = 20;
    let fence = Fence::new(2).unwrap();
    let rules = Rules::new(programs(), fence.clone(), Handle::current());
    let observer = Observer::new(fence);
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut watches = Vec::new();
    let mut netnses = Vec::new();
    for _ in 0..PODS {
        netnses.push(PodNetns::scratch().unwrap());
    }
    let (before, resident) = (count(), resident());
    for (number, netns) in netnses.iter().enumerate() {
        let uid = PodUid(format!("uid-{number}"));
        watches.push(observer.watch(&uid, netns).await.unwrap());
    }
    let descriptors = (count() - before) / PODS;
    let memory = (self::resident().saturating_sub(resident)) / PODS;
    drop(rules);
    let used = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
        let usage = usage.unwrap();
        let micros = |time: nix::sys::time::TimeVal| {
            time.tv_sec() * 1_000_000 + i64::from(time.tv_usec() as i32)
        };
        micros(usage.user_time()) + micros(usage.system_time())
    };
    let began = used();
    for _ in 0..ROUNDS {
        for watch in &watches {
            watch.look().unwrap();
        }
    }
    let look = (used() - began) as f64 / f64::from(ROUNDS) / PODS as f64;
    let share = look * PODS as f64 / 3_000_000.0 * 100.0;
    println!("one light look {look:.1} us; {PODS} pods every 3 s: {share:.2} % of a core");
    println!("per pod {descriptors} descriptors, {memory} bytes resident");
    assert_eq!(descriptors, 2);
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
