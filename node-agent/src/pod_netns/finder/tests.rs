use super::*;
use crate::testing::{FakeRuntime, Manner, ScratchPod};

struct World {
    folder: tempfile::TempDir,
    finder: Finder,
    runtime: FakeRuntime,
    uid: PodUid,
    name: PodName,
}

impl World {
    /// A node with a runtime and no processes.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cri.sock");
        let places =
            Places { runtime_sockets: vec![socket.clone()], processes: folder.path().join("proc") };
        std::fs::create_dir(&places.processes).unwrap();
        let finder = Finder::new(Fence::new(1).unwrap(), &places).unwrap();
        let name = PodName { namespace: "shop".into(), name: "web".into() };
        let runtime = FakeRuntime::at(&socket);
        Self { folder, finder, runtime, uid: PodUid("u1".into()), name }
    }

    fn record(&self, pod: &ScratchPod) -> Record {
        Record {
            uid: self.uid.clone(),
            name: self.name.clone(),
            container_id: "told".into(),
            ifname: "eth0".into(),
            network: None,
            path: Some(pod.path()),
            netns: StoredId::new(pod.netns().id(), self.finder.locator().boot()),
            ips: vec![pod.ip],
        }
    }

    async fn find(&self, pod: &ScratchPod, known: Option<Known>) -> Result<Located, NotFound> {
        self.find_given(pod, known, None).await
    }

    async fn find_given(
        &self,
        pod: &ScratchPod,
        known: Option<Known>,
        given: Option<PodNetns>,
    ) -> Result<Located, NotFound> {
        let (uid, name, ips) = (&self.uid, Some(&self.name), &[pod.ip][..]);
        self.finder.find(Sought { uid, name, ips, known, given }).await
    }

    fn run(&self, pid: u32, pod: &ScratchPod) {
        let folder = self.folder.path().join("proc").join(pid.to_string()).join("ns");
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(pod.path(), folder.join("net")).unwrap();
    }
}

fn is(found: &Located, pod: &ScratchPod, way: Way) {
    assert_eq!((found.netns.id(), found.way), (pod.netns().id(), way));
}

#[tokio::test]
async fn the_runtime_knows_a_pod_of_which_nobody_told() {
    let (world, pod) = (World::new(), ScratchPod::new());
    world.runtime.run("u1", "c1", 1, &pod.path());
    let found = world.find(&pod, None).await.unwrap();
    is(&found, &pod, Way::Runtime);
    let expected = Record { container_id: "c1".into(), ..world.record(&pod) };
    assert_eq!(found.news.unwrap(), expected, "written down as if the plugin had told");
}

#[tokio::test]
async fn the_runtimes_process_is_a_way_in() {
    let (world, pod) = (World::new(), ScratchPod::new());
    world.run(77, &pod);
    world.runtime.add("u1", "c1", 0, 1, r#"{"pid": 77}"#);
    is(&world.find(&pod, None).await.unwrap(), &pod, Way::Runtime);
}

#[tokio::test]
async fn what_this_process_was_told_needs_no_runtime() {
    let (world, pod) = (World::new(), ScratchPod::new());
    let told = Known::Seen(world.record(&pod));
    is(&world.find(&pod, Some(told)).await.unwrap(), &pod, Way::Plugin);
    assert_eq!(world.runtime.asked(), 0);
}

#[tokio::test]
async fn a_sandbox_that_was_made_while_nobody_looked_beats_an_older_record() {
    let (world, old, new) = (World::new(), ScratchPod::new(), ScratchPod::new());
    world.runtime.run("u1", "again", 2, &new.path());
    let told = Known::Earlier(world.record(&old));
    let found = world.find(&new, Some(told)).await.unwrap();
    is(&found, &new, Way::Runtime);
    assert_eq!(found.news.unwrap().container_id, "again");
}

#[tokio::test]
async fn the_sandbox_of_the_record_is_no_news() {
    let (world, pod) = (World::new(), ScratchPod::new());
    world.runtime.run("u1", "told", 2, &pod.path());
    let told = Known::Earlier(world.record(&pod));
    let found = world.find(&pod, Some(told)).await.unwrap();
    is(&found, &pod, Way::Runtime);
    assert_eq!(found.news, None);
}

#[tokio::test]
async fn a_runtime_that_is_wrong_or_silent_leaves_the_record() {
    let (world, pod, bare) = (World::new(), ScratchPod::new(), ScratchPod::new());
    bare.run("ip address flush dev lo");
    let told = || Some(Known::Earlier(world.record(&pod)));
    for (created_at, lie) in
        [bare.path(), "/proc/self/ns/net".into(), "/etc/hostname".into(), "/nowhere".into()]
            .iter()
            .enumerate()
    {
        let created_at = i64::try_from(created_at).unwrap();
        world.runtime.run("u1", &format!("lie-{created_at}"), created_at, lie);
        is(&world.find(&pod, told()).await.unwrap(), &pod, Way::Record);
        let error = world.find(&pod, None).await.unwrap_err();
        assert!(matches!(error.runtime, Refused::NotThePods(_)), "{error}");
    }
    world.runtime.behave(Manner::Hangs);
    is(&world.find(&pod, told()).await.unwrap(), &pod, Way::Record);
}

#[tokio::test]
async fn what_ztunnel_gave_back_comes_before_processes() {
    let (world, pod, other) = (World::new(), ScratchPod::new(), ScratchPod::new());
    world.run(77, &pod);
    other.run("ip address flush dev lo");
    let found = world.find_given(&pod, None, Some(pod.netns())).await.unwrap();
    is(&found, &pod, Way::Ztunnel);
    let found = world.find_given(&pod, None, Some(other.netns())).await.unwrap();
    is(&found, &pod, Way::Processes);
}

#[tokio::test]
async fn a_pod_that_nothing_leads_to_says_what_each_way_met_with() {
    let (world, pod, gone) = (World::new(), ScratchPod::new(), ScratchPod::new());
    let mut told = world.record(&gone);
    told.path = Some("/nowhere".into());
    let error = world.find(&pod, Some(Known::Seen(told))).await.unwrap_err().to_string();
    for part in ["cri.sock has no sandbox of the pod", "/nowhere", "no process of the node"] {
        assert!(error.contains(part), "{error}");
    }
    let again = world.find(&pod, None).await.unwrap_err().to_string();
    assert!(again.contains("the plugin has not told about this pod"), "{again}");
}
