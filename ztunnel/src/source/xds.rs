//! The delta xDS client: one stream for both types, opened again for as long as ztunnel
//! lives.
//!
//! ```text
//! connect ──► open stream ──► response ──► apply, reply ──► response ...
//!    ▲             │              │
//!    └── back off ◄┴── any end ◄──┘     what was received stays in use meanwhile
//! ```

use std::io;
use std::time::{Duration, Instant};

use mesh::View;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::apply::{Applier, Core};
use super::error::StreamError;
use super::session::{Caller, MAX_MESSAGE, Session};
use super::state::{Rules, State};
use super::{Metrics, ViewWriter};
use crate::admin::Readiness;
use crate::backoff::Backoff;
use crate::identity::ControlChannel;

const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A stream that ends in good order sooner than this is no sign of health.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// The client; it owns the writing end of the view.
#[derive(Debug)]
pub struct XdsClient {
    /// For logs.
    address: String,
    channel: ControlChannel,
    session: Session,
    complete: bool,
}

/// Where the client tells what it learns.
#[derive(Debug)]
pub struct Audience {
    /// The proxies.
    pub writer: ViewWriter,
    /// Counters.
    pub metrics: Metrics,
    /// Whether ztunnel can work.
    pub readiness: Readiness,
}

impl XdsClient {
    /// Puts the client together; nothing is connected yet. `address` is for logs, `base`
    /// is what is known already.
    ///
    /// # Errors
    /// The thread that applies responses cannot be started.
    pub fn new(
        address: String,
        channel: ControlChannel,
        caller: Caller,
        audience: Audience,
        rules: Rules,
        base: View,
    ) -> io::Result<Self> {
        let session = Session::new(caller, audience, rules, base)?;
        Ok(Self { address, channel, session, complete: false })
    }

    /// Keeps a stream open until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let begin = Instant::now();
            let error = tokio::select! {
                () = stop.cancelled() => return,
                end = self.stream() => end,
            };
            self.session.metrics.connected.set(0);
            self.session.metrics.ended(error.reason());
            match self.session.applier.run(|core| core.complete()).await {
                Ok(complete) => self.complete = complete,
                // Whoever runs us ends the process.
                Err(gone) => return warn!(%gone, "the control plane client cannot go on"),
            }
            if earned_reset(&error, self.session.progress, begin.elapsed()) {
                backoff.reset();
            }
            let told = backoff.worth_telling();
            let wait = backoff.wait();
            if told {
                self.report(&error, wait);
            } else {
                debug!(address = self.address, %error, retry_in = ?wait, "still no stream");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn stream(&mut self) -> StreamError {
        debug!(address = self.address, "connecting to the control plane");
        self.session.progress = false;
        match self.channel.connect().await {
            Ok(channel) => self.session.stream(channel, &self.address).await,
            Err(error) => error.into(),
        }
    }

    fn report(&self, error: &StreamError, wait: Duration) {
        let (address, retry_in) = (self.address.as_str(), format!("{wait:?}"));
        if error.benign() {
            info!(address, retry_in, reason = %error, "control plane stream ended");
        } else {
            let view = if self.complete {
                "the last known state stays in use"
            } else {
                "no mesh view yet, captured pods have no traffic"
            };
            warn!(address, retry_in, %error, view, "no stream to the control plane");
        }
    }
}

/// May the next attempt come at once? After a benign end of a stream that was of use, and
/// after any end of one that lived for long. A control plane that answers and then ends
/// the stream again and again, in whichever words, must not be asked for everything a
/// hundred times a second.
fn earned_reset(error: &StreamError, progress: bool, lived: Duration) -> bool {
    let life = if error.benign() { SHORT_LIFE } else { LONGEST_WAIT };
    progress && lived >= life
}

impl Session {
    pub(super) fn new(
        caller: Caller,
        audience: Audience,
        rules: Rules,
        base: View,
    ) -> io::Result<Self> {
        let Audience { writer, metrics, readiness } = audience;
        let view = writer.reader();
        let core = Core::new(State::new(rules, base), writer, metrics.clone(), readiness);
        let applier = Applier::start(core)?;
        Ok(Self { caller, applier, view, metrics, progress: false, max_message: MAX_MESSAGE })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::source::error::refused;

    #[test]
    fn only_ends_that_promise_better_are_followed_by_an_attempt_at_once() {
        let (short, some, long) = (Duration::from_millis(20), SHORT_LIFE, LONGEST_WAIT);
        let unknown = || refused("receive")(Status::unknown("x"));
        let internal = || refused("receive")(Status::internal("x"));
        let cases = [
            (StreamError::Complete, true, short, false),
            (StreamError::Complete, true, some, true),
            (StreamError::Complete, false, some, false),
            (unknown(), true, some, true),
            (refused("receive")(Status::cancelled("x")), true, some, true),
            (refused("receive")(Status::deadline_exceeded("x")), true, some, true),
            (StreamError::AskAgain, true, some, true),
            (internal(), true, some, false),
            (internal(), true, long, true),
            (internal(), false, long, false),
        ];
        for (error, progress, lived, expected) in cases {
            assert_eq!(earned_reset(&error, progress, lived), expected, "{error} {lived:?}");
        }
    }
}
