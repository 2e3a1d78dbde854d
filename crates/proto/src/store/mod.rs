//! The entries of one member (section 2.3): which write of a key wins, lifetimes, tombstones, the order of keys and of places,
//! and the settled roots and views that anti-entropy compares (`S1`).

mod audit;
mod journal;
mod keep;
mod keys;
mod life;
mod pages;
mod timeline;
mod view;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::keys::Keys;
use self::life::{Life, buried};
use self::pages::{Pages, Row};
use self::timeline::{RING_SECS, Timeline};
use self::view::View;
use crate::config::{Config, Limits};
use crate::entry::{Entry, KEY_BYTES_MAX, Key, RESERVED, Version};
use crate::member::MemberId;
use crate::merkle::MerkleTree;
use crate::output::CallError;
use crate::record::{RecordHasher, RumorId};
use crate::replica::{Known, Replica};
use crate::time::{CLOCK_AHEAD_MAX, ClockAhead, HybridClock, Mono, Now, Second, Stamp};
use crate::wire::RESERVED_EXTRA_BYTES;

/// What a key held before a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    /// Its version.
    pub version: Version,
    /// It had a value (no tombstone, not expired).
    pub live: bool,
}

/// What merging an entry did.
#[derive(Clone, PartialEq, Debug)]
pub enum MergedEntry {
    /// It is the newest now.
    Accepted {
        /// The entry as stored: a tombstone if its lifetime had ended already.
        entry: Arc<Entry>,
        /// What the key held before.
        before: Option<Before>,
    },
    /// This very version is held.
    Known,
    /// A newer version is held; its rumor id.
    Stale {
        /// Of the newer version.
        newer: RumorId,
    },
    /// Refused: peer fault, or too old; counted by the hall.
    Refused(RefusedEntry),
}

/// Why an entry from the wire was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedEntry {
    /// Stamp, or the end that a tombstone claims, over 10 s ahead of the own wall clock.
    Ahead,
    /// Key or value over the limits.
    Size,
    /// A tombstone older than its lifetime, or a broadcast older than its retention.
    Old,
    /// The store is full.
    Full,
    /// Another key has its place: of a million keys one pair in 10^8 clusters.
    Place,
}

/// A page of entries in order of place.
#[derive(Clone, PartialEq, Debug)]
pub struct EntryPage {
    /// The entries; tombstones and reserved ones included.
    pub entries: Vec<Arc<Entry>>,
    /// Place the next page starts at.
    pub next: u64,
    /// No more follow.
    pub last: bool,
}

/// What goes with an entry's RECORD besides key and value, at most.
const RECORD_EXTRA_BYTES: usize = 3 + 2 + 2 + 3 + 8 + 8 + 1 + 10;
/// Lifetimes ended at a time: some 3 ms.
const ENDS_MAX: usize = 1_024;
/// What goes with a PAGE of entries, at most.
const PAGE_EXTRA_BYTES: usize = 5 + 1 + 8 + 8 + 1 + 3;

/// The entries of one member.
///
/// Lifetimes end at the millisecond (stamp + TTL); a root at T, which counts whole seconds, first ends whatever ends in T's
/// second or before.
pub struct Store {
    hasher: RecordHasher,
    limits: Limits,
    tombstone_lifetime_ms: u64,
    retention_ms: u64,
    settle_secs: u8,
    small_bytes_max: usize,
    clock: HybridClock,
    pages: Pages,
    keys: Keys,
    tree: MerkleTree,
    timeline: Timeline,
    /// When the present phase of an entry ends, wall ms; only of those that end.
    due: BTreeSet<(u64, u64)>,
    /// Became tombstones, not told yet.
    expired: Vec<Arc<Entry>>,
    bytes: usize,
    tombstones: usize,
    /// Something was refused for lack of room since room was last made.
    refused: bool,
    last: Now,
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn is_reserved(key: &[u8]) -> bool {
    key.first() == Some(&RESERVED)
}

impl Store {
    /// An empty store.
    pub fn new(config: &Config, hasher: RecordHasher) -> Store {
        let settle_secs = config.anti_entropy.settle_secs;
        Store {
            hasher,
            limits: config.limits,
            tombstone_lifetime_ms: ms(config.tombstone_lifetime),
            retention_ms: ms(config.broadcast_retention),
            settle_secs,
            small_bytes_max: config.room().saturating_sub(RECORD_EXTRA_BYTES),
            clock: HybridClock::default(),
            pages: Pages::default(),
            keys: Keys::default(),
            tree: MerkleTree::new(),
            timeline: Timeline::new(config.limits.change_log_max, settle_secs),
            due: BTreeSet::new(),
            expired: Vec::new(),
            bytes: 0,
            tombstones: 0,
            refused: false,
            last: Now::default(),
        }
    }

    /// Writes a user's key. A lifetime counts from the stamp.
    ///
    /// # Errors
    /// [`CallError::Key`], [`CallError::ReservedKey`], [`CallError::Value`], [`CallError::StoreFull`].
    pub fn set(
        &mut self,
        now: Now,
        key: &[u8],
        value: Arc<[u8]>,
        ttl_ms: Option<u64>,
        writer: MemberId,
    ) -> Result<Arc<Entry>, CallError> {
        self.check_key(key)?;
        if is_reserved(key) {
            return Err(CallError::ReservedKey);
        }
        self.check_value(value.len(), self.limits.value_bytes_max)?;
        self.write(now, key, value, ttl_ms, writer, false)
    }

    /// Writes a reserved key (broadcast, query); it goes by itself when its retention ends.
    ///
    /// # Errors
    /// [`CallError::Key`] also if the key is not reserved, [`CallError::Value`], [`CallError::StoreFull`].
    pub fn set_reserved(
        &mut self,
        now: Now,
        key: &[u8],
        value: Arc<[u8]>,
        writer: MemberId,
    ) -> Result<Arc<Entry>, CallError> {
        if !is_reserved(key) || key.len() > KEY_BYTES_MAX {
            return Err(CallError::Key { bytes: key.len(), bytes_max: KEY_BYTES_MAX });
        }
        self.check_value(value.len(), self.limits.value_bytes_max.saturating_add(RESERVED_EXTRA_BYTES))?;
        self.write(now, key, value, None, writer, false)
    }

    /// Deletes a user's key; none if it has no live value.
    ///
    /// # Errors
    /// [`CallError::Key`], [`CallError::ReservedKey`].
    pub fn delete(
        &mut self,
        now: Now,
        key: &[u8],
        writer: MemberId,
    ) -> Result<Option<Arc<Entry>>, CallError> {
        self.check_key(key)?;
        if is_reserved(key) {
            return Err(CallError::ReservedKey);
        }
        if self.live_row(now, key).is_none() {
            return Ok(None);
        }
        self.write(now, key, Arc::default(), None, writer, true).map(Some)
    }

    /// May a user's key be so?
    ///
    /// # Errors
    /// [`CallError::Key`], [`CallError::ReservedKey`].
    pub fn check_user_key(&self, key: &[u8]) -> Result<(), CallError> {
        self.check_key(key)?;
        if is_reserved(key) { Err(CallError::ReservedKey) } else { Ok(()) }
    }

    /// The newest version known of a key, tombstones included.
    pub fn version_of(&self, key: &[u8]) -> Option<Version> {
        self.pages.get(self.hasher.place(key)).filter(|row| row.key == key).map(|row| row.version)
    }

    fn check_key(&self, key: &[u8]) -> Result<(), CallError> {
        let bytes_max = self.limits.key_bytes_max.min(KEY_BYTES_MAX);
        if key.is_empty() || key.len() > bytes_max {
            return Err(CallError::Key { bytes: key.len(), bytes_max });
        }
        Ok(())
    }

    fn check_value(&self, bytes: usize, bytes_max: usize) -> Result<(), CallError> {
        if bytes > bytes_max { Err(CallError::Value { bytes, bytes_max }) } else { Ok(()) }
    }

    fn write(
        &mut self,
        now: Now,
        key: &[u8],
        value: Arc<[u8]>,
        ttl_ms: Option<u64>,
        writer: MemberId,
        tombstone: bool,
    ) -> Result<Arc<Entry>, CallError> {
        self.turn(now);
        let place = self.hasher.place(key);
        let held = self.pages.get(place);
        if held.is_some_and(|row| row.key != key) || !self.has_room(held, key.len() + value.len()) {
            self.refused = true;
            return Err(CallError::StoreFull);
        }
        let version = Version { stamp: self.clock.issue(now.wall), writer };
        let entry = Arc::new(Entry { key: Arc::from(key), value, version, tombstone, ttl_ms });
        self.accept(place, &entry);
        Ok(entry)
    }

    fn has_room(&self, held: Option<Row<'_>>, bytes: usize) -> bool {
        let before = held.map_or(0, |row| row.bytes());
        let rows_fit = held.is_some() || self.pages.rows() < self.limits.entries_max;
        rows_fit && (bytes <= before || self.bytes - before + bytes <= self.limits.store_bytes_max)
    }

    /// Merges an entry from anywhere: the larger (stamp, writer) wins; of one version, its tombstone.
    pub fn merge(&mut self, now: Now, entry: &Arc<Entry>) -> MergedEntry {
        self.turn(now);
        let extra = if entry.is_reserved() { RESERVED_EXTRA_BYTES } else { 0 };
        if !(1..=KEY_BYTES_MAX).contains(&entry.key.len())
            || entry.value.len() > self.limits.value_bytes_max.saturating_add(extra)
            || (entry.tombstone && (!entry.value.is_empty() || entry.is_reserved()))
        {
            return MergedEntry::Refused(RefusedEntry::Size);
        }
        let life = Life::of(entry);
        if life.tombstone && self.began_ms(life) > now.wall.0.saturating_add(ms(CLOCK_AHEAD_MAX)) {
            return MergedEntry::Refused(RefusedEntry::Ahead);
        }
        if self.clock.observe(now.wall, entry.version.stamp).is_err() {
            return MergedEntry::Refused(RefusedEntry::Ahead);
        }
        self.merge_checked(now, entry, life)
    }

    /// The rest of [`Store::merge`], once size and stamp are known to be good.
    fn merge_checked(&mut self, now: Now, entry: &Arc<Entry>, mut life: Life) -> MergedEntry {
        let mut entry = entry.clone();
        if !life.reserved && !life.tombstone && self.end_ms(life).is_some_and(|end| end <= now.wall.0) {
            entry = buried(&entry);
            life = Life::of(&entry);
        }
        let place = self.hasher.place(&entry.key);
        if self.end_ms(life).is_some_and(|end| end <= now.wall.0) {
            // Others may have seen it in its time: it belongs to the past of a key that shows nothing.
            if self.pages.get(place).is_none() {
                let forms = self.phases(&entry.key, life, true);
                let last = self.timeline.last(place);
                self.timeline.book(place, last, &forms);
            }
            return MergedEntry::Refused(RefusedEntry::Old);
        }
        let order = (life.version, life.phase());
        let Some(row) = self.pages.get(place) else {
            if self.timeline.last(place).is_some_and(|f| f.order() >= order) {
                return MergedEntry::Refused(RefusedEntry::Old);
            }
            return self.take(place, entry, None, now);
        };
        if row.key != &*entry.key {
            return MergedEntry::Refused(RefusedEntry::Place);
        }
        let held = Life::of_row(&row);
        if order > (held.version, held.phase()) {
            let live = !held.tombstone && self.end_ms(held).is_none_or(|end| end > now.wall.0);
            return self.take(place, entry, Some(Before { version: held.version, live }), now);
        }
        if life.version == held.version {
            return MergedEntry::Known;
        }
        let newer = row.rumor();
        if self.timeline.touches(place) {
            let current = self.form_of(&self.hasher.entry_name(&entry.key), held);
            let forms = self.phases(&entry.key, life, true);
            self.timeline.book(place, Some(current), &forms);
        }
        MergedEntry::Stale { newer }
    }

    fn take(&mut self, place: u64, entry: Arc<Entry>, before: Option<Before>, now: Now) -> MergedEntry {
        if !self.has_room(self.pages.get(place), entry.key.len() + entry.value.len()) {
            self.refused = true;
            return MergedEntry::Refused(RefusedEntry::Full);
        }
        self.accept(place, &entry);
        self.last = now;
        MergedEntry::Accepted { entry, before }
    }

    fn turn(&mut self, now: Now) {
        self.last = now;
        self.timeline.trim(now.wall.second());
    }

    fn live_row(&self, now: Now, key: &[u8]) -> Option<Row<'_>> {
        self.pages.get(self.hasher.place(key)).filter(|row| row.key == key && self.shows(now, row))
    }

    fn shows(&self, now: Now, row: &Row<'_>) -> bool {
        !row.tombstone && self.end_ms(Life::of_row(row)).is_none_or(|end| end > now.wall.0)
    }

    /// The live entry of a key, reserved ones included.
    pub fn get(&self, now: Now, key: &[u8]) -> Option<Arc<Entry>> {
        self.live_row(now, key).map(|row| row.entry())
    }

    /// Live entries of users whose key begins with `prefix` and is greater than `after`, in key order, at most `count`.
    pub fn scan(&self, now: Now, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Vec<Arc<Entry>> {
        let rows = self.keys.scan(&self.pages, prefix, after);
        rows.filter(|row| self.shows(now, row)).take(count).map(|row| row.entry()).collect()
    }

    /// Live keys of users.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// No live keys of users?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values, tombstones and reserved entries included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tombstones held.
    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// Is a limit of entries or bytes reached, or was something refused for it? Then the entries are not compared (`S7`) and
    /// the member is unhealthy.
    pub fn is_full(&self) -> bool {
        self.refused
            || self.pages.rows() >= self.limits.entries_max
            || self.bytes >= self.limits.store_bytes_max
    }

    /// Takes a stamp of a BEAT into the hybrid clock.
    ///
    /// # Errors
    /// [`ClockAhead`]: over 10 s ahead of the own wall clock; nothing changed.
    pub fn observe(&mut self, now: Now, seen: Stamp) -> Result<(), ClockAhead> {
        self.clock.observe(now.wall, seen)
    }

    /// The hybrid clock, for a BEAT.
    pub fn clock(&self, now: Now) -> Stamp {
        self.clock.read(now.wall)
    }

    fn is_near(&self, now: Now, settled: Second) -> bool {
        let here = now.wall.second();
        settled >= here.minus(RING_SECS) && settled.0 <= here.plus(CLOCK_AHEAD_MAX.as_secs() as u32).0
    }

    fn end_second(&mut self, settled: Second) {
        self.end_before((u64::from(settled.0) + 1) * 1000, usize::MAX);
    }

    /// Root of the entries settled at the end of second T; none if T lies too far back (over 75 s) or ahead (over 10 s). First
    /// ends what ends at or before T.
    pub fn settled_root(&mut self, now: Now, settled: Second) -> Option<u32> {
        self.turn(now);
        if !self.is_near(now, settled) {
            return None;
        }
        self.end_second(settled);
        let total = self.tree.total().wrapping_sub(self.timeline.sum_after(settled));
        Some(self.hasher.key().root(settled.0, total))
    }

    /// Sum of all entries held now.
    pub fn live_sum(&self) -> u128 {
        self.tree.total()
    }

    fn row(&self, id: RumorId) -> Option<Row<'_>> {
        let first = u64::from(id.bucket) << 48;
        self.pages.range(first, first | u64::MAX >> 16).find(|row| row.tag == id.tag)
    }

    /// Is this version held, or was it replaced within the change log's time?
    pub fn known(&self, id: RumorId) -> Known {
        if self.row(id).is_some() {
            return Known::Yes;
        }
        match self.timeline.find(id) {
            None => Known::No,
            Some(place) => {
                self.pages.get(place).map_or(Known::Yes, |row| Known::Replaced { newer: row.rumor() })
            }
        }
    }

    /// Is this version, or a newer one that replaced it lately, held? For rumors, POLL and SEEN.
    pub fn knows(&self, id: RumorId) -> bool {
        self.known(id) != Known::No
    }

    /// The entry of this version; the newer one if it was replaced within the change log's time.
    pub fn find(&self, id: RumorId) -> Option<Arc<Entry>> {
        self.row(id)
            .or_else(|| self.timeline.find(id).and_then(|place| self.pages.get(place)))
            .map(|row| row.entry())
    }

    /// Entries from this place on, as many as fit a PAGE of `bytes_max` bytes, at least one if there is any.
    pub fn page(&self, from: u64, bytes_max: usize) -> EntryPage {
        let mut page = EntryPage { entries: Vec::new(), next: from, last: true };
        let mut room = bytes_max.saturating_sub(PAGE_EXTRA_BYTES);
        for row in self.pages.range(from, u64::MAX) {
            let bytes = row.bytes() + RECORD_EXTRA_BYTES;
            if !page.entries.is_empty() && bytes > room {
                page.last = false;
                break;
            }
            room = room.saturating_sub(bytes);
            page.next = row.place.saturating_add(1);
            page.entries.push(row.entry());
        }
        page
    }

    /// Is there an entry stamped no later than this? Looks at all of them until it finds one.
    pub fn holds_until(&self, stamp: Stamp) -> bool {
        self.pages.range(0, u64::MAX).any(|row| row.version.stamp <= stamp)
    }

    /// Drops every entry stamped no later than this (`S7`); the users' keys that had a value, and its version. The clock
    /// stands; the change log begins anew.
    pub fn drop_until(&mut self, now: Now, stamp: Stamp) -> Vec<(Key, Version)> {
        let mut dropped = Vec::new();
        let mut kept = Vec::new();
        let mut journal = self.pages.journal.take();
        for row in self.pages.range(0, u64::MAX) {
            if row.version.stamp > stamp {
                kept.push((row.place, row.entry()));
            } else if !is_reserved(row.key) {
                if let Some(journal) = &mut journal {
                    // No removal that a start would make up for: what is dropped has not ended.
                    journal.note(row.place, false);
                }
                if !row.tombstone {
                    dropped.push((Arc::from(row.key), row.version));
                }
            }
        }
        self.pages = Pages::default();
        self.keys = Keys::default();
        self.tree = MerkleTree::new();
        self.timeline = Timeline::new(self.limits.change_log_max, self.settle_secs);
        self.due.clear();
        (self.bytes, self.tombstones, self.refused) = (0, 0, false);
        self.turn(now);
        kept.iter().for_each(|(place, entry)| self.accept(*place, entry));
        self.pages.journal = journal;
        dropped
    }

    /// The view at T for a session; none (BUSY) if the change log does not reach back to T or overflowed after it.
    pub fn view(&mut self, now: Now, settled: Second) -> Option<Box<dyn Replica + '_>> {
        self.turn(now);
        if !self.is_near(now, settled) || !self.timeline.reaches(settled) {
            return None;
        }
        self.end_second(settled);
        let (delta, then) = self.timeline.undo(settled);
        Some(Box::new(View {
            pages: &self.pages,
            tree: &self.tree,
            key: self.hasher.key(),
            delta,
            then,
            small_bytes_max: self.small_bytes_max,
        }))
    }

    /// Is the change log full, or was it within the settle time? Then no session starts and requests get BUSY.
    pub fn busy(&self, now: Now) -> bool {
        let settled = now.wall.second().minus(u32::from(self.settle_secs));
        self.timeline.is_full() || !self.timeline.reaches(settled)
    }

    /// When the next lifetime ends, by the clocks of the last input.
    pub fn deadline(&self) -> Mono {
        if !self.expired.is_empty() {
            return self.last.mono;
        }
        let wait = |&(end, _): &(u64, u64)| Duration::from_millis(end.saturating_sub(self.last.wall.0));
        self.due.first().map_or(Mono::FAR, |due| self.last.mono + wait(due))
    }

    /// Ends what is due, about a thousand entries at a time so that heartbeats go on when a million end at once: the deadline
    /// stays in the past until all have. None of them is shown meanwhile. Returns users' entries that became tombstones by it,
    /// and those that an earlier root ended ('expire').
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Arc<Entry>> {
        self.turn(now);
        self.end_before(now.wall.0.saturating_add(1), ENDS_MAX);
        std::mem::take(&mut self.expired)
    }

    /// Heap of the store in bytes: pages, order of keys, tree, change log, lifetimes.
    pub fn heap_bytes(&self) -> usize {
        self.pages.heap_bytes()
            + self.keys.heap_bytes()
            + self.tree.heap_bytes()
            + self.timeline.heap_bytes()
            + self.due.len() * 24
    }
}
