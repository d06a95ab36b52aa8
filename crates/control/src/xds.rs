//! Delta discovery: each client is sent what it does not have yet, and nothing else.

mod client;
mod demand;
mod service;
mod session;
mod subscription;

pub(crate) use service::Discovery;
