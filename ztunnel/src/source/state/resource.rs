//! One resource: read, put into the view, taken out again.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, address};
use mesh::proto::{ADDRESS_TYPE, AUTHORIZATION_TYPE};
use mesh::{
    Network, Policy, PolicyError, PolicyKey, Service, ServiceError, ServiceKey, Workload,
    WorkloadError,
};
use prost::Message;

use super::State;
use super::held::{Content, Name};
use crate::source::demand::address_name;
use crate::source::wire::Body;

/// Why a resource is of no use; it alone is rejected.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Nothing in it.
    #[error("no body")]
    NoBody,
    /// Not what the response is about.
    #[error("type {0:?} in a response of another type")]
    Type(String),
    /// Not a message.
    #[error("undecodable: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Of a later version of the protocol.
    #[error("neither a workload nor a service")]
    Kind,
    /// Its name is not its key: a later removal would leave it in the view, or take out
    /// another one.
    #[error("its content calls itself {0:?}")]
    Name(String),
    /// See there.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// See there.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// See there.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Nobody asked for it.
    #[error("type was never subscribed")]
    NotSubscribed,
}

/// A resource that was understood.
enum Parsed {
    Workload(Workload),
    Service(Service),
    Policy(Policy),
}

impl State {
    /// Puts a resource into the view, in place of what had its name.
    pub(super) fn accept(
        &mut self,
        url: &str,
        name: &str,
        version: &str,
        body: Option<&Body>,
    ) -> Result<(), Unusable> {
        let (key, content) = match parse(url, name, body)? {
            Parsed::Workload(workload) => {
                let uid = Name::clone(workload.uid());
                self.make_place(url, name, Content::Workload);
                self.view.insert_workload(workload);
                (uid, Content::Workload)
            }
            Parsed::Service(service) => {
                self.make_place(url, name, Content::Service);
                self.view.insert_service(service);
                (name.into(), Content::Service)
            }
            Parsed::Policy(policy) => {
                self.view.insert_policy(policy);
                (name.into(), Content::Policy)
            }
        };
        if let Some(held) = self.held_mut(url) {
            held.accept(key, version, content);
        }
        Ok(())
    }

    /// A workload may become a service of the same name; there is no room for both.
    pub(super) fn make_place(&mut self, url: &str, name: &str, content: Content) {
        if self.held(url).content(name).is_some_and(|held| held != content) {
            self.forget(url, name);
        }
    }

    /// Takes what has this name out of the view.
    pub(super) fn forget(&mut self, url: &str, name: &str) {
        match self.held_mut(url).and_then(|held| held.remove(name)) {
            Some(Content::Workload) => self.view.remove_workload(name),
            Some(Content::Policy) => self.view.remove_policy(&policy_key(name)),
            Some(Content::Service) => self.view.remove_service(&service_key(name)),
            None => {}
        }
    }

    /// On demand: the names by which a resource is found at its addresses.
    pub(super) fn address_names(&self, name: &str) -> Vec<String> {
        let workload = self.view.workload(name).into_iter();
        let of_workload =
            workload.flat_map(|it| it.addresses.iter().map(|ip| address_name(&it.network, *ip)));
        let key = ServiceKey::parse(name);
        let service = key.and_then(|key| self.view.service(&key)).into_iter();
        let of_service = service
            .flat_map(|it| it.addresses.iter().map(|at| address_name(&at.network, at.net.ip())));
        of_workload.chain(of_service).collect()
    }

    /// On demand: the control plane says of `network/ip` that nothing is there. What we
    /// knew there under another name is out of date.
    pub(super) fn nothing_at(&mut self, name: &str) -> bool {
        let Some((network, ip)) = name.rsplit_once('/') else {
            return false;
        };
        let Ok(ip) = ip.parse::<IpAddr>() else {
            return false;
        };
        let (network, whole) = (Network::from(network), if ip.is_ipv4() { 32 } else { 128 });
        let there = |service: &&Arc<Service>| {
            let mut at = service.addresses.iter();
            at.any(|at| at.network == network && at.net.ip() == ip && at.net.prefix() == whole)
        };
        let services = self.view.services().filter(there).map(|it| it.key.to_string());
        let workload = self.view.by_address(&network, ip).map(|it| it.uid().to_string());
        let outdated: Vec<_> = services.chain(workload).collect();
        outdated.iter().for_each(|name| self.forget(ADDRESS_TYPE, name));
        !outdated.is_empty()
    }
}

fn parse(url: &str, name: &str, body: Option<&Body>) -> Result<Parsed, Unusable> {
    let body = body.ok_or(Unusable::NoBody)?;
    if *body.type_url != *url.as_bytes() {
        return Err(Unusable::Type(String::from_utf8_lossy(&body.type_url).into_owned()));
    }
    let named = |key: &str| if key == name { Ok(()) } else { Err(Unusable::Name(key.to_owned())) };
    if url == AUTHORIZATION_TYPE {
        let policy = Policy::try_from(Authorization::decode(&*body.value)?)?;
        named(&policy.key().to_string())?;
        return Ok(Parsed::Policy(policy));
    }
    match Address::decode(&*body.value)?.r#type.ok_or(Unusable::Kind)? {
        address::Type::Workload(message) => {
            let workload = Workload::try_from(message)?;
            named(workload.uid())?;
            Ok(Parsed::Workload(workload))
        }
        address::Type::Service(message) => {
            let service = Service::try_from(message)?;
            named(&service.key.to_string())?;
            Ok(Parsed::Service(service))
        }
    }
}

/// The key that belongs to the name of a policy resource. One that cannot be read as such
/// gets a key of its own, so that a removal finds what was kept of it.
pub(super) fn policy_key(name: &str) -> PolicyKey {
    PolicyKey::parse(name)
        .or_else(|| PolicyKey::new("", &name.replace('/', "_")))
        .or_else(|| PolicyKey::new("", "unnamed"))
        .expect("neither empty nor with a slash")
}

/// The same for services.
pub(super) fn service_key(name: &str) -> ServiceKey {
    ServiceKey::parse(name)
        .or_else(|| ServiceKey::new("", &name.replace('/', "_")))
        .or_else(|| ServiceKey::new("", "unnamed"))
        .expect("neither empty nor with a slash")
}
