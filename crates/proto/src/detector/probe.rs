//! Probes: rounds of PINGs, direct and relayed, and the verdict (`D5`, `D6`, `D14`).

use std::collections::VecDeque;
use std::time::Duration;

use super::contacts::Ask;
use super::{Action, Detector};
use crate::config::DetectorRule;
use crate::member::{Claim, Incarnation, MemberId};
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::{Set, Table};
use crate::time::Mono;
use crate::wire::Message;

/// Most probes under way, and most that wait for their turn: in order, the oldest is dropped (section 7).
pub(super) const PROBES_MAX: usize = 1_024;
/// Shortest probe round (section 4).
const ROUND_MIN: Duration = Duration::from_millis(100);
/// Pause after the first isolated verdict; the n-th waits n times this, up to eight (`D6` b).
const ISOLATED_PAUSE: Duration = Duration::from_secs(1);
const ISOLATED_TRIES_MAX: u32 = 7;
/// Repetitions when others answered and no relay did (`D6` c).
const LONELY_TRIES_MAX: u32 = 3;

/// One probe (`D5`).
#[derive(Debug)]
struct Probe {
    incarnation: Incarnation,
    /// The dead claim that PINGs carry (`D12`).
    report: Option<Box<Claim>>,
    first_began: Mono,
    /// Of this attempt.
    began: Mono,
    /// Answers I had received when this attempt began.
    answers: u64,
    /// Rounds sent in this attempt.
    round: u32,
    length: Duration,
    receipt: bool,
    /// Relays asked in this attempt.
    relays: Vec<MemberId>,
    isolated_tries: u32,
    lonely_tries: u32,
    due: Mono,
}

#[derive(Debug)]
struct Waiting {
    id: MemberId,
    incarnation: Incarnation,
    report: Option<Box<Claim>>,
}

/// Probes under way, by subject.
#[derive(Debug, Default)]
pub(super) struct Probes {
    running: Table<MemberId, Probe>,
    timers: Set<(Mono, MemberId)>,
    waiting: VecDeque<Waiting>,
}

impl Probes {
    pub(super) fn contains(&self, id: MemberId) -> bool {
        self.running.contains_key(&id) || self.waiting.iter().any(|w| w.id == id)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Incarnation at which this member is probed.
    pub(super) fn incarnation(&self, id: MemberId) -> Option<Incarnation> {
        let running = self.running.get(&id).map(|p| p.incarnation);
        running.or_else(|| self.waiting.iter().find(|w| w.id == id).map(|w| w.incarnation))
    }

    /// A relay has the PING_VIA sent at `at`; counts for the attempt it belongs to.
    pub(super) fn receipt(&mut self, subject: MemberId, at: Mono) {
        if let Some(probe) = self.running.get_mut(&subject).filter(|p| p.began <= at) {
            probe.receipt = true;
        }
    }

    pub(super) fn deadline(&self) -> Mono {
        self.timers.first().map_or(Mono::FAR, |&(at, _)| at)
    }

    fn set_due(&mut self, id: MemberId, due: Mono) {
        if let Some(probe) = self.running.get_mut(&id) {
            self.timers.remove(&(probe.due, id));
            probe.due = due;
            self.timers.insert((due, id));
        }
    }
}

impl Detector {
    /// Length r of a probe round for this subject (section 4): from its own round trip, else from the largest smoothed one of
    /// any edge, else `rtt_initial`.
    pub(super) fn round_of(&self, id: Option<MemberId>) -> Duration {
        let max = self.config.probe_round_max;
        let own = id.and_then(|id| self.edges.rtt_of(id));
        let rtt = own.or_else(|| self.edges.rtt_largest());
        rtt.map_or(self.rtt_initial, |r| r.round()).clamp(ROUND_MIN.min(max), max)
    }

    /// Probe time P of this subject: as long as all rounds.
    pub(super) fn probe_time(&self, id: MemberId) -> Duration {
        self.round_of(Some(id)) * self.config.probe_rounds
    }

    /// Probed, or waiting for it, or suspected: silence starts no probe.
    pub(super) fn is_under_doubt(&self, id: MemberId) -> bool {
        self.suspicions.contains(id) || self.probes.contains(id)
    }

    /// Probes a member if it lives.
    pub(super) fn probe_living(&mut self, now: Mono, id: MemberId, roster: &Roster) {
        if let Some((incarnation, liveness)) = roster.live(id)
            && liveness.is_living()
            && id != roster.my_id()
        {
            self.start_probe(now, id, incarnation, None);
        }
    }

    /// Starts the probe of a living member, unless one runs; that takes over the report.
    pub(super) fn start_probe(
        &mut self,
        now: Mono,
        id: MemberId,
        incarnation: Incarnation,
        report: Option<Box<Claim>>,
    ) {
        if let Some(probe) = self.probes.running.get_mut(&id) {
            if report.is_some() {
                probe.incarnation = probe.incarnation.max(incarnation);
                probe.report = report;
            }
            return;
        }
        if let Some(waiting) = self.probes.waiting.iter_mut().find(|w| w.id == id) {
            if report.is_some() {
                waiting.incarnation = waiting.incarnation.max(incarnation);
                waiting.report = report;
            }
            return;
        }
        if self.probes.running.len() >= PROBES_MAX {
            if self.probes.waiting.len() >= PROBES_MAX {
                self.probes.waiting.pop_front();
            }
            self.probes.waiting.push_back(Waiting { id, incarnation, report });
            return;
        }
        self.metrics.probes += 1;
        self.edges.probe_began(id);
        let probe = Probe {
            incarnation,
            report,
            first_began: now,
            began: now,
            answers: self.answers,
            round: 0,
            length: Duration::ZERO,
            receipt: false,
            relays: Vec::new(),
            isolated_tries: 0,
            lonely_tries: 0,
            due: now,
        };
        self.probes.running.insert(id, probe);
        self.begin_attempt(now, id);
    }

    /// Ends a probe; true if one ran.
    pub(super) fn end_probe(&mut self, now: Mono, id: MemberId) -> bool {
        let Some(probe) = self.probes.running.remove(&id) else {
            self.probes.waiting.retain(|w| w.id != id);
            return false;
        };
        self.probes.timers.remove(&(probe.due, id));
        self.edges.probe_ended(now, id);
        if let Some(next) = self.probes.waiting.pop_front() {
            self.start_probe(now, next.id, next.incarnation, next.report);
        }
        true
    }

    /// Round 0: a PING alone.
    fn begin_attempt(&mut self, now: Mono, id: MemberId) {
        let length = self.round_of(Some(id));
        let answers = self.answers;
        let Some(probe) = self.probes.running.get_mut(&id) else { return };
        probe.began = now;
        probe.answers = answers;
        probe.round = 1;
        probe.length = length * (1 + probe.lonely_tries);
        probe.receipt = false;
        probe.relays.clear();
        let due = now + probe.length;
        self.probes.set_due(id, due);
        self.ping(now, id);
    }

    /// A PING, with the report or accusation that the subject shall refute.
    fn ping(&mut self, now: Mono, id: MemberId) {
        let report = self.probes.running.get(&id).and_then(|p| p.report.as_deref().cloned());
        if let Some(claim) = report.or_else(|| self.claim_of(id)) {
            self.send(id, Message::Claims(vec![claim]));
        }
        let seq = self.requests.push(now, id, Ask::Ping);
        self.send(id, Message::Ping { seq, origin: None });
    }

    /// Rounds that are due, and verdicts after the last.
    pub(super) fn run_probes(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        while let Some(&(at, id)) = self.probes.timers.first() {
            if at > now {
                break;
            }
            let Some(probe) = self.probes.running.get(&id) else {
                self.probes.timers.remove(&(at, id));
                continue;
            };
            if probe.round == 0 {
                self.begin_attempt(now, id);
            } else if probe.round < self.config.probe_rounds {
                self.next_round(now, id, roster, rng);
            } else {
                self.verdict(now, id, roster);
            }
        }
    }

    /// Rounds 1 and up: a PING, and PING_VIA through fresh relays.
    fn next_round(&mut self, now: Mono, id: MemberId, roster: &Roster, rng: &mut Rng) {
        let Some(probe) = self.probes.running.get_mut(&id) else { return };
        probe.round += 1;
        let due = now + probe.length;
        let mut relays = roster.pick(rng, self.config.relays, |relay| {
            relay != id && roster.is_alive(relay) && !probe.relays.contains(&relay)
        });
        // In a small cluster there are soon no fresh ones: then some are asked again.
        let except: Vec<MemberId> = relays.iter().copied().chain([id]).collect();
        relays.extend(roster.pick_alive(rng, self.config.relays - relays.len(), &except));
        probe.relays.extend(&relays);
        self.probes.set_due(id, due);
        self.ping(now, id);
        for relay in relays {
            let seq = self.requests.push(now, relay, Ask::Via(id));
            self.send(relay, Message::PingVia { seq, target: id });
        }
    }

    /// `D6`, after the last round.
    fn verdict(&mut self, now: Mono, id: MemberId, roster: &Roster) {
        let answers = self.answers;
        let Some(probe) = self.probes.running.get_mut(&id) else { return };
        // (a)
        let live = roster.live(id).filter(|(_, liveness)| liveness.is_living());
        let Some((incarnation, _)) = live.filter(|(known, _)| *known <= probe.incarnation) else {
            self.end_probe(now, id);
            return;
        };
        let unseen = !probe.relays.is_empty() && !probe.receipt && !self.config.lacks(DetectorRule::Receipts);
        if unseen && answers == probe.answers {
            // (b)
            self.metrics.isolated += 1;
            if now - self.answered_at.max(probe.first_began) >= self.config.alone_after {
                self.declare_alone(now, id);
                return;
            }
            let due = now + ISOLATED_PAUSE * (1 + probe.isolated_tries);
            probe.isolated_tries = (probe.isolated_tries + 1).min(ISOLATED_TRIES_MAX);
            probe.round = 0;
            self.probes.set_due(id, due);
        } else if unseen && probe.lonely_tries < LONELY_TRIES_MAX {
            // (c)
            probe.lonely_tries += 1;
            self.begin_attempt(now, id);
        } else {
            // (d)
            self.end_probe(now, id);
            if self.suspicions.accused_by(id, incarnation, roster.my_id()) {
                return;
            }
            let phi = self.edges.phi(now, id, &self.config).unwrap_or(0.0);
            self.metrics.accusations += 1;
            self.actions.push_back(Action::Accuse { id, phi });
        }
    }

    /// `D14`.
    pub(super) fn declare_alone(&mut self, now: Mono, id: MemberId) {
        self.end_probe(now, id);
        self.suspicions.remove(id);
        self.contacts.settle(id);
        self.alone.insert(id);
        self.metrics.deaths += 1;
        self.actions.push_back(Action::DeclareAlone { id });
    }
}
