//! Finding out that a peer is gone.

mod silence;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::Settings;
use super::line::Line;
use silence::{Silence, Verdict};

/// Asks the peer again and again whether it is there, and at once when somebody doubts
/// it. Polled by the task that drives the
/// connection, which also moves the pings.
#[derive(Debug)]
pub(super) struct Keepalive {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    /// While a question is open.
    silence: Option<Silence>,
    line: Arc<Line>,
    interval: Duration,
    deadline: Duration,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// The peer has answered.
    Alive,
    /// Nothing came for too long.
    Silent,
}

impl Keepalive {
    pub(super) fn new(pings: PingPong, line: Arc<Line>, settings: &Settings) -> Self {
        Self {
            pings,
            timer: Box::pin(sleep(settings.ping_interval)),
            silence: None,
            line,
            interval: settings.ping_interval,
            deadline: settings.ping_deadline,
        }
    }

    /// Ready once for every question; to be polled until it is not.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pulse> {
        let doubted = self.line.doubted(cx);
        if self.silence.is_none() {
            if !doubted {
                ready!(self.timer.as_mut().poll(cx));
            }
            self.ask();
        }
        if let Poll::Ready(Ok(_)) = self.pings.poll_pong(cx) {
            self.silence = None;
            self.timer.as_mut().reset(Instant::now() + self.interval);
            return Poll::Ready(Pulse::Alive);
        }
        let Some(silence) = &mut self.silence else { return Poll::Pending };
        // The clock is read only when something came, and in the end.
        silence.hear(self.line.heard(), Instant::now);
        loop {
            ready!(self.timer.as_mut().poll(cx));
            match silence.verdict(Instant::now()) {
                Verdict::Wait(until) => self.timer.as_mut().reset(until),
                Verdict::Silent => return Poll::Ready(Pulse::Silent),
            }
        }
    }

    fn ask(&mut self) {
        // Fails for a connection that is ending, which will be heard elsewhere, and within
        // the deadline.
        let _ = self.pings.send_ping(Ping::opaque());
        let now = Instant::now();
        self.silence = Some(Silence::new(self.line.heard(), now, self.deadline));
        self.timer.as_mut().reset(now + self.deadline);
    }
}
