//! The application of the lab's pods: it listens for lines, and answers each with who
//! it believes to talk to, the line's number in this connection, and the line itself, so
//! that a marker crosses the wire both ways:
//!
//! ```text
//! client ── marker\n ──────────────────────► server
//! client ◄─ 10.20.1.2:41234|1|marker\n ───── server
//! ```
//!
//! Its sockets are born in the pod's namespace and served by the lab's runtime.

mod conversation;
mod datagram;
mod error;
pub mod here;
mod server;

pub use conversation::{Conversation, End, Reply};
pub(crate) use datagram::ask;
pub use datagram::{Answer, Echo};
pub use error::{AppError, AppErrorKind};
pub use server::Server;

/// The longest line either side reads.
const MAX_LINE: u64 = 1 << 20;
