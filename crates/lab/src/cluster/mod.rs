//! Real clusters: made here of real programs ([`harness`]), or reached by kubeconfig
//! ([`access`]).

pub mod access;
pub mod harness;
