//! How many descriptors the process may have. A usual soft limit of 1024 is there for
//! programs that wait with `select(2)`; whoever serves pods needs some for each of them, and
//! for each connection.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft limit of descriptors (`RLIMIT_NOFILE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// As the process was started with.
    pub was: u64,
    /// As it is now: the hard limit.
    pub now: u64,
}

/// Raises the soft limit of descriptors to the hard one.
///
/// # Errors
/// As `setrlimit(2)`; the limit stays as it was.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let (was, now) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if was < now {
        setrlimit(Resource::RLIMIT_NOFILE, now, now)?;
    }
    Ok(DescriptorLimit { was, now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised.now, raised.now));
        let again = raise_descriptor_limit().unwrap();
        assert_eq!(again, DescriptorLimit { was: raised.now, now: raised.now });
    }
}
