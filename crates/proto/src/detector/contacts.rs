//! Requests under way and their answers, contacts (`D2`, `D11`, `D15`, `J4`).

use std::collections::VecDeque;
use std::time::Duration;

use super::{Action, Detector};
use crate::config::DetectorRule;
use crate::member::MemberId;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::time::{Mono, Now};

/// Marks sequence numbers of requests; those of edges lack it, so that an ACK says which of the two its BEAT was.
pub(super) const REQUEST_BIT: u32 = 1 << 31;
/// Requests are remembered this long, for late answers.
const KEPT: Duration = Duration::from_secs(10);
/// Most requests remembered: 1,024 probes of five rounds with three relays, and some; the oldest goes.
const REQUESTS_MAX: usize = 32_768;
/// Most contacts that wait for their time, and that wait for their ACK; the oldest is dropped (section 7).
pub(super) const CONTACTS_MAX: usize = 64;
/// Contacts after a death, most of them pending, and the time they are spread over (`D11`).
pub(super) const SWEEP: usize = 4;
const SWEEP_WITHIN: Duration = Duration::from_millis(500);
/// After a revival the claims of a whole side are through by the first; who is still dead then is knocked at by the second.
const KNOCK_AFTER: Duration = Duration::from_millis(500);
const KNOCK_WITHIN: Duration = Duration::from_millis(500);

/// What a request was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// BEAT with `once`.
    Once,
    /// PING of a probe, or of the last questions (`D10`).
    Ping,
    /// PING_VIA for this subject.
    Via(MemberId),
}

#[derive(Clone, Copy, Debug)]
struct Request {
    to: MemberId,
    at: Mono,
    ask: Ask,
    answered: bool,
}

/// Requests of the last seconds, by sequence number; numbers are consecutive.
#[derive(Debug)]
pub(super) struct Requests {
    first: u32,
    list: VecDeque<Request>,
}

impl Requests {
    pub(super) fn new(rng: &mut Rng) -> Requests {
        Requests { first: rng.u32() & !REQUEST_BIT, list: VecDeque::new() }
    }

    /// Remembers a request and gives it its number.
    pub(super) fn push(&mut self, now: Mono, to: MemberId, ask: Ask) -> u32 {
        while self.list.len() >= REQUESTS_MAX || self.list.front().is_some_and(|r| r.at + KEPT < now) {
            self.list.pop_front();
            self.first = self.first.wrapping_add(1) & !REQUEST_BIT;
        }
        let seq = self.first.wrapping_add(self.list.len() as u32) | REQUEST_BIT;
        self.list.push_back(Request { to, at: now, ask, answered: false });
        seq
    }

    fn find(&mut self, seq: u32, from: MemberId) -> Option<&mut Request> {
        let place = seq.wrapping_sub(self.first) & !REQUEST_BIT;
        self.list.get_mut(place as usize).filter(|r| seq & REQUEST_BIT != 0 && r.to == from && !r.answered)
    }

    /// What this member was asked under this number, and when; each is answered once.
    pub(super) fn answer(&mut self, seq: u32, from: MemberId, to_beat: bool) -> Option<(Ask, Mono)> {
        let request = self.find(seq, from).filter(|r| (r.ask == Ask::Once) == to_beat)?;
        request.answered = true;
        Some((request.ask, request.at))
    }

    /// The subject for which this member was asked to relay under this number, and when; changes nothing.
    pub(super) fn relay(&mut self, seq: u32, from: MemberId) -> Option<(MemberId, Mono)> {
        match self.find(seq, from) {
            Some(Request { ask: Ask::Via(subject), at, .. }) => Some((*subject, *at)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Scheduled {
    at: Mono,
    /// None: a random living member, chosen when due.
    id: Option<MemberId>,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    due: Mono,
    id: MemberId,
    confirm: bool,
}

/// Contacts to come, and contacts whose ACK is due.
#[derive(Debug)]
pub(super) struct Contacts {
    scheduled: Vec<Scheduled>,
    awaited: Vec<Awaited>,
    /// End of the contact period; FAR before `start`.
    period_ends: Mono,
    /// Not before this another contact because nothing is heard (`D15`).
    silence_next: Mono,
    /// When a dead member is knocked at because another came back; FAR: none did.
    knock_at: Mono,
    /// Sum of the shares of contacts that are due to the dead; one is knocked at whenever it reaches 1.
    knock_share: f64,
}

impl Contacts {
    pub(super) fn new() -> Contacts {
        Contacts {
            scheduled: Vec::new(),
            awaited: Vec::new(),
            period_ends: Mono::FAR,
            silence_next: Mono::FAR,
            knock_at: Mono::FAR,
            knock_share: 0.0,
        }
    }

    /// Begins the contact period at a random phase.
    pub(super) fn start(&mut self, now: Mono, period: Duration, silence_max: Duration, rng: &mut Rng) {
        self.period_ends = now + rng.up_to(period);
        self.silence_next = now + silence_max;
        // So that members that buried the same side at once do not all knock in the same period.
        self.knock_share = rng.unit();
    }

    pub(super) fn stop(&mut self) {
        *self = Contacts::new();
    }

    pub(super) fn schedule(&mut self, at: Mono, id: Option<MemberId>) {
        if self.scheduled.len() >= CONTACTS_MAX {
            self.scheduled.remove(0);
        }
        self.scheduled.push(Scheduled { at, id });
    }

    fn sweeps(&self) -> usize {
        self.scheduled.iter().filter(|s| s.id.is_none()).count()
    }

    fn wait_for(&mut self, due: Mono, id: MemberId, confirm: bool) {
        if self.awaited.iter().filter(|a| a.confirm == confirm).count() >= CONTACTS_MAX
            && let Some(oldest) = self.awaited.iter().position(|a| a.confirm == confirm)
        {
            self.awaited.remove(oldest);
        }
        self.awaited.push(Awaited { due, id, confirm });
    }

    /// Nothing is awaited from this member any more: it has acknowledged something, or is gone.
    pub(super) fn settle(&mut self, id: MemberId) {
        self.awaited.retain(|a| a.id != id);
    }

    pub(super) fn deadline(&self) -> Mono {
        let scheduled = self.scheduled.iter().map(|s| s.at);
        let awaited = self.awaited.iter().map(|a| a.due);
        scheduled.chain(awaited).chain([self.period_ends, self.knock_at]).min().unwrap_or(Mono::FAR)
    }
}

impl Detector {
    /// Queues a BEAT with `once`; its ACK is due within the probe time (`D2`).
    pub(super) fn send_once(&mut self, now: Mono, id: MemberId, confirm: bool) {
        let seq = self.requests.push(now, id, Ask::Once);
        let deaf = self.is_deaf(now);
        self.actions.push_back(Action::Beat { to: id, seq, once: true, deaf });
        let due = now + self.probe_time(id);
        self.contacts.wait_for(due, id, confirm);
        self.metrics.contacts += u64::from(!confirm);
    }

    /// Contacts after a death: up to four pending within 500 ms (`D11`).
    pub(super) fn sweep(&mut self, now: Mono, rng: &mut Rng) {
        let sweep = if self.config.lacks(DetectorRule::Sweep) { 0 } else { SWEEP };
        for _ in self.contacts.sweeps()..sweep {
            self.contacts.schedule(now + rng.up_to(SWEEP_WITHIN), None);
        }
    }

    /// A member held dead came back: so may others have, whom nobody of its side has met (`J4`).
    pub fn handle_revival(&mut self, now: Now, rng: &mut Rng) {
        if self.running && self.contacts.knock_at == Mono::FAR {
            self.contacts.knock_at = now.mono + KNOCK_AFTER + rng.up_to(KNOCK_WITHIN);
        }
    }

    /// Silence after which I contact somebody (`D15`): 2 h.
    fn silence_max(&self) -> Duration {
        self.config.beat_period * 2
    }

    /// Nothing received for twice (h + P) (`D15`).
    pub(super) fn is_deaf(&self, now: Mono) -> bool {
        let p = self.round_of(None) * self.config.probe_rounds;
        now - self.heard_at > (self.config.beat_period + p) * 2 && !self.config.lacks(DetectorRule::DeafFlag)
    }

    pub(super) fn start_contacts(&mut self, now: Mono, rng: &mut Rng) {
        let (period, silence_max) = (self.config.contact_period, self.silence_max());
        self.contacts.start(now, period, silence_max, rng);
    }

    /// When silence from everybody leads to a contact.
    fn silence_due(&self) -> Mono {
        if !self.running {
            return Mono::FAR;
        }
        (self.heard_at + self.silence_max()).max(self.contacts.silence_next)
    }

    pub(super) fn contacts_deadline(&self) -> Mono {
        self.contacts.deadline().min(self.silence_due())
    }

    /// Contacts that are due, ACKs that did not come, the end of the contact period.
    pub(super) fn run_contacts(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        let now = now.mono;
        let mut due = Vec::new();
        self.contacts.scheduled.retain(|s| {
            let wait = s.at > now;
            if !wait {
                due.push(s.id);
            }
            wait
        });
        for id in due {
            if let Some(id) = id.or_else(|| self.random_member(roster, rng)) {
                self.send_once(now, id, false);
            }
        }
        let mut late = Vec::new();
        self.contacts.awaited.retain(|a| {
            let wait = a.due > now;
            if !wait {
                late.push(a.id);
            }
            wait
        });
        for id in late {
            self.probe_living(now, id, roster);
        }
        if now >= self.contacts.period_ends {
            self.contacts.period_ends = now + rng.jitter(self.config.contact_period, 0.1);
            self.actions.push_back(Action::ContactDue);
        }
        if now >= self.contacts.knock_at {
            self.contacts.knock_at = Mono::FAR;
            if let Some(id) = roster.pick_dead(rng) {
                self.send_once(now, id, false);
            }
        }
        if now >= self.silence_due() {
            self.contacts.silence_next = now + self.silence_max();
            if let Some(id) = self.random_member(roster, rng) {
                self.send_once(now, id, false);
            }
        }
    }

    /// A random alive member, or a suspect one if there is no other.
    fn random_member(&self, roster: &Roster, rng: &mut Rng) -> Option<MemberId> {
        let alive = roster.pick_alive(rng, 1, &[]).pop();
        alive.or_else(|| roster.pick_living(rng, 1).pop())
    }

    /// Whom to contact when a contact is due and no seed is knocked at (`J4`): a random dead member in this share of the
    /// contacts: min(1/2, dead/(dead + living)), all if nobody else lives; else a random living one. None while every pair is
    /// an edge and nobody is dead (section 4). A share, not a chance: with few members a heal would wait for luck.
    pub fn contact_target(&mut self, roster: &Roster, rng: &mut Rng) -> Option<MemberId> {
        let (dead, living) = (roster.dead(), roster.living());
        if dead == 0 && living <= self.config.observe_all_up_to {
            return None;
        }
        self.contacts.knock_share += (dead as f64 / (dead + living) as f64).min(0.5);
        if living < 2 || self.contacts.knock_share >= 1.0 {
            self.contacts.knock_share %= 1.0;
            return roster.pick_dead(rng);
        }
        roster.pick_living(rng, 1).pop()
    }
}
