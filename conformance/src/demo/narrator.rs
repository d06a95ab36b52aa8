//! Prints the story; shows progress for whatever takes longer than two seconds.

use std::fmt::Display;
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
        println!("\n{number}. {title}");
    }

    /// A command that was run.
    pub(super) fn ran(&self, command: &str) {
        println!("   $ {command}");
    }

    /// Something that was observed.
    pub(super) fn saw(&self, what: impl Display) {
        for line in what.to_string().lines() {
            println!("   | {line}");
        }
    }

    /// Something the reader should know.
    pub(super) fn say(&self, text: impl Display) {
        for line in text.to_string().lines() {
            println!("     {line}");
        }
    }

    /// Waits for something that can fail, with progress.
    pub(super) async fn wait<T, E>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let started = Instant::now();
        let result = self.quietly(what, work).await;
        if result.is_ok() {
            println!("   | {what}: {:.1} s", started.elapsed().as_secs_f32());
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
                        println!();
                    }
                    return result;
                }
                () = tokio::time::sleep(PROGRESS) => {
                    if dots {
                        print!(".");
                    } else {
                        print!("   … {what} ");
                        dots = true;
                    }
                    // A terminal that went away does not end the story.
                    let _ = std::io::stdout().flush();
                }
            }
        }
    }
}
