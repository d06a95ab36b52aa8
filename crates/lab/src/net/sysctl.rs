//! Kernel settings of one namespace. `/proc/sys/net` shows the namespace of the thread
//! that opens it, hence the fence.

use std::io;

use netns::FenceError;

use crate::place::Place;

/// A setting could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The kernel refused it.
    #[error("{place}: write {file}: {source}")]
    Write {
        /// Whose namespace.
        place: String,
        /// Which file.
        file: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("{place}: {source}")]
    Fence {
        /// Whose namespace.
        place: String,
        /// What the fence said.
        source: FenceError,
    },
}

/// Duplicate address detection would keep an address unusable for a second or more;
/// both files are looked at by the kernel, and `default` is what later links inherit.
const NO_DAD: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv6/conf/all/accept_dad", "0"),
    ("/proc/sys/net/ipv6/conf/default/accept_dad", "0"),
];

/// Nodes forward between their pods and the wire.
const FORWARD: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/ip_forward", "1"), ("/proc/sys/net/ipv6/conf/all/forwarding", "1")];

/// Settings of the hub and of nodes.
pub(crate) async fn prepare(place: &Place) -> Result<(), SysctlError> {
    write(place, &NO_DAD).await?;
    write(place, &FORWARD).await
}

/// Settings of a pod, before its interface is made.
pub(crate) async fn prepare_pod(place: &Place) -> Result<(), SysctlError> {
    write(place, &NO_DAD).await
}

async fn write(
    place: &Place,
    settings: &'static [(&'static str, &'static str)],
) -> Result<(), SysctlError> {
    let name = || place.name().to_owned();
    let written = place.inside(move || {
        settings.iter().try_for_each(|(file, value)| {
            std::fs::write(file, value).map_err(|source| (*file, source))
        })
    });
    let result = written.await.map_err(|source| SysctlError::Fence { place: name(), source })?;
    result.map_err(|(file, source)| SysctlError::Write { place: name(), file, source })
}
