//! Two captured pods and everything between them; only the control plane is pretended.

mod services;
mod stories;
mod strangers;
mod world;
