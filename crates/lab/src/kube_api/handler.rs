//! The requests of all connections: read, done under the lock, answered.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::action::{Action, ApiRequest, Persist, Place, Route};
use super::body;
use super::discovery;
use super::endpoints;
use super::entropy::Entropy;
use super::kinds::namespaces::{LASTING, NAMESPACES};
use super::perform::{Answer, act};
use super::request;
use super::status::Refusal;
use super::store::Store;
use super::stream;
use super::token::TokenBook;
use super::writes::{self, Writer};

/// The body of an answer: whole, or the events of a watch.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The newest version, for watches to wait on.
    pub(crate) changed: watch::Sender<u64>,
    entropy: Entropy,
    pub(crate) limits: Limits,
    /// Ends every watch and connection.
    pub(crate) stop: CancellationToken,
}

/// All that is remembered.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    tokens: TokenBook,
}

impl Shared {
    /// The state that a new API has: the namespaces every cluster has.
    pub(crate) fn new(limits: Limits, entropy: Entropy) -> Result<Shared, Refusal> {
        let mut store = Store::new(limits.history).with_service_ranges(&limits.service_ranges);
        let writer =
            Writer { entropy: &entropy, now: OffsetDateTime::now_utc(), manager: "kube-api" };
        for name in LASTING {
            let resource = &NAMESPACES;
            let place = Place { resource, namespace: None, name: None };
            let namespace = serde_json::json!({ "metadata": { "name": name } });
            writes::create(&mut store, writer, &place, &namespace)?;
        }
        let (changed, _) = watch::channel(store.version());
        let state = Mutex::new(State { store, tokens: TokenBook::default() });
        Ok(Shared { state, changed, entropy, limits, stop: CancellationToken::new() })
    }

    /// The state. A panic under the lock leaves whole objects, so the lock is used after one.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, request: &ApiRequest, body: &Value) -> Result<Answer, Refusal> {
        let mut guard = self.state();
        let now = OffsetDateTime::now_utc();
        let writer = Writer { entropy: &self.entropy, now, manager: &request.manager };
        if request.persist == Persist::DryRun {
            let mut scratch = guard.store.clone();
            return act(&mut scratch, &mut TokenBook::default(), writer, request, body);
        }
        let State { store, tokens } = &mut *guard;
        let before = store.version();
        let answer = act(store, tokens, writer, request, body);
        if store.version() != before {
            endpoints::settle(store, writer);
        }
        let version = store.version();
        self.changed.send_if_modified(|seen| {
            let moved = *seen != version;
            *seen = version;
            moved
        });
        answer
    }
}

/// Answers one request; what goes wrong becomes a `Status`.
pub(crate) async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    match answer(&shared, request).await {
        Ok(response) => {
            tracing::debug!(%method, %uri, code = response.status().as_u16(), "answered");
            response
        }
        Err(refusal) => {
            let code = refusal.reason.code();
            tracing::debug!(%method, %uri, code, reason = %refusal, "refused");
            json_response(code, &refusal.status())
        }
    }
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (parts, incoming) = request.into_parts();
    let api = match request::parse(&parts)? {
        Route::Document(document) => {
            return Ok(json_response(200, &discovery::document(&document)?));
        }
        Route::Api(api) => api,
    };
    if let Action::Watch(options) = &api.action {
        return stream::watch(shared, &api.place, options, api.view.clone())
            .map(|events| response(200, events));
    }
    let bytes = body::read(&shared.limits, incoming).await?;
    let body = body::parse(&api, &bytes)?;
    let answer = shared.perform(&api, &body)?;
    Ok(json_response(answer.code, &answer.body))
}

fn json_response(code: u16, body: &Value) -> Response<Body> {
    response(code, Full::new(Bytes::from(body.to_string())).boxed_unsync())
}

fn response(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
