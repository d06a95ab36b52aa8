use super::*;
use crate::reconcile::pod::{Attachment, captured_annotations};
use crate::testing::{options, pod};

const SKIP: Enrollment = Enrollment::Skip(Reason::NotLabelled);

fn wanted() -> Enrollment {
    Enrollment::Capture(options())
}

/// Other rules than those in place.
fn others() -> Options {
    Options { in_skip: [8080.into()].into(), ..options() }
}

/// A pod in `state` that tells its peers what belongs to the state.
fn in_state(state: State) -> Pod {
    let mut facts = pod("web");
    if state == State::Captured {
        facts.annotations = captured_annotations();
    }
    let inside = !matches!(state, State::Unknown | State::Outside);
    Pod {
        facts: Some(facts),
        attachment: Some(Attachment { container_id: "c1".into(), ips: vec![] }),
        state,
        applied: inside.then(options),
        ..Pod::new()
    }
}

fn with(state: State, change: impl FnOnce(&mut Pod)) -> Pod {
    let mut pod = in_state(state);
    change(&mut pod);
    pod
}

fn facts(pod: &mut Pod) -> &mut crate::facts::PodFacts {
    pod.facts.as_mut().unwrap()
}

type Case = (&'static str, Pod, Enrollment, Ack, Action);

fn in_and_out() -> Vec<Case> {
    use State::{Captured, Drained, Draining, Outside, PeersKnow, Unknown, Withdrawn};
    let (capture, repair) = (Action::Capture(options()), Action::Repair(options()));
    let case = |name, state, wanted, action| (name, in_state(state), wanted, Ack::Serving, action);
    vec![
        case("nobody has looked", Unknown, wanted(), Action::Look),
        case("nobody has looked, unwanted", Unknown, SKIP, Action::Look),
        case("labelled", Outside, wanted(), capture),
        case("not labelled", Outside, SKIP, Action::Idle),
        case("captured and well", Captured, wanted(), Action::Idle),
        case("un-labelled", Captured, SKIP, Action::Withdraw),
        case("peers are told first", Withdrawn, SKIP, Action::AwaitPeers),
        case("then un-redirect", PeersKnow, SKIP, Action::Drain(options())),
        case("then drain", Draining, SKIP, Action::AwaitDrained),
        case("then delete", Drained, SKIP, Action::Remove),
        case("re-labelled at once", Withdrawn, wanted(), repair.clone()),
        case("re-labelled later", PeersKnow, wanted(), repair.clone()),
        case("re-labelled while draining", Draining, wanted(), repair.clone()),
        case("re-labelled at the last moment", Drained, wanted(), repair),
    ]
}

fn captured_and(
    name: &'static str,
    change: fn(&mut Pod),
    wanted: Enrollment,
    plan: Action,
) -> Case {
    (name, with(State::Captured, change), wanted, Ack::Serving, plan)
}

fn same(_: &mut Pod) {}

fn older_due(pod: &mut Pod) {
    pod.older_due = true;
}

fn rules_unknown(pod: &mut Pod) {
    pod.applied = None;
}

fn rules_unknown_and_leaving(pod: &mut Pod) {
    rules_unknown(pod);
    leaving(pod);
}

fn due(pod: &mut Pod) {
    pod.due = true;
}

fn silent(pod: &mut Pod) {
    facts(pod).annotations = Annotations::default();
}

fn claims(pod: &mut Pod) {
    facts(pod).annotations = captured_annotations();
}

fn overtaken(pod: &mut Pod) {
    pod.overtaken = vec!["a rule".into()];
}

fn leaving(pod: &mut Pod) {
    facts(pod).terminating = true;
}

fn captured_pods() -> Vec<Case> {
    let (verify, others_wanted) = (Action::Verify(options()), Enrollment::Capture(others()));
    let annotate = Action::Annotate(captured_annotations());
    let text = "impaired: a rule of somebody else comes before ours and may lead answers past \
                ztunnel";
    let impaired = Annotations { redirection: true, observed: Some(text.into()) };
    let silent_and_due: fn(&mut Pod) = |pod| (silent(pod), due(pod)).1;
    vec![
        captured_and("time to look", due, wanted(), verify.clone()),
        captured_and(
            "other rules, older ones due",
            older_due,
            others_wanted.clone(),
            Action::Repair(others()),
        ),
        captured_and(
            "older connections' time is over",
            older_due,
            wanted(),
            Action::EndOlder(options()),
        ),
        captured_and("their time is over while it leaves", older_due, SKIP, Action::Withdraw),
        captured_and("un-labelled, time to look", due, SKIP, verify.clone()),
        captured_and("other rules", same, others_wanted, Action::Repair(others())),
        captured_and("told peers nothing yet", silent, wanted(), annotate),
        captured_and("overtaken", overtaken, wanted(), Action::Annotate(impaired)),
        captured_and("looks before it tells", silent_and_due, wanted(), verify),
        captured_and("being deleted", leaving, wanted(), Action::Idle),
        captured_and("being deleted, un-labelled", leaving, SKIP, Action::Idle),
    ]
}

fn captured_pods_and_gaps() -> Vec<Case> {
    let skip = Enrollment::Skip;
    let typo = || skip(Reason::BadLabel { of: "pod", value: "x".into() });
    let unseen = skip(Reason::NamespaceUnknown);
    vec![
        captured_and("label mistyped", same, typo(), Action::Idle),
        captured_and("mistyped, time to look", due, typo(), Action::Verify(options())),
        captured_and("mistyped, rules unknown", rules_unknown, typo(), verify()),
        captured_and("being deleted, rules unknown", rules_unknown_and_leaving, SKIP, verify()),
        captured_and("namespace out of view", same, unseen, Action::Idle),
        captured_and("address gone", same, skip(Reason::NoAddress), Action::Idle),
        captured_and("containers ended", same, skip(Reason::Ended), Action::Forget),
    ]
}

fn verify() -> Action {
    Action::Verify(options())
}

fn captured_pods_and_ztunnel() -> Vec<Case> {
    let well = || in_state(State::Captured);
    let refused = Ack::Refused("no".into());
    let repair = Action::Repair(options());
    let unknown_rules = with(State::Captured, |pod| pod.applied = None);
    vec![
        ("refused by ztunnel", well(), wanted(), refused.clone(), repair),
        ("refused, but rules first", with(State::Captured, due), wanted(), refused, verify()),
        ("rules unknown", unknown_rules, wanted(), Ack::Unknown, verify()),
        ("its snapshot will tell", well(), wanted(), Ack::Unknown, Action::Idle),
    ]
}

fn other_and(name: &'static str, pod: Pod, wanted: Enrollment, plan: Action) -> Case {
    (name, pod, wanted, Ack::Unknown, plan)
}

fn other_pods() -> Vec<Case> {
    use State::{Captured, Outside, PeersKnow, Unknown};
    let (ended, unseen) = (Reason::Ended, Enrollment::Skip(Reason::NamespaceUnknown));
    let ended = || Enrollment::Skip(ended.clone());
    let untold = || with(Unknown, |pod| pod.attachment = None);
    let gone = |state| with(state, |pod| pod.ending = true);
    let claiming = || with(Outside, claims);
    let unknown_rules = with(PeersKnow, |pod| pod.applied = None);
    let clear = Action::Annotate(Annotations::default());
    vec![
        other_and("started unseen", untold(), wanted(), Action::Look),
        other_and("started unseen, unwanted", untold(), SKIP, Action::Idle),
        other_and("gone while captured", gone(Captured), wanted(), Action::Forget),
        other_and("gone, never captured", gone(Outside), SKIP, Action::Forget),
        other_and("ended, never captured", in_state(Outside), ended(), Action::Idle),
        other_and("ended, nobody looked", in_state(Unknown), ended(), Action::Forget),
        other_and("claims to be captured", claiming(), SKIP, clear),
        other_and("claims it, unseen", claiming(), unseen, Action::Idle),
        other_and("leaves, rules unknown", unknown_rules, SKIP, Action::Remove),
    ]
}

#[test]
fn the_table() {
    let captured = captured_pods().into_iter().chain(captured_pods_and_gaps());
    let captured = captured.chain(captured_pods_and_ztunnel());
    for (name, pod, wanted, ack, expected) in
        in_and_out().into_iter().chain(captured).chain(other_pods())
    {
        assert_eq!(plan(&pod, &wanted, &options(), &ack), expected, "{name}");
    }
}
