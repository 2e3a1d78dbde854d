//! Name conflicts (`J2`): before anybody loses a name, its present owner is asked whether it lives.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Action, HOP_REFUSED, Join, Phase};
use crate::member::{Generation, Liveness, Member, MemberId};
use crate::rng::Rng;
use crate::roster::Roster;
use crate::time::{Mono, Now};
use crate::wire::Message;

/// Newcomers whose name is being asked about at once; more ask again.
const ADMISSIONS_MAX: usize = 64;
/// Questions to the owner of a name.
pub(super) const QUESTIONS: u32 = 4;

/// Questions to one member on their way.
struct Probe {
    id: MemberId,
    left: u32,
    next: Mono,
}

/// A record of my own name that wins over mine.
pub(super) struct OwnName {
    record: Member,
    probe: Probe,
}

/// A newcomer whose name lives elsewhere.
pub(super) struct Admission {
    newcomer: Member,
    spread: bool,
    owner: Member,
    seq: u32,
    probe: Probe,
}

/// State of this file.
pub(super) struct Names {
    gap: Duration,
    own: Option<OwnName>,
    admissions: Vec<Admission>,
}

impl Names {
    /// `gap` between two questions.
    pub(super) fn new(gap: Duration) -> Names {
        Names { gap, own: None, admissions: Vec::new() }
    }

    pub(super) fn deadline(&self) -> Mono {
        let own = self.own.iter().map(|o| o.probe.next);
        own.chain(self.admissions.iter().map(|a| a.probe.next)).min().unwrap_or(Mono::FAR)
    }
}

/// The RECORD that tells a newcomer who owns its name; a dead owner never travels as dead.
pub(super) fn refusal(owner: &Member) -> Message {
    let mut owner = owner.clone();
    if owner.liveness == Liveness::Dead {
        owner.liveness = Liveness::Suspect;
    }
    Message::member(HOP_REFUSED, owner)
}

impl Join {
    /// Asks the owner of `newcomer`'s name; [`Action::Admit`] or a refusal follows.
    pub(super) fn probe_owner(
        &mut self,
        now: Mono,
        newcomer: &Member,
        spread: bool,
        owner: Member,
        rng: &mut Rng,
    ) {
        let known = self.names.admissions.iter().any(|a| a.newcomer.id() == newcomer.id());
        if known || self.names.admissions.len() >= ADMISSIONS_MAX {
            return;
        }
        let probe = Probe { id: owner.id(), left: QUESTIONS, next: now };
        let newcomer = newcomer.clone();
        self.names.admissions.push(Admission { newcomer, spread, owner, seq: rng.u32(), probe });
        self.ask_owners(now);
    }

    fn ask_owners(&mut self, now: Mono) {
        let gap = self.names.gap;
        let mut silent = Vec::new();
        self.names.admissions.retain_mut(|a| {
            if a.probe.next > now {
                return true;
            }
            if a.probe.left == 0 {
                silent.push(Action::Admit { member: a.newcomer.clone(), spread: a.spread });
                return false;
            }
            a.probe.left -= 1;
            a.probe.next = now + gap;
            let message = Message::Ping { seq: a.seq, origin: None };
            self.actions.push_back(Action::SendTo { to: a.owner.address(), message });
            true
        });
        self.actions.extend(silent);
    }

    fn ask_winner(&mut self, now: Now, roster: &Roster) {
        let gap = self.names.gap;
        let Some(own) = self.names.own.as_mut().filter(|o| o.probe.next <= now.mono) else { return };
        if own.probe.left == 0 {
            let generation = own.record.profile.generation;
            self.renew(now.mono, generation);
            return;
        }
        own.probe.left -= 1;
        own.probe.next = now.mono + gap;
        let to = own.record.address();
        let message = Message::Hello { cookie: 0, spread: false, member: roster.me() };
        self.metrics.hellos_sent += 1;
        self.actions.push_back(Action::SendTo { to, message });
    }

    pub(super) fn handle_names_timeout(&mut self, now: Now, roster: &Roster) {
        self.ask_owners(now.mono);
        self.ask_winner(now, roster);
    }

    /// Takes a generation above `beaten` and joins again.
    fn renew(&mut self, now: Mono, beaten: Generation) {
        let generation = Generation(beaten.0.saturating_add(1).min(Generation::MAX.0));
        self.names.own = None;
        self.metrics.renewals += 1;
        self.actions.push_back(Action::Renew { generation });
        self.pending.clear();
        self.pull = None;
        self.contacts = [Mono::FAR; 2];
        self.begin_hello(now);
    }

    fn stop(&mut self, other: Member) {
        self.metrics.conflicts += 1;
        self.phase = Phase::Stopped;
        self.names.own = None;
        self.names.admissions.clear();
        self.pending.clear();
        self.pull = None;
        self.contacts = [Mono::FAR; 2];
        self.actions.push_back(Action::Conflict { other });
        self.finish(false);
    }

    /// Something authentic came from this id, known or not: ends name probes of it (`J2`).
    pub fn handle_heard(&mut self, now: Now, from: MemberId) {
        let _ = now;
        if self.names.own.as_ref().is_some_and(|o| o.probe.id == from)
            && let Some(own) = self.names.own.take()
        {
            self.stop(own.record);
            return;
        }
        if self.names.admissions.iter().all(|a| a.probe.id != from) {
            return;
        }
        let (mine, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.names.admissions).into_iter().partition(|a| a.probe.id == from);
        self.names.admissions = others;
        for a in mine {
            let message = refusal(&a.owner);
            self.actions.push_back(Action::SendTo { to: a.newcomer.address(), message });
        }
    }

    /// A RECORD with hop [`HOP_REFUSED`] of my own name under another id: if I asked there to
    /// be let in, the name is taken; if that record wins over mine, its owner is asked whether it lives.
    pub fn handle_refusal(&mut self, now: Now, from: SocketAddr, record: &Member, roster: &Roster) {
        let me = roster.me();
        let asked = self.pending.get(&from).is_some_and(|p| now.mono.since(p.at) < super::PENDING_FOR);
        let mine = record.name() == me.name() && record.id() != me.id();
        let older = (record.profile.generation, record.id()) < (me.profile.generation, me.id());
        if self.phase == Phase::Stopped || !asked || !mine {
            return;
        }
        if older {
            self.stop(record.clone());
        } else {
            self.handle_my_name(now, record, roster);
        }
    }

    /// A record of my own name wins over mine (`Merged::MyName`): probe its address (`J2`).
    pub fn handle_my_name(&mut self, now: Now, record: &Member, roster: &Roster) {
        if self.phase == Phase::Stopped || record.id() == roster.my_id() {
            return;
        }
        let gone = matches!(record.liveness, Liveness::Dead | Liveness::Left);
        if gone || record.address() == roster.me().address() {
            self.renew(now.mono, record.profile.generation);
            return;
        }
        let run = |m: &Member| (m.profile.generation, m.id());
        if self.names.own.as_ref().is_some_and(|o| run(&o.record) >= run(record)) {
            return;
        }
        let probe = Probe { id: record.id(), left: QUESTIONS, next: now.mono };
        self.names.own = Some(OwnName { record: record.clone(), probe });
        self.ask_winner(now, roster);
    }
}
