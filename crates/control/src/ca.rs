//! The certificate authority: one root, short-lived leaves.

mod csr;
mod root;
mod service;
mod store;

pub use root::RootError;
pub(crate) use root::{Root, ServerName};
pub(crate) use service::Authority;
pub use store::StoreError;
pub(crate) use store::open;
