//! What remains of a resource that cannot be used: enough to refuse rather than to pass
//! in clear text or unjudged.

use mesh::PolicyKey;
use mesh::proto::AUTHORIZATION_TYPE;
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, address};
use prost::Message;
use prost_types::Any;

use super::{Content, Entry, State};

impl State {
    /// Keeps what can be read of a resource that cannot be used; the last good content
    /// stays in use. Says whether there was anything to keep.
    pub(super) fn reject(&mut self, url: &str, name: &str, body: Option<&Any>) -> bool {
        let body = body.filter(|body| body.type_url == url);
        let held = self.held(url).resources.get(name);
        let before = held.map(|entry| entry.content.clone());
        let content = if url == AUTHORIZATION_TYPE {
            self.reject_policy(name, body, before)
        } else {
            self.reject_workload(name, body, before)
        };
        let Some(content) = content else {
            return false;
        };
        let version = String::new();
        self.hold(url, name.to_owned(), Entry { version, content });
        true
    }

    fn reject_workload(
        &mut self,
        name: &str,
        body: Option<&Any>,
        before: Option<Content>,
    ) -> Option<Content> {
        let address = body.and_then(|body| Address::decode(&*body.value).ok());
        let Some(address::Type::Workload(message)) = address.and_then(|it| it.r#type) else {
            return before;
        };
        let uid = match before {
            Some(Content::Workload(uid)) => uid,
            _ => name.into(),
        };
        self.view.reject_workload(&uid, &message);
        Some(Content::Workload(uid))
    }

    fn reject_policy(
        &mut self,
        name: &str,
        body: Option<&Any>,
        before: Option<Content>,
    ) -> Option<Content> {
        let message = body.and_then(|body| Authorization::decode(&*body.value).ok());
        let key = match (before, &message) {
            (Some(Content::Policy(key)), _) => Some(key),
            (_, Some(message)) => PolicyKey::new(&message.namespace, &message.name),
            _ => None,
        };
        let key = key.or_else(|| PolicyKey::parse(name))?;
        self.view.reject_policy(key.clone(), message.as_ref());
        Some(Content::Policy(key))
    }
}
