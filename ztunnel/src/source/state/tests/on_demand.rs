//! Asking for single names.

use super::*;

fn on_demand_state() -> State {
    State::new(Rules { scope: Scope::OnDemand, ..RULES }, View::default())
}

#[test]
fn on_demand_nothing_is_asked_for_as_a_whole_but_policies() {
    let mut state = on_demand_state();
    assert_eq!(state.missing(), ["policies"]);
    state.hear(addresses(vec![workload("a", "7", [10, 0, 0, 1])]));
    let requests = state.opening(Node::default(), &["/10.0.0.9".into()]);
    assert_eq!(requests[0].resource_names_subscribe, ["*", "/10.0.0.9"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["*"]);
    let versions = &requests[0].initial_resource_versions;
    assert_eq!(versions["Kubernetes//Pod/shop/a"], "7");
    assert_eq!(versions["/10.0.0.9"], "", "asked for and not received");
    assert!(requests[1].resource_names_subscribe.is_empty(), "all policies");
    assert!(requests[1].resource_names_unsubscribe.is_empty());
    assert!(state.hear(response(AUTHORIZATION_TYPE, vec![], &[])).changed && state.complete());
}

#[test]
fn on_demand_an_answer_says_which_names_it_is_about() {
    let mut state = on_demand_state();
    let mut aliased = service();
    aliased.aliases = vec!["alias".to_owned()];
    let response =
        response(ADDRESS_TYPE, vec![workload("a", "1", [10, 0, 0, 1]), aliased], &["/10.0.0.9"]);
    let mut answered = state.hear(response).answered;
    answered.sort_unstable();
    let expected =
        ["/10.0.0.1", "/10.0.0.9", "/10.96.0.1", "Kubernetes//Pod/shop/a", "alias", SERVICE];
    assert_eq!(answered, expected);
}

#[test]
fn on_demand_nothing_at_an_address_is_also_news_of_what_was_there() {
    let mut state = on_demand_state();
    state.hear(addresses(vec![workload("a", "1", [10, 0, 0, 1]), service()]));
    let outcome = state.hear(response(ADDRESS_TYPE, vec![], &["/10.0.0.1", "/10.96.0.1"]));
    assert!(outcome.changed);
    assert!(uids(&state).is_empty() && service_at(&state, "10.96.0.1").is_none());
    assert!(state.claims().is_empty());
}
