//! When something is saved, and what is known to be: one batch at a time is under way, everything else is gathered.
//!
//! A write waits at most [`GATHER`] for others to share its batch with, and not at all while somebody waits for it to be saved.
//! If the disk is slower than the writes, each key waits once, as it is when its batch is made.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::image::{Acquaintance, Batch, Own, Write};
use crate::member::MemberId;
use crate::roster::Roster;
use crate::table::Table;
use crate::time::{Mono, Now, Second, Stamp};

/// How long writes are gathered when nobody waits for them to be saved.
pub const GATHER: Duration = Duration::from_millis(100);
/// Entries of a batch, in number and bytes.
pub const ROWS_MAX: usize = 4_096;
/// About as many bytes; one entry may be longer.
pub const BYTES_MAX: usize = 1 << 20;
/// Members who came, went or moved are saved this long after.
const MEMBERS_AFTER: Duration = Duration::from_secs(2);
/// What was heard of members is written this often, and more often if tombstones live for less than a few hours: from it a
/// restarted member learns how long it was away (`S7`).
const HEARD_EVERY: Duration = Duration::from_secs(600);

/// What the disk holds of a member.
struct Saved {
    id: MemberId,
    revision: u64,
    /// Seen in this run, not only on the disk.
    met: bool,
}

/// The part. Does nothing until [`Persist::start`].
pub struct Persist {
    on: bool,
    seq: u64,
    /// The batch under way, and how far the changes of entries are saved when it is.
    under_way: Option<(u64, u64)>,
    /// Changes of entries saved so far.
    saved: u64,
    /// Changes of entries that somebody waits for.
    asked: u64,
    waiting_since: Option<Mono>,
    members_since: Option<Mono>,
    /// State of the roster that is saved or under way.
    roster_changes: Option<u64>,
    members: Table<Arc<str>, Saved>,
    started: Mono,
    forget_after: Duration,
    members_max: usize,
    heard_every: Duration,
    heard_at: Mono,
}

impl Persist {
    /// Nothing is saved.
    pub fn new(now: Now, config: &Config) -> Persist {
        Persist {
            on: false,
            seq: 0,
            under_way: None,
            saved: 0,
            asked: 0,
            waiting_since: None,
            members_since: None,
            roster_changes: None,
            members: Table::new(),
            started: now.mono,
            forget_after: config.forget_dead_after,
            members_max: config.limits.members_max,
            heard_every: HEARD_EVERY.min(config.tombstone_lifetime / 16),
            heard_at: now.mono,
        }
    }

    /// Batches come from now on, the first one soon: it holds the own row.
    pub fn start(&mut self, now: Now) {
        self.on = true;
        self.started = now.mono;
        self.waiting_since = Some(now.mono);
    }

    /// Is anything saved at all?
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The disk holds this member; false if there are too many.
    pub fn restore(&mut self, member: &Acquaintance) -> bool {
        if self.members.len() >= self.members_max && !self.members.contains_key(&member.name) {
            return false;
        }
        // Any record of it that comes is newer, or the same once more.
        let saved = Saved { id: member.id, revision: 0, met: false };
        self.members.insert(member.name.clone(), saved);
        true
    }

    /// Somebody waits until as many changes of entries as were noted are saved.
    pub fn ask(&mut self, noted: u64) {
        self.asked = self.asked.max(noted);
    }

    /// Changes of entries saved so far.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Looks whether anything waits.
    pub fn look(&mut self, now: Mono, noted: u64, taken: u64, roster: &Roster) {
        if !self.on {
            return;
        }
        if noted > taken {
            self.waiting_since.get_or_insert(now);
        }
        if self.roster_changes != Some(roster.changes()) {
            self.members_since.get_or_insert(now);
        }
    }

    /// When the next batch is to be made, as of the last look.
    pub fn deadline(&self, taken: u64) -> Mono {
        if !self.on || self.under_way.is_some() {
            return Mono::FAR;
        }
        if self.asked > taken {
            return Mono(0);
        }
        let entries = self.waiting_since.map_or(Mono::FAR, |since| since + GATHER);
        let members = self.members_since.map_or(Mono::FAR, |since| since + MEMBERS_AFTER);
        entries.min(members).min(self.heard_at + self.heard_every)
    }

    /// The own row; and, if it is time, those of members that changed and what was heard of all.
    pub fn begin(
        &mut self,
        now: Now,
        roster: &Roster,
        clock: Stamp,
        heard: impl FnOnce() -> Vec<(MemberId, Second)>,
    ) -> Vec<Write> {
        let me = roster.me();
        let own = Own {
            name: me.name().clone(),
            generation: me.profile.generation,
            id: me.id(),
            incarnation: me.incarnation,
            clock,
            seen: now.wall,
        };
        let mut writes = vec![Write::Own(own)];
        if self.roster_changes != Some(roster.changes()) || self.heard_at + self.heard_every <= now.mono {
            self.roster_changes = Some(roster.changes());
            self.members_since = None;
            self.heard_at = now.mono;
            writes.push(Write::Heard(heard()));
            self.changed_members(now.mono, roster, &mut writes);
        }
        writes
    }

    fn changed_members(&mut self, now: Mono, roster: &Roster, writes: &mut Vec<Write>) {
        let me = roster.my_id();
        for member in roster.iter().filter(|m| m.id() != me) {
            let profile = &member.profile;
            let saved = Saved { id: profile.id, revision: profile.revision, met: true };
            let known = self.members.get(&profile.name);
            if known.is_some_and(|k| k.met && (k.id, k.revision) == (saved.id, saved.revision)) {
                continue;
            }
            self.members.insert(profile.name.clone(), saved);
            writes.push(Write::Member(Acquaintance {
                name: profile.name.clone(),
                generation: profile.generation,
                id: profile.id,
                incarnation: member.incarnation,
                liveness: member.liveness,
                address: profile.address,
            }));
        }
        // A member that this run has not met yet is kept as long as a dead one is remembered.
        let patient = now < self.started + self.forget_after;
        self.members.retain(|name, saved| {
            let keep = if saved.met {
                roster.by_name(name).is_some_and(|member| member.id() != me)
            } else {
                patient
            };
            if !keep {
                writes.push(Write::NoMember(name.clone()));
            }
            keep
        });
    }

    /// These rows leave for the disk; `taken`: changes of entries in them and before. `noted`: all so far.
    pub fn send(&mut self, writes: Vec<Write>, noted: u64, taken: u64) -> Batch {
        self.seq += 1;
        self.under_way = Some((self.seq, taken));
        if noted == taken {
            self.waiting_since = None;
        }
        Batch { seq: self.seq, writes }
    }

    /// The batch under way would survive a loss of power. False if it is another one.
    pub fn handle_persisted(&mut self, seq: u64) -> bool {
        let Some((_, taken)) = self.under_way.take_if(|(under_way, _)| *under_way == seq) else {
            return false;
        };
        self.saved = self.saved.max(taken);
        true
    }
}
