//! The fence: the only code of Sluice that enters network namespaces.
//!
//! A network namespace belongs to a thread, so a thread that changed its namespace and
//! then failed would do the next job in the wrong pod. Therefore whatever is done inside
//! a namespace is handed as a closure to fence workers, which do nothing else:
//!
//! ```text
//! caller ── job, PodNetns ──► fence worker: setns(pod) ─ job ─ setns(home) ─► result
//!                                  │ panic, or no way home: the thread ends,
//!                                  └ a new one takes its place
//! ```
//!
//! What a job leaves behind, a socket above all, keeps the namespace it was made in and
//! may be used from any thread afterwards. This crate does no async IO; callers bring
//! results into their runtime by the callback of [`Fence::submit`].
//!
//! One operation is frequent enough for a shorter way: [`dial_socket_in`] makes one
//! outgoing socket on the calling thread, with nobody else's code between leaving and
//! coming home, and ends the process if it cannot come home.

mod conntrack;
mod datagram;
mod fence;
mod limit;
mod listener;
mod loopback;
mod named;
mod pod;
mod socket;
mod visit;
mod workplace;

pub use conntrack::original_udp_dst;
pub use datagram::{dial_udp, listen_udp};
pub use fence::{Fence, FenceError};
pub use limit::{DescriptorLimit, raise_descriptor_limit};
pub use listener::{
    Families, ListenAny, ListenerFacts, PortUse, inspect_datagrams, inspect_listener, is_listening,
    listen_again, listen_any, share_port,
};
pub use loopback::{ListenLoopback, LoopbackError, LoopbackSockets, listen_loopback};
pub use named::{NamedNetns, release_folder};
pub use pod::{NetnsError, NetnsId, PodNetns};
pub use socket::{Dial, Listen, OrigDst, dial_socket, listen_tcp, original_dst};
pub use visit::{VisitError, dial_socket_in};
pub use workplace::Workplace;
