//! Choosing among the workloads of a service, of which there may be thousands.

use std::sync::Arc;

use mesh::{Health, HealthPolicy, Members, Mode, Preference, Service, Workload};

use super::Request;
use super::endpoint::{Purpose, Way, scaled};

/// What is looked for.
#[derive(Debug)]
pub(super) struct Search<'a, 'r> {
    request: &'r Request<'a>,
    service: &'r Service,
    port: u16,
    purpose: Purpose,
    known: Siblings<'a>,
}

/// A usable workload of a service; there may be thousands, so nothing is owned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) peer: &'a Arc<Workload>,
    rank: usize,
    pub(super) way: Way<'a>,
    pub(super) port: u16,
}

/// How well a workload fits if it is on the client's node, and the port that it listens on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) matched: usize,
    pub(super) port: u16,
}

/// How the last few workloads fit. The thousands of a service are siblings of a few, and
/// siblings fit alike.
#[derive(Debug, Default)]
struct Siblings<'a> {
    last: [Option<(&'a Workload, Option<Fit>)>; REMEMBERED],
    next: usize,
}

/// More than there are zones in most regions.
const REMEMBERED: usize = 4;

/// Of more workloads than this some are drawn first: looking at all of them takes long.
const MANY: usize = 64;

/// So many. If one workload in eight can be chosen, one time in seventy none is found, and
/// all are looked at.
const DRAWS: usize = 32;

impl<'a> Siblings<'a> {
    fn fit(&mut self, peer: &'a Workload, find: impl FnOnce() -> Option<Fit>) -> Option<Fit> {
        let alike = |(other, _): &&(&Workload, Option<Fit>)| peer.is_sibling_of(other);
        if let Some((_, fit)) = self.last.iter().flatten().find(alike) {
            return *fit;
        }
        let fit = find();
        self.last[self.next] = Some((peer, fit));
        self.next = (self.next + 1) % REMEMBERED;
        fit
    }
}

impl<'a, 'r> Search<'a, 'r> {
    pub(super) fn new(
        request: &'r Request<'a>,
        service: &'r Service,
        port: u16,
        purpose: Purpose,
    ) -> Self {
        Self { request, service, port, purpose, known: Siblings::default() }
    }

    /// One of the best, with the chance of its capacity.
    pub(super) fn choose(&mut self, sample: u64) -> Option<Candidate<'a>> {
        let members = self.request.view.members(&self.service.key);
        match members.all().len() {
            0..=MANY => self.weigh(members.all(), sample),
            _ => self.among_many(members, fastrand::Rng::with_seed(sample)),
        }
    }

    /// The same without a look at each, where that is possible.
    fn among_many(
        &mut self,
        members: Members<'a>,
        mut chance: fastrand::Rng,
    ) -> Option<Candidate<'a>> {
        let mut highest = match members.kinds() {
            // No member can match more than its kind, and none of a kind that does not fit.
            Some(kinds) => kinds.iter().filter_map(|it| self.fit(it)).map(|it| it.matched).max()?,
            None => self.highest_rank(),
        };
        if let Some(of_node) = self.rank_of_node() {
            // Few are on the client's node, and only they can match more than what comes
            // before it.
            let near = members.on_node(&self.request.source.node);
            if self.best(near).is_some_and(|(best, _)| best > of_node) {
                return self.weigh(near, chance.u64(..));
            }
            if self.service.load_balancing.mode == Mode::Strict {
                return None;
            }
            highest = highest.min(of_node);
        }
        let drawn = (0..DRAWS).find_map(|_| self.draw(members, highest, chance.u64(..)));
        drawn.or_else(|| self.weigh(members.all(), chance.u64(..)))
    }

    /// One of all, with the chance of its capacity, if it can be chosen and no other can
    /// match more preferences.
    fn draw(&mut self, members: Members<'a>, highest: usize, sample: u64) -> Option<Candidate<'a>> {
        let most = u64::from(members.most_capacity());
        let point = scaled(sample, most * members.all().len() as u64);
        let number = usize::try_from(point.checked_div(most)?).ok()?;
        let peer = members.all().get(number)?;
        let heavy_enough = point % most < u64::from(peer.capacity);
        heavy_enough.then(|| self.candidate(peer)).flatten().filter(|it| it.rank == highest)
    }

    /// Looks at each.
    fn weigh(&mut self, workloads: &'a [Arc<Workload>], sample: u64) -> Option<Candidate<'a>> {
        let (best, total) = self.best(workloads)?;
        let mut point = scaled(sample, total);
        workloads.iter().filter_map(|it| self.candidate(it)).filter(|it| it.rank == best).find(
            |Candidate { peer, .. }| {
                let capacity = u64::from(peer.capacity);
                let here = point < capacity;
                point = point.saturating_sub(capacity);
                here
            },
        )
    }

    /// The highest rank, and the capacity of all that have it; `None` where none can be
    /// chosen.
    fn best(&mut self, workloads: &'a [Arc<Workload>]) -> Option<(usize, u64)> {
        let mut found: Option<(usize, u64)> = None;
        for Candidate { peer, rank, .. } in workloads.iter().filter_map(|it| self.candidate(it)) {
            let capacity = u64::from(peer.capacity);
            found = match found {
                Some((best, _)) if rank < best => found,
                Some((best, total)) if rank == best => Some((best, total + capacity)),
                _ => Some((rank, capacity)),
            };
        }
        found
    }

    fn candidate(&mut self, peer: &'a Arc<Workload>) -> Option<Candidate<'a>> {
        let Self { request, service, purpose, .. } = *self;
        let Fit { matched, port } = self.fit(peer)?;
        let elsewhere = |at: &usize| *at < matched && request.source.node != peer.node;
        let rank = self.rank_of_node().filter(elsewhere).unwrap_or(matched);
        if service.load_balancing.mode == Mode::Strict && rank < self.highest_rank() {
            return None;
        }
        if service.load_balancing.health == HealthPolicy::OnlyHealthy
            && peer.health != Health::Healthy
        {
            return None;
        }
        let way = request.way(peer, request.dialled().ip(), service.ip_families, purpose)?;
        Some(Candidate { peer, rank, way, port })
    }

    fn fit(&mut self, peer: &'a Workload) -> Option<Fit> {
        let Self { request, service, port, purpose, .. } = *self;
        self.known.fit(peer, || request.fit(service, peer, port, purpose))
    }

    /// That of a workload which matches everything.
    fn highest_rank(&self) -> usize {
        match self.service.load_balancing.mode {
            Mode::Unspecified | Mode::Passthrough => 0,
            Mode::Failover | Mode::Strict => self.service.load_balancing.preferences.len(),
        }
    }

    /// That of a workload which matches everything up to the node, if the node counts.
    fn rank_of_node(&self) -> Option<usize> {
        let wanted = &self.service.load_balancing.preferences[..self.highest_rank()];
        wanted.iter().position(|it| *it == Preference::Node)
    }
}
