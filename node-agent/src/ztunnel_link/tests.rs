use std::os::unix::fs::PermissionsExt;

use tokio_util::sync::CancellationToken;
use zds::link::Link;

use super::*;
use crate::testing::{FakeZtunnel, PATIENCE, eventually};

fn uid(name: &str) -> PodUid {
    PodUid(name.into())
}

fn workload() -> Workload {
    let info = zds::WorkloadInfo {
        name: "web".into(),
        namespace: "shop".into(),
        service_account: "clerk".into(),
    };
    Workload { info, lookups: Lookups::Direct }
}

fn netns() -> PodNetns {
    PodNetns::current().unwrap()
}

fn link() -> ZtunnelLink {
    ZtunnelLink::new(Metrics::default(), Opener::new(netns::Fence::new(1).unwrap()))
}

/// A ztunnel at the other end of a socket pair.
fn connect(link: &ZtunnelLink, refuse: Option<&str>) -> FakeZtunnel {
    let (ours, theirs) = Link::pair().unwrap();
    tokio::spawn(server::converse(ours, link.clone(), CancellationToken::new()));
    FakeZtunnel::start(theirs, refuse)
}

async fn live(link: &ZtunnelLink) {
    let mut changes = link.changes();
    let live = async { drop(changes.wait_for(|_| link.is_live()).await) };
    tokio::time::timeout(PATIENCE, live).await.expect("the snapshot is taken");
}

#[tokio::test]
async fn a_ztunnel_gets_the_whole_picture_and_then_what_comes() {
    let link = link();
    link.restore(&uid("a"), workload(), Some(netns()));
    link.restore(&uid("b"), workload(), None);
    let ztunnel = connect(&link, None);
    live(&link).await;
    assert_eq!(ztunnel.lines(), ["add a", "keep b", "snapshot"]);
    assert_eq!(link.ack(&uid("a")), Ack::Serving);

    link.add(&uid("c"), workload(), netns()).await.unwrap();
    link.del(&uid("a")).await.unwrap();
    assert_eq!(ztunnel.lines()[3..], ["add c", "del a"]);
    assert_eq!(link.ack(&uid("a")), Ack::Unknown);
    assert!(ztunnel.serves("c") && !ztunnel.serves("a"));
}

#[tokio::test]
async fn without_a_ztunnel_nothing_is_captured() {
    let refused = link().add(&uid("a"), workload(), netns()).await;
    assert!(matches!(refused, Err(LinkError::NoZtunnel)));
    assert!(link().del(&uid("a")).await.is_ok());
}

#[tokio::test]
async fn what_ztunnel_refuses_is_an_error_of_that_pod() {
    let link = link();
    let ztunnel = connect(&link, Some("bad"));
    live(&link).await;
    let refused = link.add(&uid("bad"), workload(), netns()).await;
    assert!(matches!(refused, Err(LinkError::Refused(text)) if text == "address in use"));
    assert_eq!(link.ack(&uid("bad")), Ack::Refused("address in use".into()));
    assert!(link.take_refused().is_empty(), "the caller knows");
    link.add(&uid("good"), workload(), netns()).await.unwrap();
    assert!(ztunnel.serves("good"));
}

#[tokio::test]
async fn a_refusal_in_a_snapshot_is_told_once() {
    let link = link();
    link.restore(&uid("bad"), workload(), Some(netns()));
    let _ztunnel = connect(&link, Some("bad"));
    live(&link).await;
    assert!(link.take_refused().iter().eq([&uid("bad")]));
    assert!(link.take_refused().is_empty());
}

/// Its names do not fit a packet.
fn boundless() -> Workload {
    let Workload { info, lookups } = workload();
    let service_account = "x".repeat(zds::MAX_MESSAGE);
    Workload { info: zds::WorkloadInfo { service_account, ..info }, lookups }
}

fn untold(link: &Metrics) -> String {
    let (mut registry, mut text) = (Registry::default(), String::new());
    link.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().filter(|line| line.starts_with("sluice_agent_pods_untold_total")).collect()
}

#[tokio::test]
async fn a_pod_that_a_ztunnel_cannot_be_told_about_counts_as_refused() {
    let (metrics, opener) = (Metrics::default(), Opener::new(netns::Fence::new(1).unwrap()));
    let link = ZtunnelLink::new(metrics.clone(), opener);
    link.restore(&uid("good"), workload(), Some(netns()));
    link.restore(&uid("bad"), boundless(), Some(netns()));
    let old = connect(&link, None);
    live(&link).await;
    assert_eq!(old.lines(), ["add good", "snapshot"]);
    let Ack::Refused(reason) = link.ack(&uid("bad")) else { panic!("nobody was told") };
    assert!(reason.contains("exceeds 1024"), "{reason}");
    assert!(link.take_refused().iter().eq([&uid("bad")]), "its task looks at it");
    assert_eq!(untold(&metrics), "sluice_agent_pods_untold_total{pod=\"shop/web\"} 1");

    // The same where one takes over from a newer one that has gone.
    let new = connect(&link, None);
    eventually("it has the snapshot", || async { new.lines().len() == 2 }).await;
    drop(new);
    eventually("the old one is the newest again", || async { untold(&metrics).ends_with(" 3") })
        .await;
    assert!(matches!(link.ack(&uid("bad")), Ack::Refused(_)));

    link.del(&uid("bad")).await.unwrap();
    assert_eq!(untold(&metrics), "", "gone with its pod");
}

#[tokio::test]
async fn new_pods_go_to_the_newest_ends_go_to_all() {
    let link = link();
    let old = connect(&link, None);
    live(&link).await;
    link.add(&uid("a"), workload(), netns()).await.unwrap();
    let new = connect(&link, None);
    eventually("the new one has the snapshot", || async {
        new.lines() == ["add a", "snapshot"] && link.is_live()
    })
    .await;
    link.add(&uid("b"), workload(), netns()).await.unwrap();
    assert!(new.serves("b") && !old.serves("b"));
    link.del(&uid("a")).await.unwrap();
    assert!(!new.serves("a") && !old.serves("a"));

    // It dies before the old one has gone: nobody may be left without a ztunnel.
    drop(new);
    eventually("the old one is told", || async { old.serves("b") }).await;
    eventually("and has answered", || async { link.ack(&uid("b")) == Ack::Serving }).await;
}

#[tokio::test]
async fn one_ztunnel_that_refuses_an_end_does_not_keep_another_serving() {
    let link = link();
    let (ours, old) = Link::pair().unwrap();
    tokio::spawn(server::converse(ours, link.clone(), CancellationToken::new()));
    old.send(b"\x08\x01", &[]).await.unwrap();
    old.recv().await.unwrap().expect("the snapshot's end");
    old.send(b"\x0a\x00", &[]).await.unwrap();
    live(&link).await;
    let new = connect(&link, None);
    eventually("the new one has the snapshot", || async { new.lines() == ["snapshot"] }).await;
    link.add(&uid("a"), workload(), netns()).await.unwrap();
    assert!(new.serves("a"));
    let refusing = async {
        old.recv().await.unwrap().expect("the end of the pod");
        old.send(b"\x0a\x04\x0a\x02no", &[]).await.unwrap();
    };
    let pod = uid("a");
    let (ended, ()) = tokio::join!(link.del(&pod), refusing);
    assert!(matches!(ended, Err(LinkError::Refused(text)) if text == "no"));
    assert!(!new.serves("a"), "it was told all the same");
}

#[tokio::test]
async fn a_ztunnel_that_is_gone_serves_nobody() {
    let link = link();
    let ztunnel = connect(&link, None);
    live(&link).await;
    link.add(&uid("a"), workload(), netns()).await.unwrap();
    drop(ztunnel);
    eventually("it is noticed", || async { link.ack(&uid("a")) == Ack::Unknown }).await;
    assert!(!link.is_live());
    let again = connect(&link, None);
    live(&link).await;
    assert_eq!(again.lines(), ["add a", "snapshot"]);
}

#[tokio::test]
async fn a_ztunnel_that_says_nothing_is_cut_off() {
    let (ours, theirs) = Link::pair().unwrap();
    let session = tokio::spawn(server::converse(ours, link(), CancellationToken::new()));
    assert!(theirs.recv().await.unwrap().is_none());
    session.await.unwrap();
}

#[tokio::test]
async fn a_ztunnel_that_does_not_answer_is_cut_off_and_its_orders_fail() {
    let link = link();
    let (ours, theirs) = Link::pair().unwrap();
    tokio::spawn(server::converse(ours, link.clone(), CancellationToken::new()));
    theirs.send(b"\x08\x01", &[]).await.unwrap();
    theirs.recv().await.unwrap().expect("the snapshot's end");
    theirs.send(b"\x0a\x00", &[]).await.unwrap();
    live(&link).await;
    let failed = link.add(&uid("a"), workload(), netns()).await;
    assert!(matches!(failed, Err(LinkError::Lost)), "{failed:?}");
    assert_eq!(link.ack(&uid("a")), Ack::Unknown);
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_the_session() {
    let link = link();
    let (ours, theirs) = Link::pair().unwrap();
    let session = tokio::spawn(server::converse(ours, link.clone(), CancellationToken::new()));
    theirs.send(b"\x08\x01", &[]).await.unwrap();
    theirs.recv().await.unwrap().expect("the snapshot's end");
    theirs.send(b"\x0a\x00", &[]).await.unwrap();
    live(&link).await;
    theirs.send(b"\x0a\x00", &[]).await.unwrap();
    tokio::time::timeout(PATIENCE, session).await.expect("cut off").unwrap();
    assert!(!link.is_live());
}

#[tokio::test]
async fn the_socket_is_roots_and_takes_the_place_of_a_stale_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("z/ztunnel.sock");
    drop(Server::bind(&path).unwrap());
    assert!(path.exists(), "a killed agent leaves its socket behind");
    let server = Server::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let (link, stop) = (link(), CancellationToken::new());
    let running = tokio::spawn(server.run(link.clone(), stop.clone()));
    let ztunnel = FakeZtunnel::connect(&path, None).await;
    live(&link).await;
    assert_eq!(ztunnel.lines(), ["snapshot"]);
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("stops").unwrap();
}

#[tokio::test]
async fn a_file_at_the_sockets_place_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    assert!(matches!(Server::bind(&path), Err(ServerError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[tokio::test]
async fn a_ztunnel_that_is_the_newest_again_learns_of_any_number_of_pods() {
    const PODS: usize = 1500;
    let link = link();
    let old = connect(&link, None);
    live(&link).await;
    let new = connect(&link, None);
    eventually("the new one has the snapshot", || async { new.lines() == ["snapshot"] }).await;
    for pod in 0..PODS {
        link.restore(&uid(&format!("pod-{pod}")), workload(), Some(netns()));
    }
    drop(new);
    eventually("the old one is told of every pod", || async {
        old.told.lock().unwrap().serves.len() == PODS
    })
    .await;
    eventually("and its answers are known", || async {
        (0..PODS).all(|pod| link.ack(&uid(&format!("pod-{pod}"))) == Ack::Serving)
    })
    .await;
}

#[tokio::test]
async fn a_connection_whose_task_dies_is_not_the_newest_any_more() {
    let link = link();
    let old = connect(&link, None);
    live(&link).await;
    let (ours, theirs) = Link::pair().unwrap();
    let session = tokio::spawn(server::converse(ours, link.clone(), CancellationToken::new()));
    let new = FakeZtunnel::start(theirs, None);
    eventually("the new one has the snapshot", || async { new.lines() == ["snapshot"] }).await;
    link.add(&uid("a"), workload(), netns()).await.unwrap();
    assert!(new.serves("a"));
    // As a panic would: everything of the task is dropped where it stands.
    session.abort();
    assert!(session.await.unwrap_err().is_cancelled());
    eventually("the old one takes over", || async { old.serves("a") }).await;
    eventually("and has answered", || async { link.ack(&uid("a")) == Ack::Serving }).await;
    link.add(&uid("b"), workload(), netns()).await.unwrap();
    assert!(old.serves("b"));
}
