//! What remains of a resource that cannot be used: enough to refuse rather than to pass
//! in clear text or unjudged.

use mesh::proto::AUTHORIZATION_TYPE;
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, Visibility, address};
use prost::Message;

use super::State;
use super::held::Content;
use super::resource::{policy_key, service_key};
use crate::source::wire::Body;

impl State {
    /// Keeps what can be read of a resource that cannot be used; the last good content
    /// stays in use. Says whether there was anything to keep.
    pub(super) fn reject(&mut self, url: &str, name: &str, body: Option<&Body>) -> bool {
        let body = body.filter(|body| *body.type_url == *url.as_bytes());
        let content = if url == AUTHORIZATION_TYPE {
            Some(self.reject_policy(name, body))
        } else {
            self.reject_address(url, name, body)
        };
        let Some(content) = content else {
            return false;
        };
        if let Some(held) = self.held_mut(url) {
            let name = held.name(name).cloned().unwrap_or_else(|| name.into());
            held.reject(name, content);
        }
        true
    }

    fn reject_address(&mut self, url: &str, name: &str, body: Option<&Body>) -> Option<Content> {
        let before = self.held(url).content(name);
        let address = body.and_then(|body| Address::decode(&*body.value).ok());
        match address.and_then(|it| it.r#type) {
            Some(address::Type::Workload(message)) => {
                self.make_place(url, name, Content::Workload);
                self.view.reject_workload(name, &message);
                Some(Content::Workload)
            }
            Some(address::Type::Service(mut message)) => {
                self.make_place(url, name, Content::Service);
                let key = service_key(name);
                if message.namespace != key.namespace() {
                    // Who may find it is not known either.
                    message.visibility = Visibility::Public as i32;
                }
                self.view.reject_service(&key, &message);
                Some(Content::Service)
            }
            None => before,
        }
    }

    /// A content that calls itself differently may be about anything.
    fn reject_policy(&mut self, name: &str, body: Option<&Body>) -> Content {
        let key = policy_key(name);
        let message = body.and_then(|body| Authorization::decode(&*body.value).ok());
        let message = message
            .filter(|message| message.namespace == key.namespace() && message.name == key.name());
        self.view.reject_policy(key, message.as_ref());
        Content::Policy
    }
}
