//! One request done on the state: the caller holds the lock. No IO but random bytes.

use std::sync::Arc;

use serde_json::Value;
use time::OffsetDateTime;

use super::action::{Action, ApiRequest, DeleteOptions, Persist, Place};
use super::deletes::{self, Deleted};
use super::negotiate::View;
use super::patching;
use super::reads::{self, Listing};
use super::render;
use super::selector::Selection;
use super::status::{self, Reason, Refusal};
use super::store::Store;
use super::token::TokenBook;
use super::writes::{self, Writer};

/// What goes back to the client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

/// Does what is asked, of any request but a watch.
pub(crate) fn act(
    store: &mut Store,
    tokens: &mut TokenBook,
    writer: Writer,
    request: &ApiRequest,
    body: &Value,
) -> Result<Answer, Refusal> {
    let (place, view, now) = (&request.place, &request.view, writer.now);
    let show = |code, object: &Value| Answer {
        code,
        body: render::object(view, place.resource, object, now),
    };
    match &request.action {
        Action::Get(at) => {
            reads::fresh_enough(store, *at)?;
            writes::existing(store, place).map(|object| show(200, object))
        }
        Action::List(options) => {
            let page = reads::list(store, place, options)?;
            Ok(Answer { code: 200, body: render::list(view, place.resource, &page, now) })
        }
        Action::Watch(_) => Err(Refusal::new(Reason::Internal, "a watch is not one answer")),
        Action::Create => {
            writes::create(store, writer, place, body).map(|object| show(201, &object))
        }
        Action::Update(part) => {
            writes::update(store, writer, place, *part, body).map(|object| show(200, &object))
        }
        Action::Patch(part, kind) => {
            let name = place.name.as_deref().unwrap_or_default();
            let code = if store.get(&place.key(name)).is_some() { 200 } else { 201 };
            patching::patch(store, writer, place, *part, (*kind, body))
                .map(|object| show(code, &object))
        }
        Action::Delete(options) => {
            let options = delete_options(options, body)?;
            delete(store, now, place, &options, view)
        }
        Action::DeleteCollection(options, selection) => {
            let options = delete_options(options, body)?;
            let page = delete_all(store, now, place, &options, selection)?;
            Ok(Answer { code: 200, body: render::list(view, place.resource, &page, now) })
        }
        Action::MintToken if request.persist == Persist::DryRun => {
            Err(Refusal::not_implemented("dry runs of token requests are not done"))
        }
        Action::MintToken => {
            tokens.mint(store, writer, place, body).map(|body| Answer { code: 201, body })
        }
        Action::ReviewToken if request.persist == Persist::DryRun => {
            Err(Refusal::not_implemented("dry runs of token reviews are not done"))
        }
        Action::ReviewToken => {
            tokens.review(store, now, body).map(|body| Answer { code: 201, body })
        }
    }
}

fn delete(
    store: &mut Store,
    now: OffsetDateTime,
    place: &Place,
    options: &DeleteOptions,
    view: &View,
) -> Result<Answer, Refusal> {
    let body = match deletes::delete(store, now, place, options)? {
        Deleted::Going(object) => render::object(view, place.resource, &object, now),
        Deleted::Gone { uid } => {
            status::deleted(place.resource, place.name.as_deref().unwrap_or_default(), &uid)
        }
    };
    Ok(Answer { code: 200, body })
}

fn delete_all(
    store: &mut Store,
    now: OffsetDateTime,
    place: &Place,
    options: &DeleteOptions,
    selection: &Selection,
) -> Result<Listing, Refusal> {
    let selected: Vec<_> = store
        .objects(place.resource.storage, place.namespace.as_deref())
        .filter(|(_, object)| selection.matches(object))
        .map(|(key, object)| (key.name.clone(), Arc::clone(object)))
        .collect();
    for (name, _) in &selected {
        let place = Place { name: Some(name.clone()), ..place.clone() };
        deletes::delete(store, now, &place, options)?;
    }
    let items = selected.into_iter().map(|(_, object)| object).collect();
    Ok(Listing { version: store.version(), items, next: None, remaining: None })
}

/// The options of the body over those of the query.
fn delete_options(query: &DeleteOptions, body: &Value) -> Result<DeleteOptions, Refusal> {
    if body.is_null() {
        return Ok(query.clone());
    }
    if !body.is_object() {
        return Err(Refusal::bad_request("the body of a deletion is not a DeleteOptions object"));
    }
    if body.get("dryRun").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err(Refusal::not_implemented("dryRun of a deletion is read from the query only"));
    }
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let grace = match body.get("gracePeriodSeconds") {
        None | Some(Value::Null) => query.grace_seconds,
        Some(value) => Some(value.as_i64().ok_or_else(|| {
            Refusal::bad_request("gracePeriodSeconds of the body is not a whole number")
        })?),
    };
    Ok(DeleteOptions {
        grace_seconds: grace,
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
    })
}
