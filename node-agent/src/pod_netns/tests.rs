use std::path::{Path, PathBuf};

use super::*;
use crate::facts::{PodName, PodUid};
use crate::testing::ScratchPod;

fn locator() -> Locator {
    Locator::new(Fence::new(1).unwrap()).unwrap()
}

fn record(locator: &Locator, pod: &ScratchPod) -> Record {
    Record {
        uid: PodUid("u1".into()),
        name: PodName { namespace: "shop".into(), name: "web".into() },
        container_id: "c1".into(),
        ifname: "eth0".into(),
        network: None,
        path: Some(pod.path()),
        netns: StoredId::new(pod.netns().id(), locator.boot()),
        ips: vec![pod.ip],
    }
}

#[tokio::test]
async fn a_pod_is_found_again_by_its_path() {
    let (locator, pod) = (locator(), ScratchPod::new());
    let found = locator.open(&record(&locator, &pod)).await.unwrap();
    assert_eq!(found.id(), pod.netns().id());
}

#[tokio::test]
async fn a_path_that_leads_elsewhere_is_not_believed() {
    let (locator, pod, other) = (locator(), ScratchPod::new(), ScratchPod::new());
    let mut moved = record(&locator, &pod);
    moved.path = Some(other.path());
    assert!(matches!(locator.open(&moved).await, Err(LocateError::OtherNetns { .. })));

    let mut gone = record(&locator, &pod);
    gone.path = Some(PathBuf::from("/nonexistent/netns"));
    assert!(matches!(locator.open(&gone).await, Err(LocateError::Netns(_))));

    let mut rebooted = record(&locator, &pod);
    rebooted.netns.boot = "another".into();
    assert!(matches!(locator.open(&rebooted).await, Err(LocateError::OtherBoot)));

    let mut silent = record(&locator, &pod);
    silent.path = None;
    assert!(matches!(locator.open(&silent).await, Err(LocateError::NoPath)));
}

#[tokio::test]
async fn a_namespace_without_the_pods_address_is_not_believed() {
    let (locator, pod) = (locator(), ScratchPod::new());
    let mut moved = record(&locator, &pod);
    moved.ips = vec!["10.9.0.6".parse().unwrap()];
    assert!(matches!(locator.open(&moved).await, Err(LocateError::NoAddress(_))));
    moved.ips.push(pod.ip);
    assert!(locator.open(&moved).await.is_ok(), "one of its addresses is enough later");
    let at_start = locator.check(&pod.netns(), &moved.ips).await;
    assert!(matches!(at_start, Err(LocateError::NoAddress(_))), "all are needed at ADD");
}

#[tokio::test]
async fn the_nodes_own_namespace_is_never_a_pods() {
    let own = PodNetns::current().unwrap();
    let refused = locator().check(&own, &["127.0.0.1".parse().unwrap()]).await;
    assert!(matches!(refused, Err(LocateError::OwnNetns)));
}

fn sample() -> Record {
    Record {
        uid: PodUid("u1".into()),
        name: PodName { namespace: "shop".into(), name: "web".into() },
        container_id: "c1".into(),
        ifname: "eth0".into(),
        network: None,
        path: None,
        netns: StoredId { dev: 4, ino: 1, cookie: Some(7), boot: "b".into() },
        ips: vec!["10.9.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
    }
}

async fn reopened(path: &Path) -> Vec<Record> {
    Store::open(path).await.unwrap().all().await
}

#[tokio::test]
async fn what_was_told_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pods.json");
    let store = Store::open(&path).await.unwrap();
    store.remember(sample()).await.unwrap();
    assert_eq!(reopened(&path).await, [sample()]);

    assert_eq!(store.find("c1", "eth0").await, Some(sample()));
    assert_eq!(store.find("c1", "net1").await, None);
    store.forget(&sample().uid, "another sandbox").await.unwrap();
    assert_eq!(reopened(&path).await, [sample()], "ends with its own sandbox only");
    store.forget(&sample().uid, "c1").await.unwrap();
    store.forget(&sample().uid, "c1").await.unwrap();
    assert_eq!(reopened(&path).await, []);
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside() {
    let damages = ["garbage", "", "{\"version\":1}", "{\"version\":99,\"pods\":[]}", "[1,2]"];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.json");
        std::fs::write(&path, damage).unwrap();
        let store = Store::open(&path).await.unwrap();
        assert!(store.all().await.is_empty(), "{damage:?}");
        let aside = std::fs::read_to_string(folder.path().join("pods.json.damaged")).unwrap();
        assert_eq!(aside, damage, "nothing is lost");
        store.remember(sample()).await.unwrap();
        assert_eq!(reopened(&path).await, [sample()]);
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_written_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("gone/pods.json")).await.unwrap();
    let error = store.remember(sample()).await.unwrap_err();
    assert!(error.to_string().contains("gone/pods.json"), "{error}");
    assert!(store.all().await.is_empty());
}
