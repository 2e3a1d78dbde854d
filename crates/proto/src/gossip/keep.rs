//! The disk: what leaves for it, what is known to be on it, what comes from it at a start.

use super::Gossip;
use super::outbound::Ready;
use crate::image::{Batch, Write};
use crate::persist;
use crate::time::Now;

/// A member that holds at least so many entries from its disk asks for none but those that differ (`J1`); with fewer it pulls
/// all, which costs a kilobyte for ten of its own and brings a stream's speed.
const HOLDS_MANY: usize = 1_024;

impl Gossip {
    /// Saves what changes from now on: [`crate::Output::Persist`] comes. Before any other input or command; then
    /// [`Gossip::restore`] for what the disk holds.
    pub fn keep(&mut self, now: Now) {
        self.store.keep();
        self.persist.start(now);
    }

    /// Takes up rows read from the disk, in any order, as many calls as the host likes; before [`Gossip::join`]. The own row's
    /// generation belongs into [`crate::Identity`]. Nobody is told of anything: these are no changes.
    pub fn restore(&mut self, now: Now, rows: &[Write]) {
        for row in rows {
            match row {
                Write::Own(own) => self.store.restore_clock(own.clock),
                Write::Member(member) => {
                    if self.persist.restore(member) {
                        self.join.remember(member.address, &mut self.rng);
                    }
                }
                Write::Heard(table) => self.absence.restore(table, &self.roster),
                Write::Entry { place, entry } => {
                    self.absence.handle_taken(entry.version.stamp);
                    self.store.restore(now, *place, entry);
                }
                Write::NoMember(_) | Write::NoEntry { .. } => {}
            }
        }
        self.join.hold_entries(self.store.rows() >= HOLDS_MANY);
    }

    /// Asks for all writes so far to be saved without delay. They are once [`Gossip::persisted`] has come to this number.
    pub fn flush(&mut self) -> u64 {
        let (noted, _) = self.store.unsaved();
        self.persist.ask(noted);
        noted
    }

    /// How far writes are saved, see [`Gossip::flush`].
    pub fn persisted(&self) -> u64 {
        self.persist.saved()
    }

    /// The batch of this number is on the disk, also after a loss of power.
    pub fn handle_persisted(&mut self, seq: u64) {
        self.persist.handle_persisted(seq);
    }

    /// The own row, with what is not saved yet: a member saves its run before anybody hears of it. To be answered by
    /// [`Gossip::handle_persisted`].
    pub fn persist_own(&mut self, now: Now) -> Batch {
        self.batch(now)
    }

    /// What is not saved yet, at the end of a member: batches until none. Each is to be answered by
    /// [`Gossip::handle_persisted`] before the next call.
    pub fn persist_rest(&mut self, now: Now) -> Option<Batch> {
        let waiting = self.ready.iter().position(|ready| matches!(ready, Ready::Persist(_)));
        if let Some(Ready::Persist(batch)) = waiting.and_then(|at| self.ready.remove(at)) {
            return Some(batch);
        }
        let (noted, taken) = self.store.unsaved();
        (self.persist.is_on() && noted > taken).then(|| self.batch(now))
    }

    /// Looks whether a batch is due, and makes it.
    pub(super) fn pack_batch(&mut self, now: Now) -> bool {
        let (noted, taken) = self.store.unsaved();
        self.persist.look(now.mono, noted, taken, &self.roster);
        let due = self.persist.deadline(taken) <= now.mono;
        if due {
            let batch = self.batch(now);
            self.ready.push_back(Ready::Persist(batch));
        }
        due
    }

    fn batch(&mut self, now: Now) -> Batch {
        let heard = || self.absence.told(now, &self.roster).table.iter().map(|(id, t)| (*id, *t)).collect();
        let mut writes = self.persist.begin(now, &self.roster, self.store.clock_kept(), heard);
        self.store.take_unsaved(&mut writes, persist::ROWS_MAX, persist::BYTES_MAX);
        let (noted, taken) = self.store.unsaved();
        self.persist.send(writes, noted, taken)
    }
}
