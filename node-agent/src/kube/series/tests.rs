use super::*;

fn topic(pod: &str, message: &str) -> Topic {
    Topic {
        uid: PodUid(format!("uid-{pod}")),
        pod: PodName { namespace: "shop".into(), name: pod.into() },
        reason: EventReason::Drifted,
        message: message.into(),
    }
}

/// A story of what is told and written, second by second.
struct Story {
    book: Book,
    now: Moment,
}

impl Story {
    fn new() -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Self { book: Book::default(), now: Moment { since: Duration::ZERO, wall } }
    }

    fn passes(&mut self, time: Duration) {
        self.now.since += time;
        self.now.wall += time;
    }

    fn tell(&mut self, pod: &str, message: &str) {
        self.book.note(topic(pod, message), self.now);
    }

    /// Writes what is due; what was created, what was counted.
    fn write(&mut self) -> Vec<(Kind, u32)> {
        let mut done = Vec::new();
        while let Next::Write(write) = self.book.next(self.now.since) {
            self.book.written(&write);
            done.push((write.kind, write.count));
        }
        done
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_told_again_is_counted_in_the_first_event() {
    let mut story = Story::new();
    story.tell("web", "repaired");
    assert_eq!(story.write(), [(Kind::Create, 1)]);
    for _ in 0..29 {
        story.passes(SECOND);
        story.tell("web", "repaired");
        assert_eq!(story.write(), [], "not each of them");
    }
    assert_eq!(story.book.next(story.now.since), Next::Wait(SECOND));
    story.passes(SECOND);
    assert_eq!(story.write(), [(Kind::Count, 30)]);
    assert_eq!(story.book.next(story.now.since), Next::Idle);
}

#[test]
fn after_a_while_it_is_news_again() {
    let mut story = Story::new();
    story.tell("web", "repaired");
    story.write();
    story.passes(WINDOW);
    story.tell("web", "repaired");
    assert_eq!(story.write(), [(Kind::Create, 1)]);
}

#[test]
fn other_pods_and_other_words_are_other_events() {
    let mut story = Story::new();
    for (pod, message) in [("web", "a"), ("web", "b"), ("db", "a")] {
        story.tell(pod, message);
    }
    assert_eq!(story.write(), [(Kind::Create, 1); 3]);
}

#[test]
fn one_pod_that_says_ever_new_things_is_slowed_down_alone() {
    let mut story = Story::new();
    for number in 0..1000 {
        story.tell("noisy", &format!("number {number}"));
    }
    story.tell("web", "repaired");
    let first = story.write();
    assert_eq!(first.len(), usize::try_from(POD.most).unwrap() + 1);
    let mut written = 0;
    for _ in 0..300 {
        story.passes(SECOND);
        written += story.write().len();
    }
    assert_eq!(written, 10, "one in thirty seconds");
}

#[test]
fn the_node_is_bounded_whatever_its_pods_do() {
    let mut story = Story::new();
    for pod in 0..1000 {
        story.tell(&format!("web-{pod}"), "captured");
    }
    assert_eq!(story.write().len(), usize::try_from(NODE.most).unwrap());
    story.passes(SECOND);
    assert_eq!(story.write().len(), 10);
    // Nothing is lost, only later.
    let mut written = 310;
    for _ in 0..100 {
        story.passes(SECOND);
        written += story.write().len();
    }
    assert_eq!((written, story.book.take_dropped()), (1000, 0));
}

#[test]
fn memory_is_bounded_and_what_is_given_up_is_counted() {
    let mut story = Story::new();
    for number in 0..MOST + 100 {
        story.tell("noisy", &format!("number {number}"));
    }
    assert_eq!((story.book.series.len(), story.book.by_topic.len()), (MOST, MOST));
    assert_eq!(story.book.take_dropped(), 100);
    story.passes(WINDOW);
    assert_eq!(story.write(), []);
    let empty = (story.book.series.len(), story.book.by_topic.len(), story.book.pods.len());
    assert_eq!(empty, (0, 0, 0), "nothing is kept for ever");
    assert_eq!(story.book.take_dropped(), u64::try_from(MOST).unwrap());
}

#[test]
fn an_event_that_has_vanished_is_written_anew() {
    let mut story = Story::new();
    story.tell("web", "repaired");
    story.write();
    story.passes(REPEAT_PAUSE);
    story.tell("web", "repaired");
    story.tell("web", "repaired");
    let Next::Write(write) = story.book.next(story.now.since) else { panic!("it is due") };
    assert_eq!((write.kind, write.count), (Kind::Count, 3));
    story.book.vanished(&write);
    let Next::Write(again) = story.book.next(story.now.since) else { panic!("it is due") };
    assert_eq!((again.kind, again.count), (Kind::Create, 2));
    assert_ne!(again.name, write.name);
}

#[test]
fn one_that_could_not_be_written_stays_due() {
    let mut story = Story::new();
    story.tell("web", "repaired");
    let Next::Write(write) = story.book.next(story.now.since) else { panic!("it is due") };
    story.book.postponed(&write);
    for _ in 0..100 {
        let Next::Write(write) = story.book.next(story.now.since) else { panic!("it is due") };
        story.book.postponed(&write);
    }
    assert_eq!(story.write(), [(Kind::Create, 1)], "trying has cost nothing");
    story.tell("db", "repaired");
    let Next::Write(write) = story.book.next(story.now.since) else { panic!("it is due") };
    story.book.refused(&write);
    assert_eq!(story.book.next(story.now.since), Next::Idle);
    assert_eq!(story.book.take_dropped(), 1);
}

#[test]
fn names_are_names_whatever_the_pods_are() {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(0x1234);
    assert_eq!(name("web", wall, 10), "web.1234a");
    let long = format!("{}-{}", "x".repeat(LONGEST_POD - 1), "y".repeat(33));
    let name = name(&long, SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 34), u64::MAX);
    assert!(name.len() <= 253 && !name.contains("-."), "{name}");
}
