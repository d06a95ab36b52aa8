//! `CNI_ARGS`: which pod a container belongs to. Pure.

use std::collections::BTreeMap;

use crate::config::is_identifier;

/// The pod as `CNI_ARGS` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`, which not every runtime tells.
    pub uid: Option<String>,
}

impl Pod {
    /// Finds the pod in `CNI_ARGS`: `KEY=VALUE` pairs with semicolons between, in any
    /// order, among keys that are not for us. `None` when the container is no pod.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn from_args(args: &str) -> Result<Option<Self>, &'static str> {
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        for pair in args.split(';').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = pair.split_once('=').ok_or("not KEY=VALUE pairs")?;
            if key.trim().starts_with("K8S_POD_") && !value.is_empty() {
                let before = known.insert(key.trim(), value);
                if before.is_some_and(|before| before != value) {
                    return Err("names two pods");
                }
            }
        }
        let (namespace, name) = match (known.get("K8S_POD_NAMESPACE"), known.get("K8S_POD_NAME")) {
            (Some(namespace), Some(name)) => (*namespace, *name),
            (None, None) if !known.contains_key("K8S_POD_UID") => return Ok(None),
            _ => return Err("K8S_POD_NAMESPACE and K8S_POD_NAME belong together"),
        };
        let uid = known.get("K8S_POD_UID").copied();
        if ![namespace, name].into_iter().all(is_kubernetes_name) {
            return Err("not names of Kubernetes");
        }
        if uid.is_some_and(|uid| !is_identifier(uid)) {
            return Err("K8S_POD_UID is not a UID");
        }
        let [namespace, name] = [namespace, name].map(str::to_owned);
        Ok(Some(Self { namespace, name, uid: uid.map(str::to_owned) }))
    }
}

/// The letters of RFC 1123 names, as pods and namespaces have them.
fn is_kubernetes_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|c| inner(c) || c == b'-' || c == b'.')
}
