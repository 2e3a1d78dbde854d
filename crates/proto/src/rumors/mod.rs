//! How news travels (`R1`-`R6`): the hot list, flushes when news is born, ticks while something is hot, and asking for what
//! was only announced.
//!
//! Everything that leaves goes through [`Rumors::poll_datagram`], one datagram's content at a time, each paid from the
//! [`Budget`]. Two lanes keep members' news apart from users' entries: claims and member records never wait behind entries.

mod content;
pub mod demers;
mod flush;
mod hot;
mod tick;
mod wants;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_cluster;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, Class, DATAGRAM_OVERHEAD};
use crate::config::{Config, Gossip, Interest, Mode};
use crate::entry::{Entry, Key};
use crate::member::{Claim, Member, MemberId};
use crate::metrics::RumorMetrics;
use crate::record::{Record, RumorId};
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::Set;
use crate::time::{Mono, Now, Stamp};
use crate::wire::{HEADER_BYTES, Message};

use content::Content;
use flush::Lane;
use hot::{Hot, HotList};
use wants::Wants;

/// Hop count of a record sent for a WANT when it is no longer hot (`R4`).
pub const HOP_ASKED: u8 = 200;
/// Own entries that wait longer than this make writes "backlogged" (section 6).
pub const BACKLOG_AGE: Duration = Duration::from_secs(1);

/// Datagrams' worth of tokens that flushes and ticks of entries leave to the answers to WANTs: those carry a payload that is
/// surely missing. Without it 100 members at 400 updates/s, 100 kB/s and 5 % loss complete 92 % of the updates, with it all.
const ANSWERS_KEPT: usize = 2;

/// One datagram's content and its destinations. It fits [`Config::room`] and is paid for.
#[derive(Clone, PartialEq, Debug)]
pub struct Parcel {
    /// Same content to each; never empty.
    pub to: Vec<MemberId>,
    /// In the order of section 3: records, ids, claims, wants.
    pub messages: Vec<Message>,
    /// What it was charged to.
    pub class: Class,
}

/// What became of an entry given to [`Rumors::put_entry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is a rumor now.
    Hot,
    /// Too many own entries wait for their first flush: this one stays local until anti-entropy finds it.
    LeftToRepair,
}

/// A parcel that waits for tokens.
struct Pending {
    to: Vec<MemberId>,
    content: Content,
    class: Class,
}

/// The rumors of one member.
pub struct Rumors {
    gossip: Gossip,
    /// Bytes for messages in a datagram.
    room: usize,
    /// Bytes charged per datagram beside its messages.
    overhead: usize,
    hot: HotList,
    lanes: [Lane; 2],
    wants: Wants,
    /// Answers, already paid for.
    replies: VecDeque<Parcel>,
    living: usize,
    spread: Spread,
    /// Fixed random phase of the ticks, drawn with the first rumor.
    phase: Option<Duration>,
    tick_due: Mono,
    tick_number: u64,
    tick_peers: Vec<MemberId>,
    /// The member whose message is being handled counts feedback.
    sender_counts: bool,
    short: Option<Short>,
    metrics: RumorMetrics,
}

/// A time in which bandwidth or room lacked at least once in each [`BACKLOG_AGE`].
#[derive(Clone, Copy)]
struct Short {
    since: Mono,
    last: Mono,
}

/// What depends on the number of the living (section 4).
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    /// Hops at which the payload is always pushed: h.
    levels: u8,
    /// Probability that it is pushed at hop h: q.
    chance: f64,
    /// Ticks a rumor lives: R.
    rounds: u32,
}

impl Spread {
    /// h and q spend `share * living` copies on levels f, f^2, ...; R = ceil(ln N / 3) + 1. With fewer than f others a level
    /// has as many copies as there are others.
    fn new(living: usize, flush_peers: usize, share: f64) -> Spread {
        let peers = flush_peers.min(living.saturating_sub(1)).max(1) as f64;
        let mut left = share.max(0.0) * living as f64;
        let (mut levels, mut level) = (0u8, peers);
        while left >= level && levels < 32 {
            left -= level;
            level *= peers;
            levels += 1;
        }
        let rounds = (living.max(1) as f64).ln() / 3.0;
        Spread { levels, chance: (left / level).clamp(0.0, 1.0), rounds: rounds.ceil() as u32 + 1 }
    }
}

impl Rumors {
    /// Nothing hot.
    pub fn new(config: &Config) -> Rumors {
        Rumors {
            gossip: config.gossip,
            room: config.room(),
            overhead: HEADER_BYTES + config.seal_bytes + DATAGRAM_OVERHEAD,
            hot: HotList::new(&config.limits),
            lanes: [Lane::new(Class::Members), Lane::new(Class::Entries)],
            wants: Wants::new(config.limits.wants_max, config.rtt_initial),
            replies: VecDeque::new(),
            living: 1,
            spread: Spread::new(1, config.gossip.flush_peers, config.gossip.pushed_share),
            phase: None,
            tick_due: Mono::FAR,
            tick_number: 0,
            tick_peers: Vec::new(),
            sender_counts: false,
            short: None,
            metrics: RumorMetrics::default(),
        }
    }

    /// Makes a claim hot; replaces an older one about the same member (`R1`).
    pub fn put_claim(&mut self, now: Now, claim: Claim, rng: &mut Rng) {
        self.insert(now, Hot::claim(claim, now.mono), 0, rng);
    }

    /// Makes a member record hot; replaces an older one of the same name. `hop`: 0 if it is news of my own, else the hop it
    /// came with + 1 (saturating).
    pub fn put_member(&mut self, now: Now, member: Member, id: RumorId, hop: u8, own: bool, rng: &mut Rng) {
        self.metrics.records_new += u64::from(!own);
        let hot = self.record(now, Record::Member(member), id, hop, own, rng);
        self.insert(now, hot, 0, rng);
    }

    /// Makes an entry hot; replaces an older one of the same key. `hop`: 0 if written here, the hop it came with + 1
    /// (saturating), or [`crate::wire::HOP_COLD`] if a session brought it: then only its id is announced.
    pub fn put_entry(
        &mut self,
        now: Now,
        entry: Arc<Entry>,
        id: RumorId,
        hop: u8,
        own: bool,
        rng: &mut Rng,
    ) -> Put {
        self.metrics.records_new += u64::from(!own);
        if own && !self.hot.has_room_for_own(&entry.key) {
            self.hot.remove_key(&entry.key);
            self.metrics.unflushed_dropped += 1;
            return Put::LeftToRepair;
        }
        let hot = self.record(now, Record::Entry(entry), id, hop, own, rng);
        self.insert(now, hot, 1, rng);
        Put::Hot
    }

    fn record(&self, now: Now, record: Record, id: RumorId, hop: u8, own: bool, rng: &mut Rng) -> Hot {
        let whole = match self.gossip.mode {
            Mode::Push => true,
            Mode::Pull => false,
            Mode::PushPull => {
                hop < self.spread.levels || (hop == self.spread.levels && rng.chance(self.spread.chance))
            }
        };
        Hot::record(record, id, hop, own, whole, self.room, now.mono)
    }

    fn insert(&mut self, now: Now, hot: Hot, lane: usize, rng: &mut Rng) {
        let dropped = self.hot.insert(hot);
        self.lacks_capacity(now.mono, dropped);
        self.metrics.hot_dropped += dropped;
        self.lanes[lane].schedule(now.mono, &self.gossip, rng);
        let interval = self.gossip.interval;
        let phase = *self.phase.get_or_insert_with(|| rng.up_to(interval));
        if self.tick_due == Mono::FAR {
            self.tick_due = tick::next(now.mono, phase, interval);
        }
    }

    /// `count` rumors did not get what is theirs, for lack of bandwidth or room.
    fn lacks_capacity(&mut self, now: Mono, count: u64) {
        if count > 0 {
            let since =
                self.short.filter(|short| now.since(short.last) <= BACKLOG_AGE).map_or(now, |s| s.since);
            self.short = Some(Short { since, last: now });
        }
    }

    /// Forgets the claim about `id`.
    pub fn drop_claim(&mut self, id: MemberId) {
        self.hot.remove_claim(id);
    }

    /// Forgets entries stamped no later than this (`S7`).
    pub fn drop_entries_until(&mut self, stamp: Stamp) {
        for number in self.hot.entries_until(stamp) {
            self.hot.remove(number);
        }
    }

    /// Forgets the entry under `key`: it was replaced by one that is no rumor. Its old version would be asked for by all, as
    /// nobody holds it any more, and with a round back for each WANT (`R3`) never grow cold.
    pub fn drop_entry(&mut self, key: &Key) {
        self.hot.remove_key(key);
    }

    /// Forgets the member record of this name unless it is `id`; likewise.
    pub fn drop_member(&mut self, name: &str, id: RumorId) {
        self.hot.remove_name(name, id);
    }

    /// Another member announced records I lack (`R4`): asks it, or makes it the next one to ask. Large records are not
    /// wanted here but over a stream (`R6`).
    pub fn handle_ihave(&mut self, now: Now, from: MemberId, unknown: &[RumorId]) {
        for &id in unknown {
            self.wants.announce(now.mono, from, id);
        }
    }

    /// A record arrived, known or not: nobody needs to be asked for it any more.
    pub fn handle_arrived(&mut self, _now: Now, id: RumorId) {
        self.wants.end(id);
    }

    /// Do I count feedback, so that others shall tell me by SEEN what they knew?
    pub fn wants_feedback(&self) -> bool {
        matches!(self.gossip.interest, Interest::Demers { feedback: true, .. })
    }

    /// What comes next is from a member that counts feedback, or not.
    pub fn set_sender(&mut self, counts_feedback: bool) {
        self.sender_counts = counts_feedback;
    }

    /// A record came that I held already, by rumor. A sender that counts feedback is told by SEEN.
    pub fn handle_known_record(&mut self, from: MemberId, id: RumorId) {
        self.metrics.records_known += 1;
        self.handle_known_ids(from, &[id]);
    }

    /// Ids were announced by rumor that I hold already. A sender that counts feedback is told by SEEN.
    pub fn handle_known_ids(&mut self, from: MemberId, known: &[RumorId]) {
        if self.sender_counts {
            self.wants.tell_known(from, known);
        }
    }

    /// A member says that it held these before my last contact: feedback for Demers' variants, nothing in `adaptive`.
    pub fn handle_seen(&mut self, _now: Now, ids: &[RumorId]) {
        if self.wants_feedback() {
            for id in ids {
                if let Some(hot) = self.hot.by_id_mut(*id) {
                    hot.seen += 1;
                }
            }
        }
    }

    /// A member asks for records (`R4`): hot ones first of all, others as `find` has them. Answers within the allowance,
    /// large records never. An id named twice is answered once.
    pub fn handle_want(
        &mut self,
        now: Now,
        from: MemberId,
        ids: &[RumorId],
        budget: &mut Budget,
        find: &mut dyn FnMut(RumorId) -> Option<Record>,
    ) {
        let mut contents = [Content::new(self.room), Content::new(self.room)];
        let mut answered = Set::new();
        let tick = self.tick_number;
        for &id in ids.iter().filter(|&&id| answered.insert(id)) {
            let hot = self.hot.by_id_mut(id).and_then(|hot| {
                hot.asked(tick);
                hot.as_record().map(|record| (hot.hop, record))
            });
            let Some((hop, record)) = hot.or_else(|| find(id).map(|record| (HOP_ASKED, record))) else {
                continue;
            };
            let lane = usize::from(matches!(record, Record::Entry(_)));
            let bytes = content::record_bytes(&record);
            if bytes > self.room {
                continue;
            }
            if !contents[lane].fits_record(bytes) {
                let full = std::mem::replace(&mut contents[lane], Content::new(self.room));
                self.reply(now, from, lane, full, budget);
            }
            contents[lane].add_record(hop, record, bytes);
        }
        for (lane, content) in contents.into_iter().enumerate() {
            self.reply(now, from, lane, content, budget);
        }
    }

    fn reply(&mut self, now: Now, to: MemberId, lane: usize, content: Content, budget: &mut Budget) {
        if content.is_empty() {
            return;
        }
        let class = self.lanes[lane].class;
        let records = content.records() as u64;
        if budget.try_spend(now.mono, class, content.bytes() + self.overhead) {
            self.metrics.records_sent += records;
            self.replies.push_back(Parcel { to: vec![to], messages: content.into_messages(), class });
        } else {
            self.lacks_capacity(now.mono, records);
            self.metrics.wants_unanswered += records;
        }
    }

    /// The largest recent round-trip time: W = 1.1 x this + 20 ms.
    pub fn set_rtt(&mut self, rtt_max: Duration) {
        self.wants.set_rtt(rtt_max);
    }

    /// When [`Rumors::handle_timeout`] and [`Rumors::poll_datagram`] are to be called next: flush, tick, a WANT's time, or
    /// tokens that return.
    pub fn deadline(&self) -> Mono {
        let lanes = self.lanes.iter().map(Lane::deadline).min().unwrap_or(Mono::FAR);
        let asks = if self.wants.outbox_is_empty() { Mono::FAR } else { self.wants.tokens_at };
        lanes.min(asks).min(self.wants.deadline()).min(self.tick_due)
    }

    /// Asks again for what did not come (`R4`). Flushes and ticks that are due leave with the next
    /// [`Rumors::poll_datagram`].
    pub fn handle_timeout(&mut self, now: Now, _roster: &Roster, _rng: &mut Rng) {
        self.metrics.wants_given_up += self.wants.handle_timeout(now.mono);
    }

    /// The next datagram's content that may leave now. Cheap when nothing is due.
    pub fn poll_datagram(
        &mut self,
        now: Now,
        roster: &Roster,
        budget: &mut Budget,
        rng: &mut Rng,
    ) -> Option<Parcel> {
        if roster.living() != self.living {
            self.living = roster.living();
            self.spread = Spread::new(self.living, self.gossip.flush_peers, self.gossip.pushed_share);
        }
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        if let Some(parcel) = self.poll_asks(now.mono, budget) {
            return Some(parcel);
        }
        if now.mono >= self.tick_due {
            self.start_tick(now.mono, roster, rng);
        }
        let [members, entries] = &mut self.lanes;
        if entries.is_due(now.mono) {
            members.hasten(now.mono);
        }
        for lane in 0..self.lanes.len() {
            if let Some(parcel) = self.poll_lane(lane, now.mono, roster, budget, rng) {
                return Some(parcel);
            }
        }
        None
    }

    fn poll_asks(&mut self, now: Mono, budget: &mut Budget) -> Option<Parcel> {
        if self.wants.outbox_is_empty() {
            return None;
        }
        // Room for one id each in WANT and SEEN.
        let least = self.overhead + 2 * content::ids_bytes(1);
        let available = budget.available(now, Class::Entries);
        if available < least {
            self.wants.tokens_at = budget.when(now, Class::Entries, least);
            return None;
        }
        let asks = self.wants.poll(self.room.min(available - self.overhead))?;
        budget.spend(now, Class::Entries, asks.bytes + self.overhead);
        self.metrics.wants_sent += asks.wants as u64;
        Some(Parcel { to: vec![asks.to], messages: asks.messages, class: Class::Entries })
    }

    fn poll_lane(
        &mut self,
        lane: usize,
        now: Mono,
        roster: &Roster,
        budget: &mut Budget,
        rng: &mut Rng,
    ) -> Option<Parcel> {
        loop {
            let mut pending = match self.lanes[lane].pending.take() {
                Some(pending) => pending,
                None => self.build(lane, now, roster, budget, rng)?,
            };
            // Nobody to tell, or all of it went cold meanwhile.
            if pending.to.is_empty() || pending.content.is_empty() {
                continue;
            }
            let bytes = pending.content.bytes() + self.overhead;
            let mut paid = 0;
            let keep = if lane == 1 { ANSWERS_KEPT * (self.room + self.overhead) } else { 0 };
            while paid < pending.to.len() && budget.try_spend_keeping(now, pending.class, bytes, keep) {
                paid += 1;
            }
            if paid == 0 {
                let state = &mut self.lanes[lane];
                state.tokens_at = budget.when(now, pending.class, bytes + keep);
                state.stalled = true;
                state.pending = Some(pending);
                return None;
            }
            let (records, ids) = (pending.content.records() as u64, pending.content.ids() as u64);
            self.metrics.records_sent += records * paid as u64;
            self.metrics.ids_sent += ids * paid as u64;
            let class = pending.class;
            if paid == pending.to.len() {
                return Some(Parcel { to: pending.to, messages: pending.content.into_messages(), class });
            }
            let rest = pending.to.split_off(paid);
            let parcel = Parcel { to: pending.to, messages: pending.content.clone().into_messages(), class };
            self.lanes[lane].pending = Some(Pending { to: rest, content: pending.content, class });
            return Some(parcel);
        }
    }

    fn build(
        &mut self,
        lane: usize,
        now: Mono,
        roster: &Roster,
        budget: &mut Budget,
        rng: &mut Rng,
    ) -> Option<Pending> {
        let flush = self.flush_is_ready(lane, now, roster, rng);
        let state = &mut self.lanes[lane];
        let tick = !state.tick.is_empty();
        // Flushes and ticks that wait for tokens take turns, so that neither starves the other.
        state.ticks_turn = tick && (!flush || !state.ticks_turn);
        match (flush, state.ticks_turn) {
            (_, true) => Some(self.build_tick(lane, now, budget)),
            (true, false) => Some(self.build_flush(lane, now, budget, rng)),
            (false, false) => None,
        }
    }

    /// The oldest own entry that was not flushed yet waits for over [`BACKLOG_AGE`]; or for as long now WANTs had to go
    /// unanswered or rumors had to leave the hot list: then others lack what was written although it left.
    pub fn backlogged(&self, now: Now) -> bool {
        let short = self.short.is_some_and(|short| {
            short.last.since(short.since) > BACKLOG_AGE && now.mono.since(short.last) <= BACKLOG_AGE
        });
        short || self.backlog_age(now) > BACKLOG_AGE
    }

    /// Age of the oldest own entry that was not flushed yet; zero if none waits.
    pub fn backlog_age(&self, now: Now) -> Duration {
        self.hot.oldest_own_waiting().map_or(Duration::ZERO, |since| now.mono.since(since))
    }

    /// Hot claims.
    pub fn hot_claims(&self) -> usize {
        self.hot.claims()
    }

    /// Hot member records.
    pub fn hot_members(&self) -> usize {
        self.hot.members()
    }

    /// Hot entries, own ones that wait for their first flush included.
    pub fn hot_entries(&self) -> usize {
        self.hot.entries()
    }

    /// Is a claim about `id` hot? A leaving member stops when its own no longer is (`J5`).
    pub fn is_claim_hot(&self, id: MemberId) -> bool {
        self.hot.has_claim(id)
    }

    /// Is this version of a record hot?
    pub fn knows(&self, id: RumorId) -> bool {
        self.hot.has_id(id)
    }

    /// WANTs under way.
    pub fn wants_pending(&self) -> usize {
        self.wants.len()
    }

    /// Counters.
    pub fn metrics(&self) -> RumorMetrics {
        self.metrics
    }
}
