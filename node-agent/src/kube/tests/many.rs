//! Stories of very many changes, and very many pods.

use std::collections::HashMap;

use super::*;

fn steps(node: &Node) -> HashMap<String, u64> {
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &node.registry).unwrap();
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("nodeagent_reconcile_events_total{type=\"")?;
        let (step, count) = rest.split_once("\"} ")?;
        Some((step.to_owned(), count.parse().ok()?))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_changes_of_a_label_cost_bounded_work_and_the_last_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (node, api, _ztunnel, pod) = captured(folder.path()).await;
    let patches = || api.requests().iter().filter(|line| line.starts_with("PATCH ")).count();
    let (before, loads) = (patches(), |steps: &HashMap<String, u64>| {
        ["capture", "repair", "drain"].iter().filter_map(|step| steps.get(*step)).sum::<u64>()
    });
    let loads_before = loads(&steps(&node));
    for flip in 0..100 {
        api.label("web", (flip % 2 == 1).then_some("ambient"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.reaches("web", State::Captured).await;
    advertised(&api).await;
    assert!(is_redirected(&pod));
    let (patches, loads) = (patches() - before, loads(&steps(&node)) - loads_before);
    println!("100 changes of a label in ten seconds: {patches} patches, {loads} loads of rules");
    assert!(patches <= 210 && loads <= 60, "{patches} patches, {loads} loads of rules");
    assert!(api.told("Captured") <= 60);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_of_one_name_after_each_other_are_each_captured_as_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let api = FakeApi::new();
    let node = Node::start(folder.path(), &api).await;
    let ztunnel = node.ztunnel(None).await;
    let mut last: Option<(ScratchPod, plugin_api::Request)> = None;
    for life in 0..100 {
        let (uid, pod) = (format!("uid-{life}"), ScratchPod::new());
        if life > 0 {
            api.delete_pod("web");
        }
        api.add_pod_as("web", &uid, Some("10.9.0.5"), Some("ambient"));
        let mut request = Node::request(Verb::Add, "web", &pod);
        (request.uid, request.container_id) = (Some(uid.clone()), format!("c-{life}"));
        assert_eq!(node.send(request.clone(), Some(pod.netns())).await, Outcome::Captured);
        // The end of the one before comes late, as runtimes do.
        if let Some((_, mut ended)) = last.take() {
            ended.verb = Verb::Del;
            assert_eq!(node.send(ended, None).await, Outcome::Done);
        }
        assert!(is_redirected(&pod) && ztunnel.serves(&uid), "life {life}");
        last = Some((pod, request));
    }
    eventually("only the last one is known", || async {
        let table = node.reconciler.table();
        let known: Vec<_> = table.pods().map(|(uid, _)| uid.0.clone()).collect();
        known == ["uid-99"] && ztunnel.told.lock().unwrap().serves.len() == 1
    })
    .await;
    let records = std::fs::read_to_string(folder.path().join("pods.json")).unwrap();
    assert_eq!(records.matches("\"uid\"").count(), 1, "{records}");
    let witness = Witness::of(&last.as_ref().unwrap().0);
    drop(last);
    api.delete_pod("web");
    witness.sees_it_end().await;
    node.stop().await;
}
