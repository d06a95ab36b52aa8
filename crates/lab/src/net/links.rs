//! Links, addresses and routes of one namespace, by netlink. The socket is made inside
//! the namespace by the fence; the connection then runs on the lab's runtime.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use netns::PodNetns;
use nix::errno::Errno;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::task::JoinHandle;

use crate::place::Place;

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {step}: {reason}")]
pub struct LinkError {
    /// Whose namespace.
    pub place: String,
    /// What was attempted, with the names of the links.
    pub step: String,
    /// The kernel's answer.
    pub reason: String,
}

/// A netlink connection into one namespace; closed when dropped.
#[derive(Debug)]
pub(crate) struct Links {
    place: String,
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub async fn open(place: &Place) -> Result<Self, LinkError> {
        let failed = |reason: String| LinkError {
            place: place.name().to_owned(),
            step: "open a netlink socket".into(),
            reason,
        };
        let runtime = tokio::runtime::Handle::current();
        let opened = place.inside(move || {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        });
        let opened = opened.await.map_err(|error| failed(error.to_string()))?;
        let (connection, handle, _) = opened.map_err(|error| failed(error.to_string()))?;
        let connection = tokio::spawn(connection);
        Ok(Self { place: place.name().to_owned(), handle, connection })
    }

    pub async fn bridge(&self, name: &str) -> Result<(), LinkError> {
        let request = self.handle.link().add(LinkBridge::new(name).build());
        self.done(request.execute().await, || format!("make bridge {name}"))
    }

    pub async fn veth(&self, name: &str, peer: &str) -> Result<(), LinkError> {
        let request = self.handle.link().add(LinkVeth::new(name, peer).build());
        self.done(request.execute().await, || format!("make link pair {name} and {peer}"))
    }

    /// Removes a link, if there is one of this name.
    pub async fn remove(&self, name: &str) -> Result<(), LinkError> {
        let Some(index) = self.find(name).await? else { return Ok(()) };
        let request = self.handle.link().del(index);
        self.done(request.execute().await, || format!("remove link {name}"))
    }

    pub async fn attach(&self, name: &str, bridge: &str) -> Result<(), LinkError> {
        let controller = self.index(bridge).await?;
        let change = LinkUnspec::new_with_index(self.index(name).await?).controller(controller);
        let request = self.handle.link().change(change.build());
        self.done(request.execute().await, || format!("attach {name} to {bridge}"))
    }

    /// Moves a link to another namespace.
    pub async fn give(&self, name: &str, netns: &PodNetns) -> Result<(), LinkError> {
        let fd = netns.as_fd().as_raw_fd();
        let change = LinkUnspec::new_with_index(self.index(name).await?).setns_by_fd(fd);
        let request = self.handle.link().change(change.build());
        self.done(request.execute().await, || format!("move {name} to its namespace"))
    }

    pub async fn rename(&self, name: &str, new: &str) -> Result<(), LinkError> {
        let change = LinkUnspec::new_with_index(self.index(name).await?).name(new);
        let request = self.handle.link().change(change.build());
        self.done(request.execute().await, || format!("rename {name} to {new}"))
    }

    pub async fn up(&self, name: &str) -> Result<(), LinkError> {
        let change = LinkUnspec::new_with_index(self.index(name).await?).up();
        let request = self.handle.link().change(change.build());
        self.done(request.execute().await, || format!("set {name} up"))
    }

    pub async fn address(&self, name: &str, address: IpNetwork) -> Result<(), LinkError> {
        let index = self.index(name).await?;
        let request = self.handle.address().add(index, address.ip(), address.prefix());
        self.done(request.execute().await, || format!("give {address} to {name}"))
    }

    pub async fn route(&self, to: IpNetwork, via: IpAddr) -> Result<(), LinkError> {
        let step = || format!("add route {to} via {via}");
        let message = match (to, via) {
            (IpNetwork::V4(to), IpAddr::V4(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.network(), to.prefix())
                .gateway(via)
                .build(),
            (IpNetwork::V6(to), IpAddr::V6(via)) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.network(), to.prefix())
                .gateway(via)
                .build(),
            _ => return Err(self.failed(step(), "the families differ".into())),
        };
        self.done(self.handle.route().add(message).execute().await, step)
    }

    async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let missing =
            || self.failed(format!("look up link {name}"), "there is no such link".into());
        self.find(name).await?.ok_or_else(missing)
    }

    async fn find(&self, name: &str) -> Result<Option<u32>, LinkError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(rtnetlink::Error::NetlinkError(message))
                if Errno::from_raw(-message.raw_code()) == Errno::ENODEV =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failed(format!("look up link {name}"), error.to_string())),
        }
    }

    fn done(
        &self,
        result: Result<(), rtnetlink::Error>,
        step: impl Fn() -> String,
    ) -> Result<(), LinkError> {
        result.map_err(|error| self.failed(step(), error.to_string()))
    }

    fn failed(&self, step: String, reason: String) -> LinkError {
        LinkError { place: self.place.clone(), step, reason }
    }
}
