//! Stories of captured pods in which somebody's policy rule comes before ours.

use super::*;

const IMPAIRED: &str = "sluice_agent_pods_impaired{kind=\"foreign_policy_rule\"}";
const ELSEWHERE: &str = "5:\tfrom all fwmark 0x111/0xfff lookup main";

impl Captured {
    async fn is_impaired_by(&self, rule: &str) {
        eventually(&format!("the pod names {rule}"), || async {
            let said = self.observed().unwrap_or_default();
            said.starts_with("impaired: ") && said.contains(rule)
        })
        .await;
        assert_eq!(self.node.metric_value(IMPAIRED) as u64, 1);
        assert_eq!(
            self.api.annotation("web", "ambient.istio.io/redirection").as_deref(),
            Some("enabled"),
            "peers use the tunnel all along"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_rule_that_leads_answers_elsewhere_is_told_once_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), PACE).await;
    web.pod.run("ip rule add pref 4 fwmark 0x222/0xfff lookup main");
    web.pod.run("ip rule add pref 5 fwmark 0x111/0xfff lookup main");
    let rule = ELSEWHERE.replace('\t', " ");
    web.is_impaired_by(&rule).await;
    web.node.looks_again("web").await;
    // Another look for another reason, and a repair of something else.
    web.pod.run("nft flush ruleset");
    web.repaired("rules", 1).await;
    web.is_impaired_by(&rule).await;
    eventually("people are told", || async { web.count("ForeignPolicyRule") == 1 }).await;
    let told = web.api.messages("ForeignPolicyRule");
    assert!(told[0].contains(&rule) && !told[0].contains("0x222"), "{told:?}");
    assert!(web.pod.run("ip rule").contains(ELSEWHERE), "it is not ours");

    web.pod.run("ip rule del pref 5");
    web.says("captured").await;
    assert_eq!(web.node.metric_value(IMPAIRED) as u64, 0);
    assert_eq!(web.api.events().iter().filter(|event| *event == "ForeignPolicyRule").count(), 1);
    web.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_rule_that_came_before_the_capture_or_while_nobody_looked_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let web = captured(folder.path(), DEAF).await;
    let Captured { node, api, ztunnel, pod } = web;
    let (heir, rule) = (ScratchPod::new(), "6: from all lookup main");
    heir.run("ip -6 rule add pref 6 lookup main");
    api.add_pod("heir", Some("10.9.0.5"));
    api.label("heir", Some("ambient"));
    assert_eq!(node.call(Verb::Add, "heir", &heir).await, Outcome::Captured);
    let says = |name: &'static str| {
        let said = api.annotation(name, "sluice.dev/observed").unwrap_or_default();
        said.contains("IPv6") && said.contains(rule)
    };
    eventually("it is told at once", || async { says("heir") }).await;
    node.stop().await;
    drop(ztunnel);
    pod.run("ip -6 rule add pref 6 lookup main");
    let node = Node::start_at(folder.path(), &api, DEAF).await;
    let _ztunnel = node.taking_ztunnel(Arc::default()).await;
    eventually("the next life tells it", || async { says("web") }).await;
    node.stop().await;
}
