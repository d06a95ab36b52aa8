//! What is known about one captured pod's kernel, and what has changed there since it was
//! compared with what it should be.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capture::Options;
use netns::{Fence, NetnsId, PodNetns};
use nix::sys::socket::SockProtocol;
use tokio::time::Instant;

use super::ObserveError;
use super::message::{Author, Message, Received, STRANGERS, Way, get_generation, get_route};
use super::socket::{Heard, NetlinkSocket, Noticed, make};
use crate::inside::inside;

/// `NFNLGRP_NFTABLES`, 7.
const RULESETS: u32 = 1 << 6;
/// `RTNLGRP_LINK` (a device that goes down takes IPv4 routes with it without a word about
/// them), `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR` (the switch of IPv6 gives and takes the
/// address of the loopback device), `_IPV6_ROUTE`, `_IPV6_RULE`.
const ROUTES: u32 = 1 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;

/// What a light look sees: the generation of the ruleset and the kernel's own answers to
/// where packets would go. Two looks that see the same see the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    generation: u32,
    /// Of an application's answer, by IPv4 and by IPv6.
    marked: [Way; 2],
    /// To the pod itself by IPv6, which has a way where IPv6 is switched on.
    itself: Way,
    /// What was heard of so far that the rest may not show. Counted, because two may look at
    /// a pod at a time, and only one of them hears of it.
    touches: u64,
}

impl Sight {
    /// Whether IPv6 is switched on.
    #[must_use]
    pub fn has_v6(&self) -> bool {
        matches!(self.itself, Way::Route { .. })
    }
}

/// What a full comparison has found to be right.
#[derive(Clone, Debug)]
struct Accepted {
    sight: Sight,
    options: Options,
    at: Instant,
}

#[derive(Debug, Default)]
struct Book {
    accepted: Option<Accepted>,
    /// How often something was changed that a light look may not see.
    touches: u64,
    /// Our table was deleted and is not back.
    table_gone: bool,
    author: Option<Author>,
}

/// Two sockets in a pod. They keep its namespace alive: whoever lets go of the pod drops
/// this first.
#[derive(Debug)]
pub struct Watch {
    id: NetnsId,
    rulesets: NetlinkSocket,
    routes: NetlinkSocket,
    book: Mutex<Book>,
}

impl Watch {
    pub(super) async fn open(fence: &Fence, netns: &PodNetns) -> Result<Self, ObserveError> {
        let job = || {
            let rulesets = make(SockProtocol::NetlinkNetFilter, RULESETS)?;
            Ok((rulesets, make(SockProtocol::NetlinkRoute, ROUTES)?))
        };
        let made = inside(fence, netns, job).await?.map_err(ObserveError::Socket)?;
        Ok(Self {
            id: netns.id(),
            rulesets: NetlinkSocket::new(made.0).map_err(ObserveError::Socket)?,
            routes: NetlinkSocket::new(made.1).map_err(ObserveError::Socket)?,
            book: Mutex::default(),
        })
    }

    /// The namespace that is watched.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Until the kernel has news. They stay until the next [`Watch::look`].
    ///
    /// # Errors
    /// [`ObserveError::Socket`].
    pub async fn noticed(&self) -> Result<(), ObserveError> {
        let noticed = tokio::select! {
            noticed = self.rulesets.noticed() => noticed,
            noticed = self.routes.noticed() => noticed,
        };
        if noticed.map_err(ObserveError::Socket)? == Noticed::Overrun {
            self.lock().touches += 1;
        }
        Ok(())
    }

    /// Looks: some ten system calls, no process, no other thread. Takes in all news.
    ///
    /// # Errors
    /// [`ObserveError::Socket`]; [`ObserveError::NoAnswer`] when news took all the room, which
    /// they no longer do when it is asked again.
    pub fn look(&self) -> Result<Sight, ObserveError> {
        // Held meanwhile, or somebody else would hear our answers.
        let mut book = self.lock();
        self.rulesets.ask(&get_generation(0)).map_err(ObserveError::Socket)?;
        let questions = [(STRANGERS[0], zds::CONNMARK.value), (STRANGERS[1], zds::CONNMARK.value)];
        let questions = questions.into_iter().chain([(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)]);
        let questions: Vec<u8> = (0..).zip(questions).flat_map(question).collect();
        self.routes.ask(&questions).map_err(ObserveError::Socket)?;
        let rulesets = self.rulesets.hear().map_err(ObserveError::Socket)?;
        let routes = self.routes.hear().map_err(ObserveError::Socket)?;
        book.note(&rulesets, &routes);
        let touches = book.touches;
        drop(book);
        let way = |sequence| way(&routes.answers, sequence).ok_or(ObserveError::NoAnswer);
        Ok(Sight {
            generation: generation(&rulesets.answers).ok_or(ObserveError::NoAnswer)?,
            marked: [way(0)?, way(1)?],
            itself: way(2)?,
            touches,
        })
    }

    /// What was seen before a full comparison found these options to be in place: as long as
    /// the same is seen, they are.
    pub fn accept(&self, sight: Sight, options: &Options) {
        let mut book = self.lock();
        book.accepted = Some(Accepted { sight, options: options.clone(), at: Instant::now() });
        (book.table_gone, book.author) = (false, None);
    }

    /// Whether these options are in place as far as can be told without a full comparison,
    /// and the last of those is not older than `longest`.
    #[must_use]
    pub fn stands(&self, sight: &Sight, options: &Options, longest: Duration) -> bool {
        let book = self.lock();
        let stands = |accepted: &Accepted| {
            accepted.sight == *sight
                && accepted.options == *options
                && accepted.at.elapsed() < spread(longest, self.id.ino)
        };
        book.accepted.as_ref().is_some_and(stands)
    }

    /// Whether the ruleset is the one that was last found right, whatever else has changed.
    #[must_use]
    pub fn has_accepted_rules(&self, sight: &Sight) -> bool {
        let generation = |accepted: &Accepted| accepted.sight.generation == sight.generation;
        self.lock().accepted.as_ref().is_some_and(generation)
    }

    /// Whether IPv6 was off when the pod was last found right.
    #[must_use]
    pub fn had_no_v6(&self) -> bool {
        self.lock().accepted.as_ref().is_some_and(|accepted| !accepted.sight.has_v6())
    }

    /// Whether our table is known to be gone: no time is to be lost with a comparison.
    #[must_use]
    pub fn has_lost_table(&self) -> bool {
        self.lock().table_gone
    }

    /// Who changed the ruleset last, since it was found right.
    #[must_use]
    pub fn author(&self) -> Option<Author> {
        self.lock().author.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Changes are assignments: a panic leaves none half done.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn note(&mut self, rulesets: &Heard, routes: &Heard) {
        // A rule beside ours may lead packets past it that nobody has asked about.
        let concerns = routes.news.iter().any(|news| concerns_us(&news.message));
        self.touches += u64::from(concerns || rulesets.overrun || routes.overrun);
        for news in &rulesets.news {
            match &news.message {
                Message::Generation(_, Some(author)) => self.author = Some(author.clone()),
                Message::TableAdded(name) if name == capture::TABLE => self.table_gone = false,
                Message::TableDeleted(name) if name == capture::TABLE => self.table_gone = true,
                _ => {}
            }
        }
    }
}

fn concerns_us(news: &Message) -> bool {
    match news {
        Message::Rule => true,
        Message::Route(Way::Route { table, .. }) => *table == zds::ROUTE.table,
        _ => false,
    }
}

fn question((sequence, (to, mark)): (u32, (IpAddr, u32))) -> Vec<u8> {
    get_route(sequence, to, mark)
}

fn generation(answers: &[Received]) -> Option<u32> {
    answers.iter().find_map(|answer| match answer.message {
        Message::Generation(generation, _) => Some(generation),
        _ => None,
    })
}

fn way(answers: &[Received], sequence: u32) -> Option<Way> {
    let answer = answers.iter().find(|answer| answer.sequence == sequence)?;
    match answer.message {
        Message::Route(way) => Some(way),
        Message::Failed(error) => Some(Way::None(error)),
        _ => None,
    }
}

/// Up to a quarter less, so that pods that were captured together are not compared together
/// for ever. Inode numbers of namespaces follow each other.
fn spread(whole: Duration, ino: u64) -> Duration {
    let share = u32::try_from(ino % 64).unwrap_or_default();
    whole - whole / 4 * share / 64
}
