//! `S7` in the hall: who may exchange entries with whom, and what the side that was away for too long does.

use std::sync::Arc;

use super::Gossip;
use crate::absence::{Told, Verdict};
use crate::entry::Entry;
use crate::join;
use crate::member::{Generation, MemberId};
use crate::output::{Change, ChangeKind, Event};
use crate::time::{Now, Second};

impl Gossip {
    /// The entries of a member and mine were equal as of T, or a session made them so.
    pub(super) fn note_match(&mut self, now: Now, peer: MemberId, settled: Second) {
        self.absence.handle_match(now, peer, settled, &self.roster);
    }

    /// May entries of any age move between this member and me? If not, HEARD goes to it.
    pub(super) fn may_move(&mut self, now: Now, peer: MemberId) -> bool {
        let near = self.absence.is_near(now, peer, &self.roster);
        if !near {
            self.ask_heard(now, peer);
        }
        near
    }

    pub(super) fn ask_heard(&mut self, now: Now, peer: MemberId) {
        let peer = self.absence.counterpart(peer);
        if let Some(message) = self.absence.ask(now, peer, &self.roster) {
            self.transfer.send(now, peer, message, &self.roster);
        }
    }

    /// HEARD: agreed, entries may move at once; else one side gives up its past.
    pub(super) fn handle_heard(
        &mut self,
        now: Now,
        from: MemberId,
        living: u16,
        table: &[(MemberId, Second)],
    ) {
        if !self.config.anti_entropy.absence {
            return;
        }
        let theirs = Told::from_wire(from, living, table);
        let (verdict, reply) = self.absence.handle_heard(now, from, theirs, &self.roster);
        let asked = reply.is_none();
        if let Some(message) = reply {
            self.transfer.send(now, from, message, &self.roster);
        }
        match verdict {
            Verdict::Agree if asked && !self.join.is_joining() => {
                self.note_back(now, from);
                self.detector.confirm(now, from);
            }
            Verdict::Later | Verdict::Agree | Verdict::Win => {}
            Verdict::Lose => self.rejoin(now, from),
        }
    }

    /// I was away for too long: entries older than G/2 are dropped, younger ones kept; under a new generation I pull what the
    /// winner has.
    fn rejoin(&mut self, now: Now, winner: MemberId) {
        let until = self.absence.old_until(now);
        let gone = self.store.drop_until(now, until);
        self.rumors.drop_entries_until(until);
        let dropped = gone.len() as u64;
        self.dropped.extend(gone);
        self.absence.handle_pull(now, winner, false, &self.roster);
        // Comparisons and sessions under way are of what I held.
        self.beaten.clear();
        let living: Vec<MemberId> = self.roster.living_ids().collect();
        living.into_iter().for_each(|id| self.sync.handle_gone(now, id));
        self.tell(Event::Rejoined { dropped });
        let Some(member) = self.roster.get(winner) else { return };
        let known = self.roster.me().profile.generation.0.saturating_add(1);
        let generation = Generation(known.max(now.wall.0).min(Generation::MAX.0));
        self.run_join(now, join::Action::Renew { generation });
        self.join.pull_again(now, &member, &self.roster, &mut self.rng);
    }

    /// The lists are complete: what was dropped and did not come back is gone for watchers too.
    pub(super) fn end_rejoin(&mut self) {
        self.absence.handle_joined();
        for (key, version) in std::mem::take(&mut self.dropped) {
            let entry = Entry { key, value: Arc::default(), version, tombstone: true, ttl_ms: None };
            let origin = self.roster.profile(version.writer).map(|p| p.name.clone());
            self.tell(Event::StateChanged(Change {
                kind: ChangeKind::Delete,
                entry: Arc::new(entry),
                origin,
            }));
        }
    }
}
