//! Two captured pods and everything between them; only the control plane is pretended.

mod dns;
mod stories;
mod strangers;
mod world;
