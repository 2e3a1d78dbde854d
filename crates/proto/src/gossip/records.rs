//! Records: merging them, telling of what is new, and letting both trees be looked at.

use std::sync::Arc;

use super::Gossip;
use crate::entry::Entry;
use crate::member::{Claim, Liveness, Member, MemberId};
use crate::output::{Change, ChangeKind, Event};
use crate::record::{Record, RumorId, Tree};
use crate::replica::{Replica, Replicas};
use crate::roster::{Merged, Roster};
use crate::rumors::Put;
use crate::store::{MergedEntry, Store};
use crate::sync::Arrived;
use crate::sync::members::MemberIndex;
use crate::time::{Now, Second};

/// Where a record came from, and so what its news is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A rumor with this hop: hot with the next.
    Rumor(u8),
    /// HELLO without spread, WELCOME of a join, or a session: not hot.
    Quiet,
    /// A PAGE that was asked for: not hot, and broadcasts in it that are older than I am are not delivered.
    Page,
}

/// Both trees for a session.
pub(super) struct Trees<'a> {
    pub(super) store: &'a mut Store,
    pub(super) roster: &'a Roster,
    pub(super) index: &'a mut MemberIndex,
}

impl Replicas for Trees<'_> {
    fn root(&mut self, now: Now, tree: Tree, settled: Second) -> Option<u32> {
        match tree {
            Tree::Members => Some(self.roster.root()),
            Tree::Entries => self.store.settled_root(now, settled),
        }
    }

    fn view(&mut self, now: Now, tree: Tree, settled: Second) -> Option<Box<dyn Replica + '_>> {
        match tree {
            Tree::Members => Some(Box::new(self.index.view(self.roster))),
            Tree::Entries => self.store.view(now, settled),
        }
    }
}

impl Gossip {
    /// A record from anywhere. Returns whether it changed anything.
    pub(super) fn handle_record(
        &mut self,
        now: Now,
        from: MemberId,
        record: &Record,
        source: Source,
    ) -> bool {
        match record {
            Record::Member(member) => {
                let news = self.merge_member(now, member, source);
                if !news && matches!(source, Source::Rumor(_)) {
                    let id = self.roster.hasher().member_rumor(&member.profile);
                    self.rumors.handle_known_record(from, id);
                }
                news
            }
            Record::Entry(entry) => self.merge_entry(now, from, entry, source),
        }
    }

    /// Ends whatever waited for this record; what it was to anti-entropy (`S5`).
    fn arrived(&mut self, now: Now, id: RumorId, news: bool) -> Arrived {
        self.rumors.handle_arrived(now, id);
        self.transfer.handle_arrived(now, id, &self.roster);
        if news {
            self.hall.records_new += 1;
        } else {
            self.hall.records_known += 1;
        }
        self.sync.handle_arrived(now, id, news)
    }

    /// Merges a member record by section 2.1.
    pub(super) fn merge_member(&mut self, now: Now, record: &Member, source: Source) -> bool {
        // A suspicion needs accusers: it comes as a claim.
        let mut record = record.clone();
        if record.liveness == Liveness::Suspect {
            record.liveness = Liveness::Alive;
        }
        let id = record.id();
        let rumor = self.roster.hasher().member_rumor(&record.profile);
        let merged = self.roster.merge(now, &record);
        let (news, spread) = match &merged {
            Merged::New => {
                self.member_changed(now, id, None);
                (true, true)
            }
            Merged::Replaced { old, .. } => {
                self.retire(now, *old);
                self.member_changed(now, id, None);
                (true, true)
            }
            Merged::Updated { profile, live } => {
                if let Some(was) = live {
                    self.member_changed(now, id, Some(*was));
                }
                if *profile {
                    self.detector.handle_member(now, id, &self.roster, &mut self.rng);
                    if let Some(member) = self.roster.get(id) {
                        self.tell(Event::MemberUpdated(member));
                    }
                }
                (true, *profile)
            }
            Merged::Unchanged | Merged::Stale => (false, false),
            Merged::MyName => {
                self.join.handle_my_name(now, &record, &self.roster);
                (false, false)
            }
            Merged::Refused(_) => {
                self.traffic.records_refused += 1;
                (false, false)
            }
        };
        self.arrived(now, rumor, news);
        if news {
            // What a session replaced is no news any more.
            self.rumors.drop_member(record.name(), rumor);
        }
        if let (true, Source::Rumor(hop), Some(member)) = (news, source, self.roster.get(id)) {
            if spread {
                self.rumors.put_member(now, member, rumor, hop.saturating_add(1), false, &mut self.rng);
            } else {
                let claim = Claim::plain(id, member.incarnation, member.liveness);
                self.rumors.put_claim(now, claim, &mut self.rng);
            }
        }
        news
    }

    /// A newer run of its name took this id's slot: nothing of the old run goes on.
    pub(super) fn retire(&mut self, now: Now, old: MemberId) {
        self.detector.handle_member(now, old, &self.roster, &mut self.rng);
        self.forget(now, old);
        self.absence.handle_forgotten(old);
        self.rumors.drop_claim(old);
        self.revived.remove(&old);
    }

    /// Merges an entry: larger (stamp, writer).
    fn merge_entry(&mut self, now: Now, from: MemberId, entry: &Arc<Entry>, source: Source) -> bool {
        let rumor = self.roster.hasher().entry_rumor(entry);
        let page = source == Source::Page;
        if self.absence.is_old(now, entry.version.stamp)
            && !self.absence.believes(now, from, page, &self.roster)
        {
            self.arrived(now, rumor, false);
            self.traffic.records_refused += 1;
            return false;
        }
        let merged = self.store.merge(now, entry);
        let news = matches!(merged, MergedEntry::Accepted { .. });
        let arrived = self.arrived(now, rumor, news);
        match merged {
            MergedEntry::Accepted { entry, before } => {
                self.absence.handle_taken(entry.version.stamp);
                let back = self.dropped.remove(&entry.key);
                if back != Some(entry.version) || entry.tombstone {
                    self.tell_change(&entry, back.is_some() || before.is_some_and(|b| b.live));
                }
                self.confirm_changed(&entry);
                // Who skipped the PULL of the entries gets by sessions what a PULL would have brought.
                let pulled = source == Source::Page || source == Source::Quiet && self.join.holds_entries();
                self.talk_of(now, &entry, pulled);
                let hop = match source {
                    Source::Rumor(hop) => Some(hop.saturating_add(1)),
                    Source::Quiet | Source::Page if arrived.hot => Some(crate::wire::HOP_COLD),
                    Source::Quiet | Source::Page => None,
                };
                match hop {
                    Some(hop) => {
                        self.rumors.put_entry(now, entry, rumor, hop, false, &mut self.rng);
                    }
                    None => self.rumors.drop_entry(&entry.key),
                }
            }
            MergedEntry::Stale { newer } => {
                if arrived.wanted {
                    self.sync.handle_stale(now, from, newer);
                }
                if matches!(source, Source::Rumor(_)) {
                    self.rumors.handle_known_record(from, rumor);
                }
            }
            MergedEntry::Known => {
                if matches!(source, Source::Rumor(_)) {
                    self.rumors.handle_known_record(from, rumor);
                }
            }
            MergedEntry::Refused(_) => self.traffic.records_refused += 1,
        }
        news
    }

    /// Tells watchers of a change of a user's key; `had`: there was a value before.
    pub(super) fn tell_change(&mut self, entry: &Arc<Entry>, had: bool) {
        let kind = match (entry.tombstone, entry.ttl_ms.is_some()) {
            (false, _) => ChangeKind::Set,
            (true, true) => ChangeKind::Expire,
            (true, false) => ChangeKind::Delete,
        };
        if entry.is_reserved() || (kind != ChangeKind::Set && !had) {
            return;
        }
        let origin = self.roster.profile(entry.version.writer).map(|p| p.name.clone());
        self.tell(Event::StateChanged(Change { kind, entry: entry.clone(), origin }));
    }

    /// Lifetimes that ended.
    pub(super) fn expire(&mut self, now: Now) {
        for entry in self.store.handle_timeout(now) {
            self.tell_change(&entry, true);
        }
    }

    /// An own write: a rumor from now on. True if it is left to anti-entropy.
    pub(super) fn put_own(&mut self, now: Now, entry: Arc<Entry>) -> bool {
        let id = self.roster.hasher().entry_rumor(&entry);
        self.rumors.put_entry(now, entry, id, 0, true, &mut self.rng) == Put::LeftToRepair
    }

    /// My own record, changed: a rumor.
    pub(super) fn put_me(&mut self, now: Now) {
        let me = self.roster.me();
        let id = self.roster.hasher().member_rumor(&me.profile);
        self.rumors.put_member(now, me, id, 0, true, &mut self.rng);
    }

    /// Is this version of a record held, or newer?
    pub(super) fn knows(&self, id: RumorId) -> bool {
        self.store.knows(id) || self.roster.find_rumor(id).is_some()
    }

    pub(super) fn sync_timeout(&mut self, now: Now) {
        self.sync.set_rtt(self.detector.rtt_max_recent(now));
        let mut trees = Trees { store: &mut self.store, roster: &self.roster, index: &mut self.index };
        self.sync.handle_timeout(now, &mut trees, &mut self.rng);
    }
}
