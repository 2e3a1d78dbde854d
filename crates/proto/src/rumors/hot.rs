//! The hot list (`R1`): one rumor per member's claim, per name, per key, found by each of these, by id and by age.

use std::sync::Arc;

use super::content;
use crate::config::Limits;
use crate::entry::Key;
use crate::member::{Claim, MemberId};
use crate::record::{Record, RumorId};
use crate::table::{Set, Table};
use crate::time::{Mono, Stamp};

/// What is told.
#[derive(Clone, Debug)]
pub(super) enum What {
    Claim(Claim),
    Record(Record, RumorId),
}

/// One rumor.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    pub what: What,
    pub hop: u8,
    /// Size of its RECORD message; claims: 0.
    pub bytes: usize,
    /// Does not fit a datagram (`R6`).
    pub large: bool,
    /// The first flush carries the payload, not the id.
    pub whole: bool,
    pub own: bool,
    pub flushed: bool,
    pub rounds: u32,
    pub since: Mono,
    /// Tick in which a WANT took a round back.
    back_at: Option<u64>,
    /// Since the last tick: contacts made, told by SEEN, asked by WANT.
    pub contacts: u32,
    pub seen: u32,
    pub wants: u32,
    /// Counter of Demers' variants.
    pub count: u32,
}

impl Hot {
    pub fn claim(claim: Claim, since: Mono) -> Hot {
        Hot {
            what: What::Claim(claim),
            hop: 0,
            bytes: 0,
            large: false,
            whole: true,
            own: false,
            flushed: false,
            rounds: 0,
            since,
            back_at: None,
            contacts: 0,
            seen: 0,
            wants: 0,
            count: 0,
        }
    }

    pub fn record(
        record: Record,
        id: RumorId,
        hop: u8,
        own: bool,
        whole: bool,
        room: usize,
        since: Mono,
    ) -> Hot {
        let bytes = content::record_bytes(&record);
        let large = bytes > room;
        Hot {
            what: What::Record(record, id),
            hop,
            bytes,
            large,
            whole: whole && !large,
            own,
            ..Hot::claim(
                Claim::plain(MemberId::NONE, Default::default(), crate::member::Liveness::Alive),
                since,
            )
        }
    }

    /// A WANT takes one round back, once per tick (`R3`).
    pub fn asked(&mut self, tick: u64) {
        self.wants += 1;
        if self.back_at != Some(tick) {
            self.back_at = Some(tick);
            self.rounds = self.rounds.saturating_sub(1);
        }
    }

    pub fn as_record(&self) -> Option<Record> {
        match &self.what {
            What::Record(record, _) => Some(record.clone()),
            What::Claim(_) => None,
        }
    }

    fn kind(&self) -> usize {
        match &self.what {
            What::Claim(_) => CLAIM,
            What::Record(Record::Member(_), _) => MEMBER,
            What::Record(Record::Entry(_), _) => ENTRY,
        }
    }

    fn queue(&self) -> usize {
        match (self.kind(), self.whole) {
            (CLAIM, _) => CLAIMS,
            (MEMBER, true) => MEMBERS_WHOLE,
            (MEMBER, false) => MEMBERS_IDS,
            (_, true) => ENTRIES_WHOLE,
            (_, false) => ENTRIES_IDS,
        }
    }
}

const CLAIM: usize = 0;
const MEMBER: usize = 1;
const ENTRY: usize = 2;

/// Queues of rumors that wait for their first flush.
pub(super) const CLAIMS: usize = 0;
pub(super) const MEMBERS_WHOLE: usize = 1;
pub(super) const MEMBERS_IDS: usize = 2;
pub(super) const ENTRIES_WHOLE: usize = 3;
pub(super) const ENTRIES_IDS: usize = 4;

/// Payload and id queues of a lane.
pub(super) const QUEUES: [(usize, usize); 2] = [(MEMBERS_WHOLE, MEMBERS_IDS), (ENTRIES_WHOLE, ENTRIES_IDS)];

/// All rumors. A rumor's name in all indexes is its number; numbers grow, so that order is age.
pub(super) struct HotList {
    all: Table<u64, Hot>,
    by_member: Table<MemberId, u64>,
    by_name: Table<Arc<str>, u64>,
    by_key: Table<Key, u64>,
    by_id: Table<RumorId, u64>,
    /// By kind, oldest first; own entries join when they are flushed.
    aging: [Set<u64>; 3],
    waiting: [Set<u64>; 5],
    /// Bytes of RECORD messages in each of the waiting queues.
    waiting_bytes: [usize; 5],
    own_waiting: Set<u64>,
    next: u64,
    most: [usize; 3],
    own_waiting_max: usize,
}

impl HotList {
    pub fn new(limits: &Limits) -> HotList {
        HotList {
            all: Table::new(),
            by_member: Table::new(),
            by_name: Table::new(),
            by_key: Table::new(),
            by_id: Table::new(),
            aging: Default::default(),
            waiting: Default::default(),
            waiting_bytes: [0; 5],
            own_waiting: Set::new(),
            next: 0,
            most: [limits.members_max, limits.members_max, limits.hot_entries_max],
            own_waiting_max: limits.unflushed_max,
        }
    }

    /// May one more own entry under `key` wait?
    pub fn has_room_for_own(&self, key: &Key) -> bool {
        self.own_waiting.len() < self.own_waiting_max
            || self.by_key.get(key).is_some_and(|number| self.own_waiting.contains(number))
    }

    /// Replaces an older rumor of the same subject. If that one still waits for its flush, the new one takes its place, or a
    /// key that is rewritten all the time would never leave. Returns how many of the oldest had to go.
    pub fn insert(&mut self, mut hot: Hot) -> u64 {
        let old = match &hot.what {
            What::Claim(claim) => self.by_member.get(&claim.id),
            What::Record(Record::Member(member), _) => self.by_name.get(member.name()),
            What::Record(Record::Entry(entry), _) => self.by_key.get(&entry.key),
        };
        let old = old.copied().and_then(|number| self.remove(number).map(|hot| (number, hot)));
        let number = match old {
            Some((number, old)) if !old.flushed => {
                hot.since = old.since;
                number
            }
            _ => {
                self.next += 1;
                self.next
            }
        };
        match &hot.what {
            What::Claim(claim) => {
                self.by_member.insert(claim.id, number);
            }
            What::Record(record, id) => {
                match record {
                    Record::Member(member) => self.by_name.insert(member.name().clone(), number),
                    Record::Entry(entry) => self.by_key.insert(entry.key.clone(), number),
                };
                self.by_id.insert(*id, number);
            }
        }
        let (kind, queue) = (hot.kind(), hot.queue());
        self.waiting[queue].insert(number);
        self.waiting_bytes[queue] += hot.bytes;
        if kind == ENTRY && hot.own {
            self.own_waiting.insert(number);
        } else {
            self.aging[kind].insert(number);
        }
        self.all.insert(number, hot);
        self.shrink(kind)
    }

    fn shrink(&mut self, kind: usize) -> u64 {
        let mut dropped = 0;
        while self.aging[kind].len() > self.most[kind] {
            let Some(&oldest) = self.aging[kind].first() else { break };
            self.remove(oldest);
            dropped += 1;
        }
        dropped
    }

    /// Takes a rumor out of the waiting queues: its flush has it. Returns how many of the oldest had to go, as an own entry
    /// now counts like any other.
    pub fn flushed(&mut self, number: u64) -> u64 {
        let Some(hot) = self.all.get_mut(&number).filter(|hot| !hot.flushed) else {
            for queue in &mut self.waiting {
                queue.remove(&number);
            }
            return 0;
        };
        hot.flushed = true;
        let (queue, kind, bytes) = (hot.queue(), hot.kind(), hot.bytes);
        self.waiting[queue].remove(&number);
        self.waiting_bytes[queue] = self.waiting_bytes[queue].saturating_sub(bytes);
        if self.own_waiting.remove(&number) {
            self.aging[kind].insert(number);
            return self.shrink(kind);
        }
        0
    }

    pub fn remove(&mut self, number: u64) -> Option<Hot> {
        let hot = self.all.remove(&number)?;
        match &hot.what {
            What::Claim(claim) => {
                self.by_member.remove(&claim.id);
            }
            What::Record(record, id) => {
                match record {
                    Record::Member(member) => self.by_name.remove(member.name()),
                    Record::Entry(entry) => self.by_key.remove(&entry.key),
                };
                // Two records may share an id by chance; the later one has the index.
                if self.by_id.get(id) == Some(&number) {
                    self.by_id.remove(id);
                }
            }
        }
        self.aging[hot.kind()].remove(&number);
        if !hot.flushed {
            let queue = hot.queue();
            self.waiting[queue].remove(&number);
            self.waiting_bytes[queue] = self.waiting_bytes[queue].saturating_sub(hot.bytes);
            self.own_waiting.remove(&number);
        }
        Some(hot)
    }

    pub fn remove_claim(&mut self, id: MemberId) {
        if let Some(&number) = self.by_member.get(&id) {
            self.remove(number);
        }
    }

    pub fn remove_key(&mut self, key: &Key) {
        if let Some(&number) = self.by_key.get(key) {
            self.remove(number);
        }
    }

    /// Numbers of entries stamped no later than this.
    pub fn entries_until(&self, stamp: Stamp) -> Vec<u64> {
        let old =
            |hot: &Hot| matches!(&hot.what, What::Record(Record::Entry(e), _) if e.version.stamp <= stamp);
        self.all.iter().filter(|(_, hot)| old(hot)).map(|(number, _)| *number).collect()
    }

    pub fn remove_name(&mut self, name: &str, but: RumorId) {
        if let Some(&number) = self.by_name.get(name)
            && self.by_id.get(&but) != Some(&number)
        {
            self.remove(number);
        }
    }

    pub fn get(&self, number: u64) -> Option<&Hot> {
        self.all.get(&number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Hot> {
        self.all.get_mut(&number)
    }

    pub fn by_id_mut(&mut self, id: RumorId) -> Option<&mut Hot> {
        self.by_id.get(&id).and_then(|number| self.all.get_mut(number))
    }

    pub fn has_id(&self, id: RumorId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn has_claim(&self, id: MemberId) -> bool {
        self.by_member.contains_key(&id)
    }

    /// Oldest of a waiting queue.
    pub fn first_waiting(&self, queue: usize) -> Option<u64> {
        self.waiting.get(queue).and_then(|set| set.first().copied())
    }

    /// Bytes of payload that wait in a lane.
    pub fn payload_waiting(&self, lane: usize) -> usize {
        let (whole, _) = QUEUES[lane.min(1)];
        self.waiting_bytes[whole]
    }

    /// Does anything of this lane wait for its first flush?
    pub fn is_waiting(&self, lane: usize) -> bool {
        let (whole, ids) = QUEUES[lane.min(1)];
        !self.waiting[whole].is_empty()
            || !self.waiting[ids].is_empty()
            || (lane == 0 && !self.waiting[CLAIMS].is_empty())
    }

    /// Numbers of flushed rumors of a lane born at `before` or earlier, in the order of a tick: claims, then
    /// records, by fewest rounds, then by age.
    pub fn for_tick(&self, lane: usize, before: Mono) -> Vec<u64> {
        let kinds = if lane == 0 { CLAIM..=MEMBER } else { ENTRY..=ENTRY };
        let mut chosen: Vec<(usize, u32, u64)> = kinds
            .flat_map(|kind| self.aging[kind].iter().map(move |&number| (kind, number)))
            .filter_map(|(kind, number)| {
                let hot = self.all.get(&number).filter(|hot| hot.flushed && hot.since <= before)?;
                Some((kind, hot.rounds, number))
            })
            .collect();
        chosen.sort_unstable();
        chosen.into_iter().map(|(_, _, number)| number).collect()
    }

    pub fn oldest_own_waiting(&self) -> Option<Mono> {
        self.own_waiting.first().and_then(|number| self.all.get(number)).map(|hot| hot.since)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn claims(&self) -> usize {
        self.by_member.len()
    }

    pub fn members(&self) -> usize {
        self.by_name.len()
    }

    pub fn entries(&self) -> usize {
        self.by_key.len()
    }
}
