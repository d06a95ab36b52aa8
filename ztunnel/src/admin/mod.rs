//! What operators and Kubernetes ask ztunnel: is it ready, what does it count, what does
//! it know.
//!
//! | port | address | paths |
//! |---|---|---|
//! | 15021 | any | `/healthz/ready` |
//! | 15020 | any | `/metrics`, `/stats/prometheus` |
//! | 15000 | loopback | `/config_dump`, `/quitquitquit` (POST) |

mod dump;
mod listen;
mod readiness;
mod serve;

pub use dump::{Dump, WorkloadInfo, WorkloadState};
pub use listen::{BindError, Settings, bind};
pub use readiness::{Part, Readiness};
pub use serve::{Admin, Servers};
