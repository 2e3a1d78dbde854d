//! To the disk and back: what changed since it was last taken, and entries read at a start.

use std::sync::Arc;

use super::journal::Journal;
use super::life::Life;
use super::{MergedEntry, RefusedEntry, Store};
use crate::entry::Entry;
use crate::image::Write;
use crate::time::{Now, Stamp};

/// What an entry of a batch counts beside its key and value.
const ROW_BYTES: usize = 32;

impl Store {
    /// Changes of users' keys are noted from now on, for [`Store::take_unsaved`].
    pub fn keep(&mut self) {
        self.pages.journal = Some(Journal::new(self.limits.entries_max));
    }

    /// Takes up an entry read from the disk. It was judged when it came, so its stamp is not refused for the clock of today.
    /// What ended meanwhile becomes a tombstone or goes; what does not fit limits that were lowered stays on the disk only.
    pub fn restore(&mut self, now: Now, place: u64, entry: &Arc<Entry>) {
        self.turn(now);
        self.clock.adopt(entry.version.stamp);
        let journal = self.pages.journal.take();
        let merged = if self.hasher.place(&entry.key) == place {
            self.merge_checked(now, entry, Life::of(entry))
        } else {
            MergedEntry::Refused(RefusedEntry::Place)
        };
        self.pages.journal = journal;
        let as_saved = match merged {
            MergedEntry::Accepted { entry: taken, .. } => taken.tombstone == entry.tombstone,
            MergedEntry::Refused(RefusedEntry::Full) => true,
            _ => false,
        };
        if let Some(journal) = self.pages.journal.as_mut().filter(|_| !as_saved) {
            journal.note(place, false);
        }
    }

    /// Nothing later was issued or seen: what the disk keeps. Without the wall clock's time, which may be wrong at the moment.
    pub fn clock_kept(&self) -> Stamp {
        self.clock.newest()
    }

    /// Nothing at or before this stamp is issued any more.
    pub fn restore_clock(&mut self, clock: Stamp) {
        self.clock.adopt(clock);
    }

    /// Rows held, of any kind.
    pub fn rows(&self) -> usize {
        self.pages.rows()
    }

    /// How many changes were noted, and how many of them taken. What is noted now is taken once as many were.
    pub fn unsaved(&self) -> (u64, u64) {
        self.pages.journal.as_ref().map_or((0, 0), Journal::counts)
    }

    /// Adds what changed, each key once and as it is now, the longest waiting first: at most `rows_max` rows of about
    /// `bytes_max` bytes, and at least one if there is any.
    pub fn take_unsaved(&mut self, writes: &mut Vec<Write>, rows_max: usize, bytes_max: usize) {
        let mut bytes = 0;
        for _ in 0..rows_max {
            if bytes >= bytes_max {
                return;
            }
            let Some(place) = self.pages.journal.as_mut().and_then(Journal::take) else { return };
            bytes += ROW_BYTES;
            writes.push(match self.pages.get(place) {
                None => Write::NoEntry { place },
                Some(row) => {
                    bytes += row.bytes();
                    Write::Entry { place, entry: row.entry() }
                }
            });
        }
    }
}
