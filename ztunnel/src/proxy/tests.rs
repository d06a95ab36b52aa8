//! Two captured pods and everything between them; only the control plane is pretended.

mod limits;
mod sizes;
mod stories;
mod strangers;
mod world;
