//! Anti-entropy (`S1`-`S6`): compares roots, finds what differs, moves it. See [`Sync`].

mod replica;

pub mod members;

pub use replica::{Offer, Replica, Replicas};

use std::time::Duration;

use crate::budget::{Budget, Class};
use crate::config::Config;
use crate::entry::Entry;
use crate::member::{Claim, MemberId};
use crate::metrics::SyncMetrics;
use crate::record::{Record, RumorId, Tree};
use crate::rng::Rng;
use crate::time::{Mono, Now, Second};
use crate::wire::{Compared, DiffItem, ListRange, Message, Roots, WalkItem};

/// What the hall must do for [`Sync`].
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send these messages in ONE datagram (they fit [`Config::room`]); charge `class`, drop them if the budget says no.
    Send {
        /// To.
        to: MemberId,
        /// The datagram's content, in this order.
        messages: Vec<Message>,
        /// [`Class::Repair`].
        class: Class,
    },
    /// A BEAT with `once` to this peer (`S2`; and 1 s after a useful session, `S3`).
    ConfirmBeat {
        /// To.
        to: MemberId,
    },
    /// A session of mine has ended.
    SessionEnded {
        /// Of which tree.
        tree: Tree,
        /// With whom.
        peer: MemberId,
        /// Records and claims that moved, either way; 0: useless.
        moved: u64,
        /// False if it was given up: no answer, or BUSY. `heard` (`S7`) moves only on a whole one.
        whole: bool,
    },
}

/// The outcome of a comparison, at the sender of the BEAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// With whom.
    pub peer: MemberId,
    /// When the BEAT was sent.
    pub sent_at: Mono,
    /// The roots that BEAT carried.
    pub roots: Roots,
    /// T of its entry root.
    pub settled: Second,
    /// From the ACK.
    pub members: Compared,
    /// From the ACK.
    pub entries: Compared,
    /// I held the peer dead within 60 s, or I joined within 10 s (`S2`): no confirmation.
    pub quick: bool,
}

/// Own side of `S1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mine {
    /// Live member root.
    pub members: u32,
    /// Living members, self included.
    pub living: usize,
    /// Entry root at the T of the BEAT; none: not known, or the store is full.
    pub entries: Option<u32>,
}

/// `S1`: compares the roots of a BEAT (none: its sender joins) with mine (none: I join). Returns members, entries.
pub fn compare(theirs: Option<&Roots>, mine: Option<&Mine>) -> (Compared, Compared) {
    let (Some(theirs), Some(mine)) = (theirs, mine) else { return (Compared::Not, Compared::Not) };
    let (a, b) = (usize::from(theirs.living), mine.living.min(usize::from(u16::MAX)));
    let members = if a.abs_diff(b) > 8.max(a.max(b) / 20) {
        Compared::Far
    } else if theirs.members == mine.members {
        Compared::Equal
    } else {
        Compared::Differ
    };
    let entries = match mine.entries {
        None => Compared::Not,
        Some(root) if root == theirs.entries => Compared::Equal,
        Some(_) => Compared::Differ,
    };
    (members, entries)
}

/// What a WANT (repair) found.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// The record, to be sent with hop 255.
    Record(Record),
    /// A member asked for by its version in a LIST: id and claim, as `S6` says.
    Offer(Offer),
}

impl From<std::sync::Arc<Entry>> for Found {
    fn from(entry: std::sync::Arc<Entry>) -> Found {
        Found::Record(Record::Entry(entry))
    }
}

/// What a record that arrived was to anti-entropy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Arrived {
    /// A session had asked for it.
    pub wanted: bool,
    /// An entry that is news: make it hot with hop 255 (`S5`).
    pub hot: bool,
}

/// One member's anti-entropy: confirmations, at most one session as requester, the stateless answering of requests, and the
/// queue of records to ask for.
pub struct Sync {
    metrics: SyncMetrics,
}

impl Sync {
    /// Nothing under way. `rng` gives the first sequence number.
    pub fn new(config: &Config, rng: &mut Rng) -> Sync {
        let _ = (config, rng);
        Sync { metrics: SyncMetrics::default() }
    }

    /// Longest recent round trip, for W = 1.1 x that + 20 ms.
    pub fn set_rtt(&mut self, rtt_max: Duration) {
        let _ = rtt_max;
    }

    /// `S2`: an ACK to a BEAT of mine brought a comparison.
    pub fn handle_comparison(&mut self, now: Now, comparison: &Comparison, rng: &mut Rng) {
        let _ = (now, comparison, rng);
    }

    /// A WALK from a known member.
    #[expect(clippy::too_many_arguments)]
    pub fn handle_walk(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        tree: Tree,
        settled: Second,
        salt: u32,
        items: &[WalkItem],
        replicas: &mut dyn Replicas,
    ) {
        let _ = (now, from, seq, tree, settled, salt, items, replicas);
    }

    /// A DIFF: the answer to a WALK or a LIST of mine. Handle the other messages of its datagram first, in their order.
    pub fn handle_diff(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        items: &[DiffItem],
        replicas: &mut dyn Replicas,
    ) {
        let _ = (now, from, seq, items, replicas);
    }

    /// A LIST from a known member.
    pub fn handle_list(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        tree: Tree,
        settled: Second,
        ranges: &[ListRange],
        replicas: &mut dyn Replicas,
    ) {
        let _ = (now, from, seq, tree, settled, ranges, replicas);
    }

    /// BUSY of this tree.
    pub fn handle_busy(&mut self, now: Now, from: MemberId, tree: Tree) {
        let _ = (now, from, tree);
    }

    /// IHAVE (repair, not large): `unknown` are the ids the hall knows from nowhere.
    pub fn handle_ihave(&mut self, now: Now, from: MemberId, unknown: &[RumorId]) {
        let _ = (now, from, unknown);
    }

    /// Any RECORD arrived under this id (whoever asked for it); `news`: it changed the view or the store.
    pub fn handle_arrived(&mut self, now: Now, id: RumorId, news: bool) -> Arrived {
        let _ = (now, id, news);
        Arrived::default()
    }

    /// A RECORD that was wanted lost against a newer one of mine with this id: tells `from` that I have it.
    pub fn handle_stale(&mut self, now: Now, from: MemberId, newer: RumorId) {
        let _ = (now, from, newer);
    }

    /// A claim that came from a session's peer changed the view, or I answered it (`S6`): the session moved something.
    pub fn handle_claim(&mut self, now: Now, from: MemberId) {
        let _ = (now, from);
    }

    /// The member died, left or was retired: what depended on it ends.
    pub fn handle_gone(&mut self, now: Now, id: MemberId) {
        let _ = (now, id);
    }

    /// Answers a WANT (repair): records with hop 255 as far as the repair share of `budget` goes (looked at, not spent: the
    /// hall charges what it sends). The rest is left unanswered, to be asked again. `find` looks in store and roster
    /// ([`members::find`]). What does not fit a datagram is announced as large.
    pub fn answer_wants(
        &mut self,
        now: Now,
        from: MemberId,
        ids: &[RumorId],
        budget: &mut Budget,
        find: &mut dyn FnMut(RumorId) -> Option<Found>,
    ) -> Vec<Message> {
        let _ = (now, from, ids, budget, find);
        Vec::new()
    }

    /// Earliest thing to do.
    pub fn deadline(&self) -> Mono {
        Mono::FAR
    }

    /// Confirmations, starts, repeats, give-ups.
    pub fn handle_timeout(&mut self, now: Now, replicas: &mut dyn Replicas, rng: &mut Rng) {
        let _ = (now, replicas, rng);
    }

    /// Next thing for the hall to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// Counters.
    pub fn metrics(&self) -> SyncMetrics {
        self.metrics
    }
}
