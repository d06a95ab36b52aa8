//! What operators and Kubernetes ask ztunnel: is it ready, what does it count, what does
//! it know.
//!
//! | port | address | paths |
//! |---|---|---|
//! | 15021 | any | `/healthz/ready` |
//! | 15020 | any | `/metrics`, `/stats/prometheus` |
//! | 15000 | loopback | `/`, `/config_dump`, `/logging`, `/quitquitquit` (POST) |
//!
//! Nothing changes by a GET, and no secret is told: whoever is on the machine may ask.

mod dump;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod listen;
mod logging;
mod metrics;
mod readiness;
mod response;
mod routes;
mod serve;

pub use dump::Dump;
pub use listen::{BindError, Settings, bind};
pub use readiness::{Part, Readiness};
pub use serve::{Admin, Servers};
