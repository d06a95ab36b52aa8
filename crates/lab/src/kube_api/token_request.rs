//! What a TokenRequest asks for, and the token that answers it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::action::Place;
use super::kinds::{nodes, pods, service_accounts};
use super::meta;
use super::status::{Cause, Refusal};
use super::store::{Key, Store};
use super::token::{BoundPod, Grant};
use super::writes::Writer;

/// Who this API is, for tokens that name no audience.
pub(crate) const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token may live, in seconds: default, least, most.
const LIFETIME: (i64, i64, i64) = (3600, 600, 1 << 32);
/// What a TokenRequest asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) audiences: Vec<String>,
    pub(crate) seconds: i64,
    pub(crate) pod: Option<WantedPod>,
}

/// The pod to bind it to.
#[derive(Debug)]
pub(crate) struct WantedPod {
    name: String,
    uid: String,
}

impl Wanted {
    pub(crate) fn read(request: &Value) -> Result<Wanted, Cause> {
        let spec = &request["spec"];
        if !spec.is_object() && !spec.is_null() {
            return Err(Cause::invalid("spec", "must be an object"));
        }
        let audiences = texts(&spec["audiences"])
            .ok_or_else(|| Cause::invalid("spec.audiences", "must be a list of strings"))?;
        let (default, least, most) = LIFETIME;
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => default,
            value => value.as_i64().filter(|s| (least..=most).contains(s)).ok_or_else(|| {
                let why = format!("must be a number of seconds from {least} to {most}");
                Cause::invalid("spec.expirationSeconds", why)
            })?,
        };
        let pod = match &spec["boundObjectRef"] {
            Value::Null => None,
            reference if reference["kind"] == "Pod" => Some(WantedPod {
                name: meta::text(reference, "/name").to_owned(),
                uid: meta::text(reference, "/uid").to_owned(),
            }),
            _ => {
                let why = "tokens are bound to objects of kind Pod only";
                return Err(Cause::invalid("spec.boundObjectRef.kind", why));
            }
        };
        let audiences =
            if audiences.is_empty() { vec![API_AUDIENCE.to_owned()] } else { audiences };
        Ok(Wanted { audiences, seconds, pod })
    }
}

/// A list of strings; nothing is an empty list, anything else is none.
pub(crate) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(|i| i.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The pod a token is to be bound to, as it is now.
pub(crate) fn bind(
    store: &Store,
    place: &Place,
    account: &str,
    wanted: &WantedPod,
) -> Result<BoundPod, Refusal> {
    let key = Key { storage: pods::STORAGE, name: wanted.name.clone(), ..place.key("") };
    let pod = store.get(&key).ok_or_else(|| Refusal::not_found(&pods::PODS, &wanted.name))?;
    let uid = meta::uid(pod);
    if !wanted.uid.is_empty() && wanted.uid != uid {
        let why = format!("its uid is {uid}, the token is asked for {}", wanted.uid);
        return Err(Refusal::conflict(&pods::PODS, &wanted.name, &why));
    }
    let own = meta::text(pod, "/spec/serviceAccountName");
    if own != account {
        let field = "spec.boundObjectRef.name";
        let cause = Cause::invalid(field, format!("the pod runs as {own}, not as {account}"));
        return Err(Refusal::invalid(&service_accounts::SERVICE_ACCOUNTS, account, vec![cause]));
    }
    let node = meta::text(pod, "/spec/nodeName");
    let node = (!node.is_empty()).then(|| {
        let key = Key { storage: nodes::STORAGE, namespace: String::new(), name: node.to_owned() };
        (node.to_owned(), store.get(&key).map(|node| meta::uid(node).to_owned()))
    });
    Ok(BoundPod { uid: uid.to_owned(), key, node })
}

/// The token itself.
pub(crate) fn written(grant: &Grant, writer: Writer) -> Result<String, Refusal> {
    let (namespace, name) = (&grant.account.namespace, &grant.account.name);
    let mut about = json!({
        "namespace": namespace,
        "serviceaccount": { "name": name, "uid": grant.account_uid },
    });
    if let Some(pod) = &grant.pod {
        about["pod"] = json!({ "name": pod.key.name, "uid": pod.uid });
    }
    let (issued, expires) = (writer.now.unix_timestamp(), grant.expires.unix_timestamp());
    let claims = json!({
        "aud": grant.audiences, "exp": expires, "iat": issued, "nbf": issued,
        "iss": API_AUDIENCE, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "jti": writer.entropy.uuid()?, "kubernetes.io": about,
    });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "RS256", "typ": "JWT" }));
    Ok(format!("{header}.{}.{}", part(claims), writer.entropy.secret()?))
}
