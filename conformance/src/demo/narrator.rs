//! Prints the story; shows progress for whatever takes longer than two seconds.

use std::fmt::{self, Display};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The first sign of progress, and the pace of the following ones.
const PROGRESS: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Narrator {
    chapters: AtomicUsize,
}

impl Narrator {
    /// A numbered heading.
    pub(super) fn chapter(&self, title: &str) {
        let number = self.chapters.fetch_add(1, Ordering::Relaxed) + 1;
        line(format_args!("\n{number}. {title}"));
    }

    /// A command that was run.
    pub(super) fn ran(&self, command: &str) {
        line(format_args!("   $ {command}"));
    }

    /// Something that was observed.
    pub(super) fn saw(&self, what: impl Display) {
        for seen in what.to_string().lines() {
            line(format_args!("   | {seen}"));
        }
    }

    /// Something the reader should know.
    pub(super) fn say(&self, text: impl Display) {
        for said in text.to_string().lines() {
            line(format_args!("     {said}"));
        }
    }

    /// Waits for something that can fail, with progress; `what` is said as a fact once it
    /// is one.
    pub(super) async fn wait<T, E>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let started = Instant::now();
        let result = self.quietly(what, work).await;
        if result.is_ok() {
            self.saw(format!("{what} ({:.1} s)", started.elapsed().as_secs_f32()));
        }
        result
    }

    /// Waits, with progress.
    pub(super) async fn quietly<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut dots = false;
        loop {
            tokio::select! {
                result = &mut work => {
                    if dots {
                        line(format_args!(""));
                    }
                    return result;
                }
                () = tokio::time::sleep(PROGRESS) => {
                    if dots {
                        write(format_args!("."));
                    } else {
                        write(format_args!("   … until {what} "));
                        dots = true;
                    }
                }
            }
        }
    }
}

fn line(text: fmt::Arguments<'_>) {
    write(format_args!("{text}\n"));
}

/// A reader that went away does not end the story: the lab is still to be removed.
fn write(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}
