//! Keeping file descriptors for those who must not fail: administration, the control
//! plane, the agent, and pods that have few connections.
//!
//! The kernel gives the lowest free number, so a high number means that so many are in
//! use. What has one of the last numbers is shed at once instead of taking the last
//! descriptor:
//!
//! ```text
//! 0 ─── everybody ─── crowded ─── pods with few connections ─── ceiling ─── ztunnel ─── limit
//! ```

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::pod::PodShared;

/// Never given to connections, or an eighth of all where there are few.
const RESERVED: RawFd = 128;

/// Between two lines of the log about it.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What connections may use.
#[derive(Debug)]
pub(super) struct Descriptors {
    limit: RawFd,
    ceiling: RawFd,
    crowded: RawFd,
    /// How many connections are few.
    few: usize,
    told: Mutex<Told>,
}

impl Descriptors {
    /// By the limit of this process. Without /proc nothing is reserved.
    pub(super) fn of_this_process() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::below(soft_limit(&limits).unwrap_or(RawFd::MAX))
    }

    fn below(limit: RawFd) -> Self {
        let ceiling = limit - RESERVED.min(limit / 8);
        let spare = ceiling / 4;
        // Eight pods find place in what is spared for such, or four if their connections
        // take two descriptors each.
        let few = usize::try_from(spare / 8).unwrap_or(0);
        Self { limit, ceiling, crowded: ceiling - spare, few, told: Mutex::default() }
    }

    /// May a pod with so many connections keep this socket?
    pub(super) fn allow(&self, socket: &impl AsRawFd, held: usize) -> bool {
        let number = socket.as_raw_fd();
        number < self.crowded || (number < self.ceiling && held < self.few)
    }

    /// There was none for a connection of `pod`. The log hears of it now and then.
    pub(super) fn tell(&self, pod: &PodShared) {
        if let Some(times) = self.worth_telling(Instant::now()) {
            tracing::warn!(pod = %pod.name(), connections = pod.held(), times, limit = self.limit,
                "out of file descriptors: new connections of busy pods are closed; raise the \
                 limit of open files (LimitNOFILE= of systemd, or the container runtime's), or \
                 lower MAX_INBOUND_CONNECTIONS and MAX_OUTBOUND_CONNECTIONS");
        }
    }

    /// How often since the last line, if it is time for the next.
    fn worth_telling(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        if told.last.is_some_and(|last| now.duration_since(last) < TOLD_EVERY) {
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.since))
    }
}

/// What the log was told about.
#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

/// Are there no descriptors left, of the process or of the machine?
pub(super) fn exhausted(error: &io::Error) -> bool {
    let numbers = [Errno::EMFILE, Errno::ENFILE].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

/// Out of the text of proc(5)'s `limits`; `None` where it is unlimited or not told.
fn soft_limit(limits: &str) -> Option<RawFd> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(RawFd);

    impl AsRawFd for Number {
        fn as_raw_fd(&self) -> RawFd {
            self.0
        }
    }

    #[test]
    fn the_limit_is_read() {
        let text = "Max processes  7  7  processes\nMax open files   1024   4096   files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files"), None);
        assert!(soft_limit(&std::fs::read_to_string("/proc/self/limits").unwrap()).is_some());
    }

    #[test]
    fn the_last_numbers_are_for_pods_with_few_connections_and_then_for_nobody() {
        // Limit, the last number for everybody, the last for some, how many are few.
        for (limit, everybody, some, few) in [
            (1024, 671, 895, 28),
            (256, 167, 223, 7),
            (RawFd::MAX, 1_610_612_639, 2_147_483_518, 67_108_859),
        ] {
            let descriptors = Descriptors::below(limit);
            let allow = |number, held| descriptors.allow(&Number(number), held);
            assert!(allow(everybody, usize::MAX), "{descriptors:?}");
            assert!(!allow(everybody + 1, few) && allow(everybody + 1, few - 1), "{descriptors:?}");
            assert!(allow(some, 0) && !allow(some + 1, 0), "{descriptors:?}");
        }
        assert!(!Descriptors::below(0).allow(&Number(0), 0));
    }

    #[test]
    fn a_flood_is_told_now_and_then() {
        let descriptors = Descriptors::below(1024);
        let start = Instant::now();
        assert_eq!(descriptors.worth_telling(start), Some(1));
        assert_eq!(descriptors.worth_telling(start), None);
        assert_eq!(descriptors.worth_telling(start + TOLD_EVERY / 2), None);
        assert_eq!(descriptors.worth_telling(start + TOLD_EVERY), Some(3));
    }

    #[test]
    fn out_of_descriptors_is_told_from_other_failures() {
        assert!(exhausted(&io::Error::from(Errno::EMFILE)));
        assert!(exhausted(&io::Error::from(Errno::ENFILE)));
        assert!(!exhausted(&io::Error::from(Errno::ENOMEM)));
        assert!(!exhausted(&io::Error::other("no")));
    }
}
