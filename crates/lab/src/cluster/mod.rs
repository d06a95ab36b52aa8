//! Real clusters: reached by kubeconfig.
//!
//! The only room of the lab that knows kube-rs.

pub mod access;
