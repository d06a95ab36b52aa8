//! A scenario that is played on a cluster.

use super::ground::Ground;

pub(crate) use crate::scenario::scenario;

/// See [`crate::scenario::Scenario`].
pub(crate) type Scenario = crate::scenario::Scenario<Ground>;
