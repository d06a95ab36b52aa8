//! One line for each thing: what was done on standard output, what went wrong beside it.

use std::io::{self, Stdout, Write};

/// Writes lines as things happen.
pub(super) struct Report {
    out: Stdout,
}

impl Report {
    pub(super) fn new(out: Stdout) -> Self {
        Self { out }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        self.line(&format!("note: {text}"))
    }

    pub(super) fn notes(&mut self, notes: &[String]) -> io::Result<()> {
        notes.iter().try_for_each(|note| self.note(note))
    }

    pub(super) fn trouble(&mut self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{text}")
    }

    pub(super) fn troubles(&mut self, troubles: &[String]) -> io::Result<()> {
        troubles.iter().try_for_each(|trouble| self.trouble(trouble))
    }

    /// What was to be done, and what came of it.
    pub(super) fn outcome(&mut self, what: &str, done: Result<(), String>) -> io::Result<()> {
        match done {
            Ok(()) => self.line(what),
            Err(error) => self.trouble(&format!("failed: {what}: {error}")),
        }
    }
}
