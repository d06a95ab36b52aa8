//! Two captured pods and everything between them; only the control plane is pretended.

mod dns;
mod limits;
mod revoked;
mod services;
mod sizes;
mod stories;
mod strangers;
mod world;
