use super::*;
use crate::kube_api::action::{Persist, Start};
use crate::kube_api::negotiate::View;
use crate::kube_api::table::Include;

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let builder = headers
        .iter()
        .fold(http::Request::builder().method(method).uri(uri), |b, (k, v)| b.header(*k, *v));
    builder.body(()).unwrap().into_parts().0
}

fn api(method: &str, uri: &str, headers: &[(&str, &str)]) -> ApiRequest {
    match parse(&parts(method, uri, headers)) {
        Ok(Route::Api(request)) => *request,
        other => panic!("{method} {uri}: {other:?}"),
    }
}

fn refused(method: &str, uri: &str) -> (Reason, String) {
    let refusal = parse(&parts(method, uri, &[])).expect_err(uri);
    (refusal.reason, refusal.message)
}

#[test]
fn places() {
    let cases = [
        ("GET", "/api/v1/pods", "pods", None, None),
        ("GET", "/api/v1/namespaces/n/pods", "pods", Some("n"), None),
        ("GET", "/api/v1/namespaces/n/pods/p", "pods", Some("n"), Some("p")),
        ("GET", "/api/v1/namespaces", "namespaces", None, None),
        ("GET", "/api/v1/namespaces/n", "namespaces", None, Some("n")),
        ("GET", "/api/v1/nodes/n1/status", "nodes", None, Some("n1")),
        (
            "GET",
            "/apis/security.istio.io/v1/namespaces/n/authorizationpolicies/a",
            "authorizationpolicies",
            Some("n"),
            Some("a"),
        ),
    ];
    for (method, uri, plural, namespace, name) in cases {
        let place = api(method, uri, &[]).place;
        let found = (place.resource.plural, place.namespace.as_deref(), place.name.as_deref());
        assert_eq!(found, (plural, namespace, name), "{uri}");
    }
}

#[test]
fn what_is_not_served_says_so() {
    for (method, uri, reason) in [
        ("GET", "/api/v1/secrets", Reason::NotImplemented),
        ("GET", "/apis/apps/v1/deployments", Reason::NotImplemented),
        ("GET", "/openapi/v2", Reason::NotImplemented),
        ("GET", "/api/v1/watch/pods", Reason::NotImplemented),
        ("GET", "/api/v1/namespaces/n/pods/p/log", Reason::NotImplemented),
        ("PUT", "/api/v1/namespaces/n/finalize", Reason::NotImplemented),
        ("POST", "/api/v1/pods", Reason::MethodNotAllowed),
        ("DELETE", "/api/v1/pods", Reason::MethodNotAllowed),
        ("POST", "/api/v1/namespaces/n/pods/p", Reason::MethodNotAllowed),
        ("HEAD", "/api/v1/pods", Reason::MethodNotAllowed),
        ("POST", "/version", Reason::MethodNotAllowed),
        ("GET", "/apis/authentication.k8s.io/v1/tokenreviews", Reason::MethodNotAllowed),
        ("DELETE", "/api/v1/namespaces/n/pods/p/status", Reason::MethodNotAllowed),
        ("DELETE", "/api/v1/namespaces/n/pods?limit=1", Reason::NotImplemented),
        ("GET", "/api/v1/nodes/n?resourceVersion=7&resourceVersionMatch=Exact", Reason::BadRequest),
        ("GET", "/api/v1/namespaces/n/serviceaccounts/a/token", Reason::MethodNotAllowed),
        ("GET", "/api/v1/namespaces/n/nodes", Reason::NotFound),
        ("GET", "/api/v1/pods/p", Reason::NotFound),
        ("GET", "/metrics", Reason::NotFound),
    ] {
        assert_eq!(refused(method, uri).0, reason, "{method} {uri}");
    }
}

#[test]
fn bad_queries_are_named() {
    for (query, names) in [
        ("limit=many", "limit"),
        ("labelSelector=a%3D%3D%3Db", "label selector"),
        ("fieldSelector=spec.hostname%3Dx", "spec.hostname"),
        ("resourceVersion=new", "resourceVersion"),
        ("resourceVersionMatch=Exact", "resourceVersion"),
        ("resourceVersionMatch=Exact&resourceVersion=0", "Exact"),
        ("watch=maybe", "watch"),
        ("watch=1&sendInitialEvents=true", "NotOlderThan"),
        ("dryRun=Some", "dryRun"),
        ("continue=x&resourceVersion=7", "token"),
    ] {
        let (reason, message) = refused("GET", &format!("/api/v1/pods?{query}"));
        assert_eq!(reason, Reason::BadRequest, "{query}");
        assert!(message.contains(names), "{query}: {message}");
    }
}

#[test]
fn a_watch_starts_where_the_query_says() {
    let start =
        |query: &str| match api("GET", &format!("/api/v1/pods?watch=true&{query}"), &[]).action {
            Action::Watch(options) => options.start,
            other => panic!("{other:?}"),
        };
    assert_eq!(start(""), Start::State);
    assert_eq!(start("resourceVersion=0"), Start::State);
    assert_eq!(start("resourceVersion=7"), Start::After(7));
    let streamed = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=5";
    assert_eq!(start(streamed), Start::StateAndMark(5));
    assert_eq!(start("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), Start::Now);
}

#[test]
fn a_patch_is_what_its_headers_say() {
    let uri = "/api/v1/namespaces/n/pods/p/status?fieldManager=me&force=true&dryRun=All";
    let request = api("PATCH", uri, &[("content-type", "application/apply-patch+yaml")]);
    assert_eq!(request.action, Action::Patch(Part::Status, PatchKind::Apply(Force::Yes)));
    assert_eq!((request.manager.as_str(), request.persist), ("me", Persist::DryRun));

    let merge = [("content-type", "application/merge-patch+json"), ("user-agent", "kubectl/v1.32")];
    let request = api("PATCH", "/api/v1/namespaces/n/pods/p", &merge);
    assert_eq!(request.manager, "kubectl");
    let forced = parse(&parts("PATCH", "/api/v1/nodes/n?force=true", &merge));
    assert_eq!(forced.unwrap_err().reason, Reason::BadRequest);
}

#[test]
fn tables_are_asked_for_by_kubectl() {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let request = api("GET", "/api/v1/pods?includeObject=Object&limit=500", &[("accept", accept)]);
    assert_eq!(request.view, View::Table { version: "v1", include: Include::Object });
}
