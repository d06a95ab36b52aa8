//! Finding out that a peer is gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::Settings;

/// Asks the peer again and again whether it is there. Polled by the task that drives the
/// connection, which also moves the pings.
#[derive(Debug)]
pub(super) struct Keepalive {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    asked: Asked,
    interval: Duration,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    Waiting,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// The peer has answered.
    Alive,
    /// It did not, for too long.
    Silent,
}

impl Keepalive {
    pub(super) fn new(pings: PingPong, settings: &Settings) -> Self {
        Self {
            pings,
            timer: Box::pin(sleep(settings.ping_interval)),
            asked: Asked::No,
            interval: settings.ping_interval,
            deadline: settings.ping_deadline,
        }
    }

    /// Ready once for every question; to be polled until it is not.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pulse> {
        if self.asked == Asked::No {
            ready!(self.timer.as_mut().poll(cx));
            // Fails for a connection that is ending, which will be heard elsewhere, and
            // within the deadline.
            let _ = self.pings.send_ping(Ping::opaque());
            self.asked = Asked::Waiting;
            self.timer.as_mut().reset(Instant::now() + self.deadline);
        }
        if let Poll::Ready(Ok(_)) = self.pings.poll_pong(cx) {
            self.asked = Asked::No;
            self.timer.as_mut().reset(Instant::now() + self.interval);
            return Poll::Ready(Pulse::Alive);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Pulse::Silent)
    }
}
