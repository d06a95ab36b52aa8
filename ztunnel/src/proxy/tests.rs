//! Two captured pods and everything between them; only the control plane is pretended.

mod dns;
mod revoked;
mod services;
mod stories;
mod strangers;
mod world;
