//! Anti-entropy (`S1`-`S6`): compares roots, finds what differs, moves it. See [`Sync`].

mod needs;
mod newer;
mod respond;
mod schedule;
mod session;

#[cfg(test)]
mod tests;

pub mod members;

use std::collections::VecDeque;
use std::time::Duration;

use self::needs::{Asks, Needs};
use self::newer::Newer;
use self::schedule::Schedule;
use self::session::{Overdue, Session};

use crate::budget::{Budget, Class};
use crate::config::Config;
use crate::entry::Entry;
use crate::member::MemberId;
use crate::metrics::SyncMetrics;
use crate::record::{Record, RumorId, Tree};
use crate::replica::{Known, Offer, Replicas};
use crate::rng::Rng;
use crate::table::Table;
use crate::time::{Mono, Now, Second};
use crate::wire::{Compared, DiffItem, HOP_COLD, ListRange, Message, Roots, WalkItem, message_bytes};

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
        /// False if it was given up: no answer, or BUSY.
        whole: bool,
        /// T of its view.
        settled: Second,
        /// All that was found has moved: `heard` (`S7`) may.
        complete: bool,
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

/// Requests served per peer and second (section 7).
const SERVED_MAX: u32 = 64;
/// Entries learnt in a session that may become hot (`S5`).
const LEARNT_MAX: usize = 4_096;
/// Added to the round trip for W.
const WAIT_EXTRA: Duration = Duration::from_millis(20);

/// One member's anti-entropy: confirmations, at most one session as requester, the stateless answering of requests, and the
/// queue of records to ask for.
pub struct Sync {
    room: usize,
    rtt: Duration,
    schedule: Schedule,
    session: Option<Session>,
    needs: Needs,
    learnt: usize,
    /// Own versions that won against records wanted, to be announced.
    newer: Newer,
    seq: u32,
    /// Requests served within this second, per peer.
    served: Table<MemberId, u32>,
    served_second: u64,
    actions: VecDeque<Action>,
    metrics: SyncMetrics,
}

impl Sync {
    /// Nothing under way. `rng` gives the first sequence number.
    pub fn new(config: &Config, rng: &mut Rng) -> Sync {
        Sync {
            room: config.room(),
            rtt: config.rtt_initial,
            schedule: Schedule::new(config.anti_entropy),
            session: None,
            needs: Needs::new(config.limits.wants_max, config.limits.needs_max),
            learnt: 0,
            newer: Newer::default(),
            seq: rng.u32(),
            served: Table::new(),
            served_second: 0,
            actions: VecDeque::new(),
            metrics: SyncMetrics::default(),
        }
    }

    /// Longest recent round trip, for W = 1.1 x that + 20 ms.
    pub fn set_rtt(&mut self, rtt_max: Duration) {
        self.rtt = rtt_max;
    }

    fn wait(&self) -> Duration {
        self.rtt.mul_f64(1.1) + WAIT_EXTRA
    }

    /// `S2`: an ACK to a BEAT of mine brought a comparison.
    pub fn handle_comparison(&mut self, now: Now, comparison: &Comparison, rng: &mut Rng) {
        let running = self.session.as_ref().map(|s| s.tree);
        self.schedule.handle_comparison(now.mono, comparison, running, rng);
    }

    fn send(&mut self, to: MemberId, messages: Vec<Message>) {
        self.metrics.bytes_sent += messages.iter().map(message_bytes).sum::<usize>() as u64;
        self.actions.push_back(Action::Send { to, messages, class: Class::Repair });
    }

    fn ask(&mut self, asks: Asks) {
        let most = self.room.saturating_sub(4) / 6;
        for (peer, ids) in asks {
            for ids in ids.chunks(most.max(1)) {
                self.send(peer, vec![Message::Want { repair: true, large: false, ids: ids.to_vec() }]);
            }
        }
    }

    /// May one more request of this peer be served in this second?
    fn admits(&mut self, now: Now, from: MemberId) -> bool {
        let second = now.mono.0 / 1_000_000_000;
        if second != self.served_second {
            self.served.clear();
            self.served_second = second;
        }
        let served = self.served.or_default(from);
        *served += 1;
        let ok = *served <= SERVED_MAX;
        self.metrics.requests_dropped += u64::from(!ok);
        ok
    }

    /// A WALK from a known member.
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
        if !self.admits(now, from) {
            return;
        }
        let head = respond::Head { seq, tree, settled };
        let parcels = match replicas.view(now, tree, settled) {
            Some(view) => respond::walk(&head, &*view, salt, items, self.room),
            None => vec![vec![Message::Busy { tree: Some(tree), id: None }]],
        };
        parcels.into_iter().for_each(|parcel| self.send(from, parcel));
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
        if !self.admits(now, from) {
            return;
        }
        let head = respond::Head { seq, tree, settled };
        let (needs, wait, room) = (&mut self.needs, self.rtt.mul_f64(1.1) + WAIT_EXTRA, self.room);
        let mut admit = |ids: &[RumorId]| match tree {
            Tree::Entries => needs.admit(now.mono, wait, from, ids),
            Tree::Members => ids.to_vec(),
        };
        let parcels = match replicas.view(now, tree, settled) {
            Some(view) => respond::list(&head, &*view, ranges, room, &mut admit),
            None => vec![vec![Message::Busy { tree: Some(tree), id: None }]],
        };
        parcels.into_iter().for_each(|parcel| self.send(from, parcel));
        self.pump_needs(now);
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
        let wait = self.wait();
        let Some(session) = self.session.as_mut().filter(|s| s.peer == from) else { return };
        let Some(view) = replicas.view(now, session.tree, session.settled) else {
            self.end(now, false);
            return;
        };
        if !session.handle_diff(now.mono, wait, seq, items, &*view) {
            return;
        }
        let messages = session.pump(now.mono, wait, self.room, &*view, &mut self.seq);
        messages.into_iter().for_each(|message| self.send(from, vec![message]));
        self.look_at_end(now);
    }

    /// BUSY of this tree.
    pub fn handle_busy(&mut self, now: Now, from: MemberId, tree: Tree) {
        if self.session.as_ref().is_some_and(|s| s.peer == from && s.tree == tree) {
            self.end(now, false);
        }
    }

    /// BUSY of a record wanted: this peer does not hold it any more. What replaced it is left to the next comparison.
    pub fn handle_missing(&mut self, now: Now, from: MemberId, id: RumorId) {
        if !self.needs.refused(now.mono, from, id) {
            return;
        }
        if let Some(session) = self.session.as_mut().filter(|s| s.peer == from) {
            session.whole = false;
        }
        self.pump_needs(now);
        self.look_at_end(now);
    }

    /// IHAVE (repair, not large): asks for what is unknown, and announces what has replaced an announced version here.
    pub fn handle_ihave(
        &mut self,
        now: Now,
        from: MemberId,
        ids: &[RumorId],
        known: &mut dyn FnMut(RumorId) -> Known,
    ) {
        self.hear(now, from);
        let mut unknown = Vec::new();
        for &id in ids {
            match known(id) {
                Known::No => unknown.push(id),
                Known::Yes => {}
                Known::Replaced { newer } => self.handle_stale(now, from, newer),
            }
        }
        self.needs.add(from, &unknown);
        self.pump_needs(now);
    }

    fn hear(&mut self, now: Now, from: MemberId) {
        if let Some(session) = self.session.as_mut().filter(|s| s.peer == from) {
            session.heard = now.mono;
        }
    }

    fn pump_needs(&mut self, now: Now) {
        let asks = self.needs.pump(now.mono, self.wait());
        self.ask(asks);
    }

    /// Any RECORD arrived under this id (whoever asked for it); `news`: it changed the view or the store.
    pub fn handle_arrived(&mut self, now: Now, id: RumorId, news: bool) -> Arrived {
        let Some(peer) = self.needs.arrived(now.mono, id) else { return Arrived::default() };
        self.metrics.records_received += 1;
        self.hear(now, peer);
        if let Some(session) = self.session.as_mut().filter(|s| s.peer == peer) {
            session.moved += u64::from(news);
        }
        self.pump_needs(now);
        self.look_at_end(now);
        if self.session.is_none() && self.needs.is_empty() {
            self.learnt = 0;
        }
        self.learnt += usize::from(news);
        Arrived { wanted: true, hot: news && self.learnt <= LEARNT_MAX }
    }

    /// A RECORD that was wanted lost against a newer one of mine with this id: tells `from` that I have it.
    pub fn handle_stale(&mut self, now: Now, from: MemberId, newer: RumorId) {
        self.hear(now, from);
        self.newer.add(now.mono, self.wait(), from, newer);
    }

    /// IHAVE (repair, large) named these, and a stream brings them: they are no longer asked for in datagrams.
    pub fn handle_large(&mut self, now: Now, from: MemberId, ids: &[RumorId]) {
        self.hear(now, from);
        for &id in ids {
            self.needs.arrived(now.mono, id);
        }
        self.look_at_end(now);
    }

    /// A claim that came from a session's peer changed the view, or I answered it (`S6`): the session moved something.
    pub fn handle_claim(&mut self, now: Now, from: MemberId) {
        self.hear(now, from);
        if let Some(session) = self.session.as_mut().filter(|s| s.peer == from) {
            session.moved += 1;
        }
    }

    /// The member died, left or was retired: what depended on it ends.
    pub fn handle_gone(&mut self, now: Now, id: MemberId) {
        self.schedule.forget(id);
        self.needs.forget(id);
        self.newer.forget(id);
        if self.session.as_ref().is_some_and(|s| s.peer == id) {
            self.end(now, false);
        }
    }

    /// Answers a WANT (repair): records with hop 255 as far as the repair share of `budget` goes (looked at, not spent: the
    /// hall charges what it sends). The rest is left unanswered, to be asked again. `find` looks in store and roster
    /// ([`members::MemberIndex::find`]). What does not fit a datagram is announced as large.
    pub fn answer_wants(
        &mut self,
        now: Now,
        from: MemberId,
        ids: &[RumorId],
        budget: &mut Budget,
        find: &mut dyn FnMut(RumorId) -> Option<Found>,
    ) -> Vec<Message> {
        self.hear(now, from);
        self.newer.asked(from, ids);
        let mut messages = Vec::new();
        let mut large = Vec::new();
        let mut left = budget.available(now.mono, Class::Repair);
        let (mut moved, mut gone) = (0, 0);
        for &id in ids {
            let mut answer: Vec<Message> = match find(id) {
                // Replaced since it was announced, by one older than the change log: else it is asked for again and again.
                None => vec![Message::Busy { tree: None, id: Some(id) }],
                Some(Found::Record(record)) => vec![Message::Record { hop: HOP_COLD, record }],
                Some(Found::Offer(offer)) => {
                    let ihave = Message::IHave { repair: true, large: offer.large, ids: vec![offer.id] };
                    let claims = offer.claim.map(|claim| Message::Claims(vec![claim]));
                    [ihave].into_iter().chain(claims).collect()
                }
            };
            let bytes: usize = answer.iter().map(message_bytes).sum();
            if bytes > self.room {
                large.push(id);
                continue;
            }
            // Its share of a datagram's headers goes with each.
            let cost = bytes + bytes.div_ceil(16);
            if cost > left {
                self.metrics.requests_dropped += 1;
                break;
            }
            left -= cost;
            match answer.first() {
                Some(Message::Busy { .. }) => gone += 1,
                _ => moved += 1,
            }
            messages.append(&mut answer);
        }
        for ids in large.chunks(200) {
            messages.push(Message::IHave { repair: true, large: true, ids: ids.to_vec() });
        }
        self.metrics.records_sent += moved;
        self.metrics.bytes_sent += messages.iter().map(message_bytes).sum::<usize>() as u64;
        if let Some(session) = self.session.as_mut().filter(|s| s.peer == from) {
            session.moved += moved;
            session.served += moved + gone + large.len() as u64;
        }
        self.look_at_end(now);
        messages
    }

    /// Counts message bytes received for anti-entropy, records included; the hall knows them.
    pub fn count_received(&mut self, bytes: usize) {
        self.metrics.bytes_received += bytes as u64;
    }

    /// Earliest thing to do.
    pub fn deadline(&self) -> Mono {
        let session = self.session.as_ref().map_or(Mono::FAR, |s| s.deadline().min(self.ends(s)));
        let sessions = session.min(self.schedule.deadline(self.session.is_some()));
        sessions.min(self.needs.deadline()).min(self.newer.deadline())
    }

    /// Confirmations, starts, repeats, give-ups.
    pub fn handle_timeout(&mut self, now: Now, replicas: &mut dyn Replicas, rng: &mut Rng) {
        for to in self.schedule.due_beats(now.mono) {
            self.actions.push_back(Action::ConfirmBeat { to });
        }
        self.newer.handle_timeout(now.mono, self.wait());
        let asks = self.needs.handle_timeout(now.mono, self.wait());
        self.ask(asks);
        self.pump_needs(now);
        self.repeat(now, replicas);
        self.look_at_end(now);
        self.start(now, replicas, rng);
    }

    fn repeat(&mut self, now: Now, replicas: &mut dyn Replicas) {
        let wait = self.wait();
        let Some(session) = self.session.as_mut() else { return };
        if session.deadline() > now.mono || session.is_found() {
            return;
        }
        let Some(view) = replicas.view(now, session.tree, session.settled) else {
            self.end(now, false);
            return;
        };
        let peer = session.peer;
        let (overdue, mut messages) =
            session.handle_timeout(now.mono, wait, self.room, &*view, &mut self.seq);
        messages.extend(session.pump(now.mono, wait, self.room, &*view, &mut self.seq));
        drop(view);
        match overdue {
            Overdue::No | Overdue::Again => {
                messages.into_iter().for_each(|message| self.send(peer, vec![message]));
            }
            Overdue::GiveUp => self.end(now, false),
        }
    }

    fn start(&mut self, now: Now, replicas: &mut dyn Replicas, rng: &mut Rng) {
        while self.session.is_none() {
            let Some(plan) = self.schedule.take_due(now.mono) else { return };
            if replicas.root(now, plan.tree, plan.settled) != Some(plan.root) {
                continue;
            }
            let Some(view) = replicas.view(now, plan.tree, plan.settled) else { continue };
            let mut session = Session::new(now.mono, &plan, rng.u32(), &*view);
            let messages = session.pump(now.mono, self.wait(), self.room, &*view, &mut self.seq);
            drop(view);
            self.schedule.started(now.mono);
            self.metrics.sessions += 1;
            self.learnt = 0;
            self.session = Some(session);
            messages.into_iter().for_each(|message| self.send(plan.peer, vec![message]));
        }
    }

    fn ends(&self, session: &Session) -> Mono {
        session.ends(self.wait(), self.needs.open(session.peer))
    }

    fn look_at_end(&mut self, now: Now) {
        if let Some(session) = self.session.as_ref().filter(|s| self.ends(s) <= now.mono) {
            self.end(now, session.whole);
        }
    }

    fn end(&mut self, now: Now, whole: bool) {
        let Some(session) = self.session.take() else { return };
        let complete = whole
            && session.is_found()
            && session.served >= session.promised
            && self.needs.open(session.peer) == 0;
        let Session { tree, peer, moved, quick, settled, .. } = session;
        self.metrics.sessions_failed += u64::from(!whole);
        self.metrics.sessions_useless += u64::from(whole && moved == 0);
        self.schedule.ended(now.mono, tree, peer, moved, whole, quick);
        self.actions.push_back(Action::SessionEnded { tree, peer, moved, whole, settled, complete });
    }

    /// Next thing for the hall to do. Best drained after each datagram, not after each of its messages: what one datagram
    /// leads to then shares datagrams.
    pub fn poll_action(&mut self) -> Option<Action> {
        let most = (self.room.saturating_sub(4) / 6).max(1);
        for (peer, ids) in self.newer.take() {
            for ids in ids.chunks(most) {
                self.send(peer, vec![Message::IHave { repair: true, large: false, ids: ids.to_vec() }]);
            }
        }
        self.actions.pop_front()
    }

    /// Counters.
    pub fn metrics(&self) -> SyncMetrics {
        SyncMetrics { needs_dropped: self.needs.dropped, ..self.metrics }
    }
}
