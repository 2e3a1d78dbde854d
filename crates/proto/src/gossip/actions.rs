//! Does what parts ask for, until none asks for anything.

use super::inbound::carried;
use super::outbound::Ready;
use super::{Gossip, Leave};
use crate::budget::Class;
use crate::config::DetectorRule;
use crate::detector;
use crate::join;
use crate::member::{Liveness, MemberId};
use crate::output::Event;
use crate::record::{Record, RumorId, Tree};
use crate::roster::Roster;
use crate::rumors::HOP_ASKED;
use crate::store::Store;
use crate::sync;
use crate::time::Now;
use crate::transfer::{self, Source};
use crate::wire::{Message, Page};

/// What streams are served from.
struct Served<'a> {
    now: Now,
    store: &'a Store,
    roster: &'a Roster,
    join: &'a mut join::Join,
    detector: &'a detector::Detector,
}

impl Source for Served<'_> {
    fn record(&mut self, id: RumorId) -> Option<(u8, Record)> {
        let record = self
            .store
            .find(id)
            .map(Record::Entry)
            .or_else(|| self.roster.find_rumor(id).map(carried).map(Record::Member))?;
        Some((HOP_ASKED, record))
    }

    fn page(&mut self, tree: Tree, from: u64, bytes_max: usize) -> Page {
        match tree {
            Tree::Members => {
                let claim_of = |id: MemberId| self.detector.claim_of(id);
                self.join.members_page(self.now, from, bytes_max, self.roster, &claim_of)
            }
            // Who joins has no list of entries yet (`J1`).
            Tree::Entries if self.join.is_joining() => {
                Page { tree, from, next: from, last: false, records: Vec::new(), claims: Vec::new() }
            }
            Tree::Entries => {
                let page = self.store.page(from, bytes_max);
                let records = page.entries.into_iter().map(Record::Entry).collect();
                Page { tree, from, next: page.next, last: page.last, records, claims: Vec::new() }
            }
        }
    }
}

impl Gossip {
    /// Drains the actions of all parts.
    pub(super) fn run_actions(&mut self, now: Now) {
        loop {
            if let Some(action) = self.detector.poll_action() {
                self.run_detector(now, action);
            } else if let Some(action) = self.join.poll_action() {
                self.run_join(now, action);
            } else if let Some(action) = self.sync.poll_action() {
                self.run_sync(now, action);
            } else if let Some(action) = self.talk.poll_action() {
                self.run_talk(now, action);
            } else if let Some(action) = self.confirm.poll_action() {
                self.run_confirm(action);
            } else if let Some(action) = self.poll_transfer(now) {
                self.run_transfer(now, action);
            } else {
                return;
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn run_detector(&mut self, now: Now, action: detector::Action) {
        use detector::Action;
        match action {
            Action::Send { to, message } => self.post(to, message, Class::Detector),
            Action::Beat { to, seq, once, deaf } => self.beat(now, to, seq, once, deaf),
            Action::Accuse { id, phi } => self.accuse(now, id, phi),
            Action::Remind { id } => {
                if let Some(claim) = self.detector.claim_of(id) {
                    self.rumors.put_claim(now, claim, &mut self.rng);
                }
            }
            Action::Declare { id } => {
                let hot = !self.config.detector.lacks(DetectorRule::DeathRumor);
                self.declare(now, id, Liveness::Dead, hot);
            }
            Action::DeclareAlone { id } => self.declare(now, id, Liveness::Dead, false),
            Action::UndoAlone { id } => self.declare(now, id, Liveness::Alive, false),
            Action::ContactDue => {
                if self.join.contact_seed(now, &self.roster, &mut self.rng).is_none()
                    && let Some(id) = self.detector.contact_target(&self.roster, &mut self.rng)
                {
                    self.detector.contact(now, id);
                }
            }
        }
    }

    pub(super) fn run_join(&mut self, now: Now, action: join::Action) {
        use join::Action;
        let begins = matches!(
            action,
            Action::StartDetector | Action::ContactPartners | Action::Renew { .. } | Action::Admit { .. }
        );
        // Who leaves begins nothing any more.
        if begins && self.leave != Leave::No {
            return;
        }
        match action {
            Action::SendTo { to, message } => self.post_to(to, message, Class::Detector),
            Action::PullStream { tree, to, address, cursor } => {
                self.transfer.pull(now, tree, address, cursor, &self.roster);
                if tree == Tree::Entries {
                    if cursor == 0 {
                        let until = self.absence.old_until(now);
                        let old = self.absence.goes_back(now) || self.store.holds_until(until);
                        self.absence.handle_pull(now, to, old, &self.roster);
                    } else {
                        self.absence.handle_source(to);
                    }
                    self.ask_heard(now, to);
                }
            }
            Action::StartDetector => self.detector.start(now, &self.roster, &mut self.rng),
            Action::ContactPartners => {
                let partners: Vec<MemberId> = self.detector.partners().collect();
                for id in partners {
                    self.detector.contact(now, id);
                }
            }
            Action::Admit { member, spread } => self.admit(now, &member, spread),
            Action::Renew { generation } => {
                let id = MemberId(self.rng.u64().max(1));
                let old = self.roster.my_id();
                self.detector.stop();
                self.transfer.renew(now, &self.roster);
                self.roster.renew_me(now.mono, generation, id);
                self.talk.renew();
                self.rumors.drop_claim(old);
            }
            Action::Conflict { other } => {
                self.tell(Event::NameConflict { other });
                self.conflicted = true;
            }
            Action::SeedFailed { seed, error } => self.tell(Event::SeedFailed { seed, error }),
            Action::PullDone { .. } => {}
            Action::Joined => {
                self.joined_at = Some(now.mono);
                self.end_rejoin();
            }
            Action::Founded => self.end_rejoin(),
            Action::Ended { joined } => self.tell(Event::JoinEnded { joined }),
        }
    }

    fn run_sync(&mut self, now: Now, action: sync::Action) {
        match action {
            sync::Action::Send { to, messages, class } => self.post_together(now, to, messages, class),
            sync::Action::ConfirmBeat { to } => self.detector.confirm(now, to),
            sync::Action::SessionEnded { tree, peer, settled, complete, .. } => {
                if tree == Tree::Entries && complete {
                    self.note_match(now, peer, settled);
                }
            }
        }
    }

    fn poll_transfer(&mut self, now: Now) -> Option<transfer::Action> {
        let mut served = Served {
            now,
            store: &self.store,
            roster: &self.roster,
            join: &mut self.join,
            detector: &self.detector,
        };
        self.transfer.poll_action(now, &mut self.budget, &mut served)
    }

    fn run_transfer(&mut self, now: Now, action: transfer::Action) {
        use transfer::Action;
        match action {
            Action::Open { stream, to } => self.ready.push_back(Ready::Open(stream, to)),
            Action::SendFrame { stream, message } => self.send_frame(now, stream, &message),
            Action::Close { stream } => self.ready.push_back(Ready::Close(stream)),
            Action::PullFailed { tree, busy } => self.join.handle_pull_failed(now, tree, busy),
            Action::SendFailed { to, message: Message::Heard { .. } } => {
                self.absence.handle_send_failed(to);
            }
            Action::SendFailed { to, message } => self.talk.handle_send_failed(now, to, &message),
            Action::Began { id } => {
                for to in self.roster.pick_living(&mut self.rng, self.config.gossip.flush_peers) {
                    let message = Message::IHave { repair: false, large: true, ids: vec![id] };
                    self.post(to, message, Class::Entries);
                }
            }
            Action::GaveUp { .. } => {}
        }
    }
}
