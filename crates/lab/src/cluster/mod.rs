//! Real clusters: made here of real programs ([`harness`]).

pub mod harness;
