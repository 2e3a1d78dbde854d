//! The entries of one member (section 2.3): which write of a key wins, lifetimes, tombstones, the order of keys and of places,
//! and the settled roots and views that anti-entropy compares (`S1`).

use std::sync::Arc;

use crate::config::Config;
use crate::entry::{Entry, Version};
use crate::member::MemberId;
use crate::output::CallError;
use crate::record::{RecordHasher, RumorId};
use crate::sync::Replica;
use crate::time::{ClockAhead, Mono, Now, Second, Stamp};

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

/// The entries of one member.
pub struct Store {
    hasher: RecordHasher,
}

impl Store {
    /// An empty store.
    pub fn new(config: &Config, hasher: RecordHasher) -> Store {
        let _ = config;
        Store { hasher }
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
        let _ = (now, key, value, ttl_ms, writer);
        Err(CallError::StoreFull)
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
        let _ = (now, key, value, writer);
        Err(CallError::StoreFull)
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
        let _ = (now, key, writer);
        Ok(None)
    }

    /// Merges an entry from anywhere: the larger (stamp, writer) wins.
    pub fn merge(&mut self, now: Now, entry: &Arc<Entry>) -> MergedEntry {
        let _ = (now, entry);
        MergedEntry::Known
    }

    /// The live entry of a key, reserved ones included.
    pub fn get(&self, now: Now, key: &[u8]) -> Option<Arc<Entry>> {
        let _ = (now, key);
        None
    }

    /// Live entries of users whose key begins with `prefix` and is greater than `after`, in key order, at most `count`.
    pub fn scan(&self, now: Now, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Vec<Arc<Entry>> {
        let _ = (now, prefix, after, count);
        Vec::new()
    }

    /// Live keys of users.
    pub fn len(&self) -> usize {
        0
    }

    /// No live keys of users?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values, tombstones and reserved entries included.
    pub fn bytes(&self) -> usize {
        0
    }

    /// Tombstones held.
    pub fn tombstones(&self) -> usize {
        0
    }

    /// Is a limit of entries or bytes reached? Then the entries are not compared (`S7`) and the member is unhealthy.
    pub fn is_full(&self) -> bool {
        false
    }

    /// Takes a stamp of a BEAT into the hybrid clock.
    ///
    /// # Errors
    /// [`ClockAhead`]: over 10 s ahead of the own wall clock; nothing changed.
    pub fn observe(&mut self, now: Now, seen: Stamp) -> Result<(), ClockAhead> {
        let _ = (now, seen);
        Ok(())
    }

    /// The hybrid clock, for a BEAT.
    pub fn clock(&self, now: Now) -> Stamp {
        Stamp::at(now.wall)
    }

    /// Root of the entries settled at the end of second T; none if T lies too far back (over 75 s) or ahead (over 10 s). First
    /// ends what ends at or before T.
    pub fn settled_root(&mut self, now: Now, settled: Second) -> Option<u32> {
        let _ = now;
        Some(self.hasher.key().root(settled.0, 0))
    }

    /// Sum of all entries held now.
    pub fn live_sum(&self) -> u128 {
        0
    }

    /// Is this version held, or was it replaced within the change log's time?
    pub fn knows(&self, id: RumorId) -> bool {
        let _ = id;
        false
    }

    /// The entry of this version; the newer one if it was replaced within the change log's time.
    pub fn find(&self, id: RumorId) -> Option<Arc<Entry>> {
        let _ = id;
        None
    }

    /// Entries from this place on, about `bytes_max` bytes of keys and values, at least one if there is any.
    pub fn page(&self, from: u64, bytes_max: usize) -> EntryPage {
        let _ = bytes_max;
        EntryPage { entries: Vec::new(), next: from, last: true }
    }

    /// The view at T for a session; none (BUSY) if the change log does not reach back to T or overflowed after it.
    pub fn view(&mut self, now: Now, settled: Second) -> Option<Box<dyn Replica + '_>> {
        let _ = (now, settled);
        None
    }

    /// Is the change log full, or was it within the last settle time? Then no session starts and requests get BUSY.
    pub fn busy(&self, now: Now) -> bool {
        let _ = now;
        false
    }

    /// When the next lifetime ends.
    pub fn deadline(&self) -> Mono {
        Mono::FAR
    }

    /// Ends what is due. Returns users' entries that became tombstones by it, and those that an earlier root ended ('expire').
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Arc<Entry>> {
        let _ = now;
        Vec::new()
    }

    /// Heap of the store in bytes: pages, order of keys, tree, change log.
    pub fn heap_bytes(&self) -> usize {
        0
    }
}
