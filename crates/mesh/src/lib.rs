//! The workload model: what the mesh is made of, who may speak to whom, and the messages
//! that carry it. Pure: no clock, socket, or environment.
//!
//! ```text
//! discovery messages ──try_from──► Workload, Service, Policy ──► View ──► lookup by address, name, key
//!                                                                 └─────► authorize(connection)
//! ```

mod gateway;
mod identity;
mod index;
mod intern;
mod places;
mod policy;
pub mod proto;
mod service;
mod view;
mod workload;

pub use gateway::{Gateway, GatewayDestination, GatewayError};
pub use identity::{Identity, IdentityError};
pub use policy::{
    Action, Connection, Decision, Denial, Enforcement, FieldListing, MatchListing, Policy,
    PolicyError, PolicyKey, Scope, TextListing, UnknownPolicy,
};
pub use service::{
    HealthPolicy, IpFamilies, LoadBalancing, Mode, Preference, Service, ServiceAddress,
    ServiceError, ServiceKey, ServicePort, Visibility,
};
pub use view::{Home, LocalWorkload, Members, View};
pub use workload::{
    Addresses, ApplicationTunnel, Health, Locality, Membership, Network, PortMapping, Protocol,
    Shared, TunnelledProtocol, Uid, Workload, WorkloadError, WorkloadKind,
};
