//! The plugin as runtimes meet it: a process with an environment, standard input and
//! output, and a socket to an agent. Every test has its own agent, or none, in its own
//! folder, and its own network namespace. Needs root.
#![expect(clippy::unwrap_used, reason = "what is not there fails the test")]

mod add;
mod agent;
mod check;
mod cnitool;
mod crowd;
mod del;
mod duties;
mod gc;
mod input;
mod journal;
mod killed;
mod known;
mod result;
mod runtime;
mod status;
