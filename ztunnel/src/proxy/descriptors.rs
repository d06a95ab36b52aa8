//! Keeping file descriptors for those who must not fail: administration, the control
//! plane, the agent.
//!
//! The kernel gives the lowest free number, so a high number means that so many are in
//! use. A connection whose socket has one of the last numbers is shed at once instead of
//! taking the last descriptor.

use std::os::fd::{AsRawFd, RawFd};

/// Never given to connections, or an eighth of all where there are few.
const RESERVED: RawFd = 128;

/// The end of what connections may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    ceiling: RawFd,
}

impl Descriptors {
    /// By the limit of this process. Without /proc nothing is reserved.
    pub(super) fn of_this_process() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::below(soft_limit(&limits).unwrap_or(RawFd::MAX))
    }

    fn below(limit: RawFd) -> Self {
        Self { ceiling: limit - RESERVED.min(limit / 8) }
    }

    /// May a connection keep this socket?
    pub(super) fn allow(&self, socket: &impl AsRawFd) -> bool {
        socket.as_raw_fd() < self.ceiling
    }
}

/// Out of the text of proc(5)'s `limits`; `None` where it is unlimited or not told.
fn soft_limit(limits: &str) -> Option<RawFd> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_are_kept_back() {
        let text = "Max processes  7  7  processes\nMax open files   1024   4096   files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files"), None);
        assert_eq!(Descriptors::below(1024).ceiling, 1024 - 128);
        assert_eq!(Descriptors::below(64).ceiling, 56);
        let stdin = std::io::stdin();
        assert!(Descriptors::below(1).allow(&stdin));
        assert!(!Descriptors::below(0).allow(&stdin));
        assert!(soft_limit(&std::fs::read_to_string("/proc/self/limits").unwrap()).is_some());
    }
}
