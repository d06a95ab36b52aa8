use crate::testing::{FakeRuntime, Manner};

use super::*;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn runtime(&self) -> Runtime {
        Runtime::new(&[self.socket("first.sock"), self.socket("second.sock")]).unwrap()
    }
}

fn uid() -> PodUid {
    PodUid("u1".into())
}

fn sandbox(id: &str, path: &str) -> Sandbox {
    Sandbox { id: id.into(), place: Place::Path(path.into()) }
}

#[tokio::test]
async fn the_newest_sandbox_of_the_pod_that_runs_is_the_one() {
    let world = World::new();
    let fake = FakeRuntime::at(&world.socket("first.sock"));
    fake.run("u1", "old", 1, Path::new("/old"));
    fake.run("u1", "new", 3, Path::new("/new"));
    fake.run("u1", "middle", 2, Path::new("/middle"));
    fake.add("u1", "ended", 1 - READY, 4, "{}");
    fake.run("u2", "another's", 5, Path::new("/another"));
    let runtime = world.runtime();
    for manner in [Manner::Answers, Manner::NamesAll] {
        fake.behave(manner);
        assert_eq!(runtime.sandbox(&uid()).await.unwrap(), sandbox("new", "/new"), "{manner:?}");
    }
}

#[tokio::test]
async fn a_pod_without_a_sandbox_that_runs_is_told_from_an_unknown_one() {
    let world = World::new();
    let fake = FakeRuntime::at(&world.socket("first.sock"));
    let runtime = world.runtime();
    assert!(matches!(runtime.sandbox(&uid()).await, Err(RuntimeError::NoSandbox(_))));
    fake.add("u1", "ended", 1 - READY, 4, "{}");
    assert!(matches!(runtime.sandbox(&uid()).await, Err(RuntimeError::NotReady(_))));
}

#[tokio::test]
async fn words_that_cannot_be_read_are_an_error_of_this_pod() {
    let world = World::new();
    let fake = FakeRuntime::at(&world.socket("first.sock"));
    fake.add("u1", "odd", READY, 1, "}{");
    let runtime = world.runtime();
    let odd = runtime.sandbox(&uid()).await;
    assert!(matches!(odd, Err(RuntimeError::Info(InfoError::NotJson))), "{odd:?}");
    assert!(!runtime.lost.load(Ordering::Relaxed), "the runtime itself is well");
}

#[tokio::test]
async fn every_socket_is_asked_until_one_knows_the_pod() {
    let world = World::new();
    let runtime = world.runtime();
    assert!(matches!(runtime.sandbox(&uid()).await, Err(RuntimeError::Absent)));
    assert!(runtime.lost.load(Ordering::Relaxed));

    let first = FakeRuntime::at(&world.socket("first.sock"));
    first.behave(Manner::Refuses);
    let refused = runtime.sandbox(&uid()).await;
    assert!(matches!(refused, Err(RuntimeError::Call { .. })), "{refused:?}");

    let second = FakeRuntime::at(&world.socket("second.sock"));
    second.run("u1", "c1", 1, Path::new("/netns"));
    assert_eq!(runtime.sandbox(&uid()).await.unwrap(), sandbox("c1", "/netns"));
    assert!(!runtime.lost.load(Ordering::Relaxed), "the next loss is told again");
}

#[tokio::test]
async fn a_runtime_that_was_restarted_is_asked_again() {
    let world = World::new();
    let fake = FakeRuntime::at(&world.socket("first.sock"));
    fake.run("u1", "c1", 1, Path::new("/netns"));
    let runtime = world.runtime();
    runtime.sandbox(&uid()).await.unwrap();
    drop(fake);
    assert!(runtime.sandbox(&uid()).await.is_err());
    let fake = FakeRuntime::at(&world.socket("first.sock"));
    fake.run("u1", "c1", 1, Path::new("/netns"));
    crate::testing::eventually("it answers", || async { runtime.sandbox(&uid()).await.is_ok() })
        .await;
}

#[tokio::test]
async fn a_runtime_that_hangs_costs_one_deadline_not_one_for_every_pod() {
    let world = World::new();
    let fake = FakeRuntime::at(&world.socket("first.sock"));
    fake.behave(Manner::Hangs);
    let runtime = world.runtime();
    for _ in 0..100 {
        let silent = runtime.sandbox(&uid()).await;
        assert!(matches!(silent, Err(RuntimeError::Silent(_))), "{silent:?}");
    }
    assert_eq!(fake.asked(), 1);
}
