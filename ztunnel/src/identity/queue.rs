//! A few calls to the CA at one time, the urgent ones first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who waits for a certificate; the urgent ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A connection of an application.
    Connection,
    /// A pod that has just started, and may soon have connections.
    Start,
    /// Nobody: what there is is good for a while.
    Refresh,
}

/// Gives out a fixed number of permits.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    free: usize,
    /// By urgency.
    waiting: [VecDeque<oneshot::Sender<Permit>>; 3],
}

/// The right to make one call, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit(Queue);

impl Queue {
    pub(super) fn new(permits: usize) -> Self {
        Self(Arc::new(Mutex::new(Places { free: permits, waiting: Default::default() })))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit, behind everything that is as urgent or more. May be dropped.
    pub(super) async fn permit(&self, urgency: Urgency) -> Permit {
        let ticket = {
            let mut places = self.places();
            if places.free > 0 {
                places.free -= 1;
                return Permit(self.clone());
            }
            let (sender, ticket) = oneshot::channel();
            let waiting = &mut places.waiting[urgency as usize];
            waiting.retain(|other| !other.is_closed());
            waiting.push_back(sender);
            ticket
        };
        ticket.await.expect("senders are dropped only after they were used")
    }

    /// Who waits now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.places().waiting.iter().flatten().filter(|ticket| !ticket.is_closed()).count()
    }

    /// Does a connection wait?
    #[cfg(test)]
    pub(super) fn is_urgent(&self) -> bool {
        self.places().waiting[Urgency::Connection as usize].iter().any(|one| !one.is_closed())
    }
}

impl Drop for Permit {
    /// Hands it to the next who still waits.
    fn drop(&mut self) {
        let next = {
            let mut places = self.0.places();
            let next = places.waiting.iter_mut().find_map(|line| {
                line.retain(|ticket| !ticket.is_closed());
                line.pop_front()
            });
            if next.is_none() {
                places.free += 1;
            }
            next
        };
        if let Some(ticket) = next {
            // Given up in this moment: the permit comes back and is handed on by its drop.
            drop(ticket.send(Permit(self.0.clone())));
        }
    }
}
