//! Two captured pods and everything between them; only the control plane is pretended.

mod accepting;
mod counted;
mod dns;
mod expired;
mod gateways;
mod half_closed;
mod limits;
mod names;
mod own;
mod policies;
mod renewals;
mod revoked;
mod services;
mod sizes;
mod stories;
mod strangers;
mod trust_domains;
mod waypoints;
mod world;
