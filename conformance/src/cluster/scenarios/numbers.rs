//! Many pods: at once on one node, and one after the other.

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::cluster::access::paths;

use super::parts::replace;
use crate::cluster::ground::{Ground, START};
use crate::cluster::hands::Hand;
use crate::cluster::parts::Part;
use crate::cluster::pods::{APP_PORT, MODE_LABEL, TestPod};
use crate::cluster::scenario::{Scenario, scenario};
use crate::pod_app::Counts;
use crate::scenario::{Skip, expect_within};

/// Pods on one node: so many, if the node takes them.
const MOST: usize = 60;
/// Room that is left on the node.
const SPARE: usize = 5;
/// Fewer show nothing.
const FEWEST: usize = 20;
/// Requests at a time.
const TOGETHER: usize = 6;
/// Pods that come and go together, and how often after the first time.
const BATCH: usize = 20;
const ROUNDS: usize = 4;
/// Descriptors that a process may have more by chance: connections that have not ended.
const CHANCE: usize = 8;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(
            "many-on-a-node",
            &[72],
            "a node full of labelled pods is captured, also after ztunnel and agent are replaced",
            many
        ),
        scenario!(
            "pods-come-and-go",
            &[68],
            "a hundred pods leave no descriptor, namespace, mount or interface on their node",
            come_and_go
        ),
    ]
}

async fn many(ground: &Ground) -> anyhow::Result<()> {
    ground.may_disturb()?;
    let (agent, ztunnel) = (ground.parts.agent()?, ground.parts.ztunnel()?);
    let count = room(ground).await?;
    let namespace = ground.namespace("full", &[]).await?;
    ground.strict(&namespace).await?;
    let client = ground.spec(&namespace, "client", 2)?.label(MODE_LABEL, "ambient");
    let outside = ground.spec(&namespace, "outside", 2)?;
    let (client, outside) = tokio::try_join!(ground.pod(&client), ground.pod(&outside))?;
    let pods = batch(ground, &namespace, ("full", count)).await?;
    let node = &ground.node(1)?.name;
    all_captured(ground, &pods, (&client, &outside)).await.context("as they have started")?;
    replace(ground, ztunnel, node).await?;
    all_captured(ground, &pods, (&client, &outside)).await.context("with another ztunnel")?;
    replace(ground, agent, node).await?;
    all_captured(ground, &pods, (&client, &outside)).await.context("with another agent")
}

/// How many more pods the first node takes, within reason.
async fn room(ground: &Ground) -> anyhow::Result<usize> {
    let node = ground.node(1)?;
    let takes = node.object["status"]["allocatable"]["pods"].as_str().unwrap_or_default();
    let query = [("fieldSelector", format!("spec.nodeName={}", node.name))];
    let query = query.each_ref().map(|(key, value)| (*key, value.as_str()));
    let there = ground.cluster.list(&paths::with_query("/api/v1/pods", &query)).await?.len();
    let takes: usize = takes.parse().context("a node that does not say how many pods it takes")?;
    let count = takes.saturating_sub(there + SPARE).min(MOST);
    if count < FEWEST {
        let why = format!("node {} takes {takes} pods and has {there}", node.name);
        return Err(Skip(why).into());
    }
    Ok(count)
}

/// Labelled pods on the first node that start together, once all are ready.
async fn batch(
    ground: &Ground,
    namespace: &str,
    (prefix, count): (&str, usize),
) -> anyhow::Result<Vec<TestPod>> {
    let mut names = Vec::new();
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        let mut spec = ground.spec(namespace, &name, 1)?.label(MODE_LABEL, "ambient");
        spec.service_account = None;
        ground.cluster.create_pod(&spec).await?;
        names.push(name);
    }
    let mut pods = Vec::new();
    for name in names {
        let object = ground.cluster.wait_ready(namespace, &name, 2 * START).await?;
        pods.push(TestPod::read(&object).context("a ready pod has an address")?);
    }
    Ok(pods)
}

/// Who is captured reaches each, and who is not reaches none, since the mesh takes nothing else.
async fn all_captured(
    ground: &Ground,
    pods: &[TestPod],
    (client, outside): (&TestPod, &TestPod),
) -> anyhow::Result<()> {
    let more = ["--deadline", "5"];
    for some in pods.chunks(TOGETHER) {
        let each = some.iter().map(|pod| async move {
            ground.until_redirection(pod, Some("enabled")).await?;
            let to = pod.addr(APP_PORT);
            ground.until_answered(client, to, &more).await?;
            let what = "STRICT turns clear text away";
            ground.until_asked(what, outside, to, &more, |answers| answers.answered == 0).await
        });
        try_join_all(each).await?;
    }
    Ok(())
}

async fn come_and_go(ground: &Ground) -> anyhow::Result<()> {
    let namespace = ground.namespace("come-and-go", &[]).await?;
    let hand = ground.hand(1).await?;
    let parts: Vec<_> = ground.parts.all().collect();
    let before = counts(ground, &hand, &parts).await?;
    // The first ones make room for what is kept once: their descriptors are the measure.
    round(ground, &namespace, 0).await?;
    let first = until_counts(ground, (&hand, &parts), &before, is_freed).await?;
    for number in 1..=ROUNDS {
        round(ground, &namespace, number).await?;
    }
    let measure = Counts { descriptors: first.descriptors, ..before };
    let all = |before: &Counts, now: &Counts| is_freed(before, now) && is_closed(before, now);
    until_counts(ground, (&hand, &parts), &measure, all).await.map(drop)
}

/// Waits until there is no more than there was.
async fn until_counts(
    ground: &Ground,
    (hand, parts): (&Hand, &[&Part]),
    before: &Counts,
    holds: impl Fn(&Counts, &Counts) -> bool,
) -> anyhow::Result<Counts> {
    let expected = format!("nothing beyond {before}");
    let now = async || counts(ground, hand, parts).await;
    expect_within(&expected, START, now, |now| holds(before, now)).await
}

async fn round(ground: &Ground, namespace: &str, number: usize) -> anyhow::Result<()> {
    let pods = batch(ground, namespace, (&format!("pod-{number}"), BATCH)).await?;
    for pod in &pods {
        ground.until_redirection(pod, Some("enabled")).await?;
    }
    for pod in &pods {
        ground.cluster.delete(&pod.path()).await?;
    }
    for pod in &pods {
        ground.cluster.wait_gone(&pod.path(), START).await?;
    }
    Ok(())
}

async fn counts(ground: &Ground, hand: &Hand, parts: &[&Part]) -> anyhow::Result<Counts> {
    let mut words = vec!["count".to_owned()];
    for part in parts {
        for pod in part.pods_on(&ground.cluster, &hand.node).await? {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            words.extend(["--pod".to_owned(), uid.to_owned()]);
        }
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    hand.ask(ground, &words).await
}

fn is_freed(before: &Counts, now: &Counts) -> bool {
    now.mounts <= before.mounts
        && now.namespaces <= before.namespaces
        && now.interfaces <= before.interfaces
}

/// By the same processes as before: others show nothing.
fn is_closed(before: &Counts, now: &Counts) -> bool {
    now.descriptors.iter().all(|(pod, count)| {
        before.descriptors.get(pod).is_some_and(|before| *count <= before + CHANCE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stays_is_noticed() {
        let counts = |descriptors, mounts, namespaces| Counts {
            descriptors: [("a".to_owned(), descriptors)].into(),
            mounts,
            namespaces,
            interfaces: 3,
        };
        let before = counts(40, 20, 5);
        let less = counts(40 + CHANCE, 19, 4);
        assert!(is_freed(&before, &less) && is_closed(&before, &less));
        assert!(!is_closed(&before, &counts(41 + CHANCE, 20, 5)));
        for more in [counts(40, 21, 5), counts(40, 20, 6)] {
            assert!(!is_freed(&before, &more), "{more:?}");
        }
        let other = Counts { descriptors: [("b".to_owned(), 1)].into(), ..before.clone() };
        assert!(!is_closed(&before, &other));
    }
}
