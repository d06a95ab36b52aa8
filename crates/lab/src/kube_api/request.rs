//! From a method, a path, a query and headers to a typed request, or why there is none. PURE.

use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::action::{Action, ApiRequest, Document, Part, PatchKind, Place, Route};
use super::apply::Force;
use super::negotiate::{self, BodyFormat};
use super::options;
use super::query::{Query, decode};
use super::resource::{RESOURCES, Resource, Verb, find, group_version};
use super::status::{Reason, Refusal};

/// Reads everything but the body.
pub(crate) fn parse(parts: &Parts) -> Result<Route, Refusal> {
    let path = parts.uri.path();
    let segments: Vec<String> =
        path.split('/').filter(|s| !s.is_empty()).map(decode).collect::<Result<_, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["version"] => return document(parts, Document::Version),
        ["api"] => return document(parts, Document::CoreVersions),
        ["apis"] => return document(parts, Document::Groups),
        ["apis", group] => return document(parts, Document::Group((*group).to_owned())),
        ["openapi", ..] => {
            let why = "OpenAPI documents are not served; use kubectl with --validate=false";
            return Err(Refusal::not_implemented(why));
        }
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => {
            return Err(Refusal::new(Reason::NotFound, format!("there is no path {path}")));
        }
    };
    if rest.is_empty() {
        let (group, version) = (group.to_owned(), version.to_owned());
        return document(parts, Document::Resources { group, version });
    }
    let (place, subresource) = locate(group, version, rest)?;
    request(parts, place, subresource).map(Box::new).map(Route::Api)
}

fn document(parts: &Parts, document: Document) -> Result<Route, Refusal> {
    if parts.method != Method::GET {
        let why = format!("{} is not done on {}, only GET", parts.method, parts.uri.path());
        return Err(Refusal::new(Reason::MethodNotAllowed, why));
    }
    Ok(Route::Document(document))
}

fn locate<'a>(
    group: &str,
    version: &str,
    rest: &[&'a str],
) -> Result<(Place, Option<&'a str>), Refusal> {
    let (namespace, plural, name, subresource) = match rest {
        ["watch", ..] => {
            return Err(Refusal::not_implemented("watch paths are not served; use ?watch=true"));
        }
        ["namespaces"] => (None, "namespaces", None, None),
        ["namespaces", name] => (None, "namespaces", Some(*name), None),
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            (None, "namespaces", Some(*name), Some(*sub))
        }
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None, None),
        ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name), None),
        ["namespaces", namespace, plural, name, sub] => {
            (Some(*namespace), *plural, Some(*name), Some(*sub))
        }
        [plural] => (None, *plural, None, None),
        [plural, name] => (None, *plural, Some(*name), None),
        [plural, name, sub] => (None, *plural, Some(*name), Some(*sub)),
        _ => return Err(Refusal::not_implemented("paths that deep are not served")),
    };
    let resource = find(group, version, plural).ok_or_else(|| unknown(group, version, plural))?;
    if resource.namespaced() != namespace.is_some() && (namespace.is_some() || name.is_some()) {
        let scope = if resource.namespaced() { "in a namespace" } else { "in no namespace" };
        let why = format!("{} are {scope}, the path says otherwise", resource.qualified());
        return Err(Refusal::new(Reason::NotFound, why));
    }
    let place =
        Place { resource, namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) };
    Ok((place, subresource))
}

fn unknown(group: &str, version: &str, plural: &str) -> Refusal {
    // Not 404: a client would take that for "no such object" and go on.
    let served: Vec<String> = RESOURCES.iter().map(Resource::qualified).collect();
    Refusal::not_implemented(format!(
        "{plural} of {} are not served here; served are {}",
        group_version(group, version),
        served.join(", ")
    ))
}

fn request(parts: &Parts, place: Place, subresource: Option<&str>) -> Result<ApiRequest, Refusal> {
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let content_type = text(&parts.headers, &header::CONTENT_TYPE);
    let (part, action, format) = if let Some(name) = subresource {
        below_object(parts, &place, name, &query)?
    } else {
        let watch = query.switch("watch")?.unwrap_or(false);
        let verb = verb(&parts.method, &place, watch)?;
        if !place.resource.verbs.contains(&verb) {
            return Err(not_allowed(
                &place.resource.qualified(),
                verb.word(),
                place.resource.verbs,
            ));
        }
        let (action, format) = action(verb, &place, &query, content_type)?;
        (Part::Main, action, format)
    };
    let action = match action {
        Action::Create if place.resource.plural == "tokenreviews" => Action::ReviewToken,
        Action::Update(_) => Action::Update(part),
        Action::Patch(_, kind) => Action::Patch(part, kind),
        other => other,
    };
    let manager = options::manager(&query, text(&parts.headers, &header::USER_AGENT), &action)?;
    Ok(ApiRequest {
        view: negotiate::view(text(&parts.headers, &header::ACCEPT), query.get("includeObject"))?,
        persist: options::persist(&query)?,
        place,
        action,
        manager,
        body: format,
    })
}

fn below_object(
    parts: &Parts,
    place: &Place,
    name: &str,
    query: &Query,
) -> Result<(Part, Action, BodyFormat), Refusal> {
    let path = format!("{}/{name}", place.resource.qualified());
    let served = place
        .resource
        .subresource(name)
        .ok_or_else(|| Refusal::not_implemented(format!("{path} is not served by this API")))?;
    let content_type = text(&parts.headers, &header::CONTENT_TYPE);
    if served.name == "token" {
        if parts.method != Method::POST {
            return Err(not_allowed(&path, parts.method.as_str(), served.verbs));
        }
        return Ok((Part::Main, Action::MintToken, negotiate::body_format(content_type)?));
    }
    let verb = verb(&parts.method, place, false)?;
    if !served.verbs.contains(&verb) {
        return Err(not_allowed(&path, verb.word(), served.verbs));
    }
    let (action, format) = action(verb, place, query, content_type)?;
    Ok((Part::Status, action, format))
}

fn verb(method: &Method, place: &Place, watch: bool) -> Result<Verb, Refusal> {
    let one = place.name.is_some();
    let all_namespaces = place.resource.namespaced() && place.namespace.is_none();
    Ok(match (method.as_str(), one) {
        ("GET", _) if watch => Verb::Watch,
        ("GET", true) => Verb::Get,
        ("GET", false) => Verb::List,
        ("POST", false) if !all_namespaces => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) => Verb::Delete,
        ("DELETE", false) if !all_namespaces => Verb::DeleteCollection,
        (method, _) => {
            let what = match (one, all_namespaces) {
                (true, _) => "one object",
                (false, true) => "all namespaces at once",
                (false, false) => "a collection",
            };
            let why = format!("{method} is not done on {what} of {}", place.resource.qualified());
            return Err(Refusal::new(Reason::MethodNotAllowed, why));
        }
    })
}

fn not_allowed(what: &str, verb: &str, served: &[Verb]) -> Refusal {
    let words: Vec<_> = served.iter().map(|verb| verb.word()).collect();
    let why = format!("{what} cannot {verb}; served are {}", words.join(", "));
    Refusal::new(Reason::MethodNotAllowed, why)
}

fn action(
    verb: Verb,
    place: &Place,
    query: &Query,
    content_type: &str,
) -> Result<(Action, BodyFormat), Refusal> {
    let action = match verb {
        Verb::Get => Action::Get(options::at_of_one(query)?),
        Verb::List => Action::List(options::list(query, place)?),
        Verb::Watch => Action::Watch(options::watch(query, place)?),
        Verb::Create => Action::Create,
        Verb::Update => Action::Update(Part::Main),
        Verb::Delete => Action::Delete(options::delete(query)?),
        Verb::DeleteCollection if query.get("limit").or(query.get("continue")).is_some() => {
            let why = "collections are deleted as a whole, limit and continue are not done";
            return Err(Refusal::not_implemented(why));
        }
        Verb::DeleteCollection => {
            Action::DeleteCollection(options::delete(query)?, options::selection(query, place)?)
        }
        Verb::Patch => {
            let force = if query.switch("force")? == Some(true) { Force::Yes } else { Force::No };
            let (kind, format) = negotiate::patch_kind(content_type, force)?;
            if force == Force::Yes && kind != PatchKind::Apply(force) {
                return Err(Refusal::bad_request("force=true is for server-side apply only"));
            }
            return Ok((Action::Patch(Part::Main, kind), format));
        }
    };
    let format = match verb {
        Verb::Create | Verb::Update => negotiate::body_format(content_type)?,
        // Whatever a client says of a body that is not there does not matter.
        _ => BodyFormat::Json,
    };
    Ok((action, format))
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
