//! The log: a line to standard error for the runtime, and the same line with time and
//! subject to a file of bounded size, if the conflist entry names one.
//!
//! Many plugins write to one file at once: each line is one write to its end. The one that
//! finds the file full gives it the name of the last full one and begins another; a lock that
//! nobody waits for keeps two from doing so for the same file.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::config::LogFile;
use crate::invocation::Invocation;

/// Longest line of the file, in bytes. A pipe is as long, and no message needs more.
const MAX_LINE: usize = 4096;

/// The log of one execution.
#[derive(Debug)]
pub struct Journal {
    begin: Instant,
    /// Verb and pod.
    subject: String,
    /// What tells this attachment from others of the pod, for the file.
    key: String,
    file: Option<LogFile>,
}

impl Journal {
    /// For what is not understood, hence names no file.
    pub fn of_nobody() -> Self {
        let (subject, key) = Default::default();
        Self { begin: Instant::now(), subject, key, file: None }
    }

    /// For what the runtime asks.
    pub fn of(invocation: &Invocation) -> Self {
        let (verb, attachment, settings) = match invocation {
            Invocation::Version { .. } => return Self::of_nobody(),
            Invocation::Add(it) => ("ADD", Some(&it.attachment), &it.settings),
            Invocation::Check(it) => ("CHECK", Some(&it.attachment), &it.settings),
            Invocation::Del(it) => ("DEL", Some(&it.attachment), &it.settings),
            Invocation::Status(settings) => ("STATUS", None, settings),
            Invocation::Gc(it) => ("GC", None, &it.settings),
        };
        let pod = attachment.and_then(|attachment| attachment.pod.as_ref());
        let subject = match pod {
            Some(pod) => format!("{verb} {}/{}: ", pod.namespace, pod.name),
            None => format!("{verb}: "),
        };
        let uid = pod.and_then(|pod| pod.uid.as_deref()).unwrap_or("-");
        let key = attachment.map(|it| format!(" {uid} {} {}", it.container_id, it.ifname));
        let (key, file) = (key.unwrap_or_default(), settings.log_file.clone());
        Self { subject, key, file, ..Self::of_nobody() }
    }

    /// Writes a line. A log that cannot be written keeps nothing from being done.
    pub fn say(&self, line: impl Display) {
        // Nobody is left to hear that nobody listens.
        let _ = writeln!(io::stderr(), "sluice-cni: {}{line}", self.subject);
        let Some(file) = &self.file else { return };
        if let Err(error) = append(file, &self.line(&line.to_string())) {
            let _ = writeln!(io::stderr(), "sluice-cni: log to {}: {error}", file.path.display());
        }
    }

    fn line(&self, text: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (time, took) = (rfc3339(now), self.begin.elapsed().as_secs_f64() * 1000.0);
        let pid = std::process::id();
        let Self { subject, key, .. } = self;
        let line = format!("{time} sluice-cni[{pid}]{key} {subject}{text} ({took:.1} ms)");
        // What others said must not look like lines of ours.
        let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.truncate(line.floor_char_boundary(MAX_LINE - 1));
        line.push('\n');
        line
    }
}

fn append(to: &LogFile, line: &str) -> io::Result<()> {
    let mut file = open(&to.path)?;
    if file.metadata()?.len() + line.len() as u64 > to.max_bytes {
        rotate(&file, &to.path)?;
        file = open(&to.path)?;
    }
    file.write_all(line.as_bytes())
}

/// For root alone, because it names pods; no link is followed, because a folder may be
/// somebody else's.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Whoever does not get the lock knows that another one does it.
fn rotate(full: &File, path: &Path) -> io::Result<()> {
    let Ok(lock) = Flock::lock(full.try_clone()?, FlockArg::LockExclusiveNonblock) else {
        return Ok(());
    };
    let own = lock.metadata()?;
    // Somebody may have done it since it was opened.
    match std::fs::symlink_metadata(path) {
        Ok(named) if (own.dev(), own.ino()) == (named.dev(), named.ino()) => {
            std::fs::rename(path, full_name(path))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where the last full file is kept.
fn full_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// In UTC, to the millisecond. The calendar repeats after 400 years of 146,097 days; years
/// begin in March here, so that a leap day is the last.
fn rfc3339(since_1970: Duration) -> String {
    let (seconds, millis) = (since_1970.as_secs(), since_1970.subsec_millis());
    let days = seconds / 86400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_735_689_600, "2025-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_millis(seconds * 1000 + 7)), written);
        }
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        let journal = Journal { subject: "ADD a/b: ".to_owned(), ..Journal::of_nobody() };
        let line = journal.line("one\ntwo\x1b[31m\r");
        assert!(line.contains("ADD a/b: one two [31m "), "{line}");
        assert_eq!(line.matches(char::is_control).collect::<Vec<_>>(), ["\n"]);
        let line = journal.line(&"é".repeat(10_000));
        assert!(line.len() <= MAX_LINE && line.ends_with('\n'), "{}", line.len());
    }
}
