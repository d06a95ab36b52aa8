//! Machines as places, for links, sockets and commands.

use std::path::Path;
use std::time::Duration;

use netns::{Fence, NetnsError, PodNetns};

use crate::place::Place;

/// The network namespace at `path`, for example `/proc/<pid>/ns/net`.
pub(super) fn of_path(
    name: &str,
    path: &Path,
    fence: &Fence,
    patience: Duration,
) -> Result<Place, NetnsError> {
    let netns = PodNetns::open(path)?;
    Ok(Place::of(name, path, netns, fence, patience))
}
