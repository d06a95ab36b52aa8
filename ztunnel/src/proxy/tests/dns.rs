//! Lookups of captured pods, with the agent's rules, at resolvers outside of the pod.

mod handover;
mod stories;
mod world;
