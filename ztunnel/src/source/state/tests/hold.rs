//! Mass removals, path by path.

use super::*;

/// Names of `count` workloads, from `first` on.
fn many(first: usize, count: usize) -> Vec<String> {
    (first..first + count).map(|i| format!("Kubernetes//Pod/shop/w{i}")).collect()
}

fn many_workloads(count: usize) -> Vec<Resource> {
    let ip = |i: usize| [10, 1, (i / 250) as u8, (i % 250) as u8];
    (0..count).map(|i| workload(&format!("w{i}"), "1", ip(i))).collect()
}

fn removal(names: &[String]) -> DeltaDiscoveryResponse {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    response(ADDRESS_TYPE, vec![], &names)
}

/// A state of that many workloads, in the middle of a stream.
fn large(count: usize) -> State {
    let mut state = everything();
    state.hear(addresses(many_workloads(count)));
    assert_eq!(uids(&state).len(), count);
    state
}

fn withheld(state: &State) -> usize {
    state.counts().map(|(_, count)| count.withheld).sum()
}

#[test]
fn half_of_a_large_state_and_all_of_a_small_one_go_at_once() {
    let mut state = large(200);
    state.hear(removal(&many(0, 100)));
    assert_eq!((uids(&state).len(), withheld(&state)), (100, 0));
    let mut state = large(99);
    state.hear(removal(&many(0, 99)));
    assert_eq!((uids(&state).len(), withheld(&state)), (0, 0));
}

#[test]
fn more_than_half_of_a_large_state_stays_in_use_and_the_rest_of_the_response_applies() {
    let mut state = large(200);
    let mut response = removal(&many(0, 101));
    response.resources = vec![workload("new", "1", [10, 2, 0, 1])];
    let outcome = state.hear(response);
    assert_eq!((outcome.withheld, withheld(&state)), (101, 101));
    assert_eq!(uids(&state).len(), 201);
    let detail = outcome.reply.error_detail.expect("the control plane is told").message;
    assert!(detail.contains("removal of 101 resources"), "{detail}");
    assert_eq!(state.claims().len(), 201, "and asked about all of them after a reconnect");
}

#[test]
fn removals_of_a_held_removal_cannot_be_split_to_slip_through() {
    let mut state = large(200);
    state.hear(removal(&many(0, 101)));
    state.hear(removal(&many(101, 99)));
    assert_eq!((uids(&state).len(), withheld(&state)), (200, 200));
}

#[test]
fn what_is_sent_again_is_no_longer_doubted() {
    let mut state = large(200);
    state.hear(removal(&many(0, 200)));
    assert!(state.ask_again_at().is_some());
    let outcome = state.hear(addresses(many_workloads(200)));
    assert!(outcome.reply.error_detail.is_none());
    assert_eq!((uids(&state).len(), withheld(&state)), (200, 0));
    assert!(state.ask_again_at().is_none());
}

#[test]
fn a_reconnect_whose_answer_does_not_repeat_the_removal_settles_it() {
    let mut state = large(200);
    state.hear(removal(&many(0, 200)));
    assert_eq!(state.claims().len(), 200);
    assert!(state.ask_again_at().is_none(), "it is being asked already");
    state.hear(addresses(vec![]));
    assert_eq!((uids(&state).len(), withheld(&state)), (200, 0));
}

#[test]
fn a_removal_that_is_repeated_after_the_time_is_believed() {
    let begin = Instant::now();
    let mut state = large(200);
    state.hear_at(&removal(&many(0, 200)), begin);
    assert_eq!(state.ask_again_at(), Some(begin + HOLD));
    // Repeated too early: the time runs on from the first.
    state.opening(Node::default(), &[]);
    state.hear_at(&removal(&many(0, 200)), begin + HOLD / 2);
    assert_eq!((uids(&state).len(), state.ask_again_at()), (200, Some(begin + HOLD)));
    state.opening(Node::default(), &[]);
    let outcome = state.hear_at(&removal(&many(0, 200)), begin + HOLD);
    assert!(outcome.changed && outcome.reply.error_detail.is_none());
    assert_eq!((uids(&state).len(), withheld(&state)), (0, 0));
    assert!(state.ask_again_at().is_none());
}

#[test]
fn a_large_removal_that_comes_with_a_confirmed_one_is_doubted_in_its_turn() {
    let begin = Instant::now();
    let mut state = large(300);
    state.hear_at(&removal(&many(0, 160)), begin);
    state.opening(Node::default(), &[]);
    state.hear_at(&removal(&many(0, 300)), begin + HOLD);
    assert_eq!((uids(&state).len(), withheld(&state)), (140, 140));
    assert_eq!(state.ask_again_at(), Some(begin + HOLD * 2));
}

#[test]
fn policies_are_held_on_their_own() {
    let mut state = large(200);
    let policies: Vec<_> = (0..100).map(|i| policy(&format!("p{i}"), "1")).collect();
    state.hear(response(AUTHORIZATION_TYPE, policies, &[]));
    let names: Vec<_> = (0..100).map(|i| format!("shop/p{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    state.hear(response(AUTHORIZATION_TYPE, vec![], &names));
    assert_eq!(state.view().policies().count(), 100);
    state.hear(removal(&many(0, 10)));
    assert_eq!((uids(&state).len(), withheld(&state)), (190, 100));
}

#[test]
fn holding_can_be_switched_off() {
    let mut state =
        State::new(Rules { mass_removal: MassRemoval::Apply, ..RULES }, View::default());
    state.hear(addresses(many_workloads(200)));
    state.hear(removal(&many(0, 200)));
    assert_eq!((uids(&state).len(), withheld(&state)), (0, 0));
}

#[test]
fn what_is_too_much_to_be_claimed_is_compared_with_what_comes() {
    let mut state = everything();
    let filler = "x".repeat(FEW_CLAIMS / 100);
    let named = |i: usize| {
        let uid = format!("{filler}{i}");
        let message = wds::Workload {
            uid: uid.clone(),
            name: format!("w{i}"),
            namespace: "shop".to_owned(),
            ..Default::default()
        };
        let address = Address { r#type: Some(address::Type::Workload(message)) };
        resource(&uid, "1", any(ADDRESS_TYPE, address.encode_to_vec()))
    };
    state.hear(addresses((0..150).map(named).collect()));
    assert_eq!(state.claims().len(), 150, "as long as nobody refuses it");
    state.claim_less();
    assert!(state.claims().is_empty(), "the request would be refused");
    state.hear(addresses((10..150).map(named).collect()));
    assert_eq!((uids(&state).len(), withheld(&state)), (140, 0), "ten are gone");
    state.hear(addresses(vec![]));
    assert_eq!(uids(&state).len(), 140, "only the first response of a stream is everything");

    assert!(state.claims().is_empty());
    let outcome = state.hear(addresses(vec![named(149)]));
    assert_eq!((outcome.withheld, uids(&state).len()), (139, 140), "a mass removal as well");
    assert!(state.ask_again_at().is_some());
    assert!(state.claims().is_empty());
    state.hear(addresses((10..150).map(named).collect()));
    assert_eq!((uids(&state).len(), withheld(&state)), (140, 0), "everything is back");

    assert!(state.claims().is_empty());
    let bytes = addresses((10..149).map(named).collect()).encode_to_vec();
    let mut torn = Envelope::decode(&*bytes).unwrap();
    torn.resources.push(bytes::Bytes::from_static(b"\xff"));
    let outcome = state.on(torn, Instant::now());
    assert_eq!(outcome.rejected.len(), 1);
    assert_eq!(uids(&state).len(), 140, "what cannot be read may be the one that is missing");
}
