//! The failure detector: rules `D1`-`D15` but `D13`, which is the hall's.
//!
//! Members exchange BEATs along few chosen edges and keep an arrival window per edge; silence starts a probe, a probe that
//! finds witnesses but no answer starts a suspicion, and a suspicion that nobody refutes within its patience is a death.
//! This part sends nothing: it queues [`Action`]s. Its tables hold edges, probes and suspicions, never all members, so a
//! timeout costs what is due and nothing grows with the size of the cluster but mass events.

mod contacts;
mod edges;
mod probe;
mod rtt;
mod suspicion;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::config;
use crate::member::{Claim, Liveness, MemberId};
use crate::metrics::DetectorMetrics;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::Set;
use crate::time::{Mono, Now};
use crate::wire::{AckFlags, Beat, Message};

/// Most records kept of members that beat me; further choosers get ACKs and no record (section 7).
pub const WATCHED_MAX: usize = 64;
/// Most members [`Detector::observe`] takes (section 7).
pub const OBSERVED_MAX: usize = 64;

/// What the detector wants done, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send this message; never held back by the budget. Messages to one member that follow each other belong into one
    /// datagram: a PING to a suspect carries the claim queued before it (`D5`).
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// Send a BEAT; the hall fills clock, settle time and roots (`D2`).
    Beat {
        /// To whom.
        to: MemberId,
        /// Sequence number.
        seq: u32,
        /// A contact or confirmation, not a beat of an edge.
        once: bool,
        /// I have heard nothing for long (`D15`).
        deaf: bool,
    },
    /// `D7`: build the suspect claim at the incarnation known with me as accuser, pass it to
    /// [`Detector::handle_suspicion`], make it hot, send it to the accused.
    Accuse {
        /// The accused.
        id: MemberId,
        /// My phi of it, 0 without an edge.
        phi: f64,
    },
    /// `D9`: make [`Detector::claim_of`] hot again.
    Remind {
        /// The accused.
        id: MemberId,
    },
    /// `D11`: it is dead; set that, make the dead claim (me) hot, call [`Detector::handle_member`].
    Declare {
        /// The dead.
        id: MemberId,
    },
    /// `D14`: it is dead for me only; set that, tell nobody, call [`Detector::handle_member`].
    DeclareAlone {
        /// The dead.
        id: MemberId,
    },
    /// `D14`: it is alive again at the incarnation known; set that, call [`Detector::handle_member`].
    UndoAlone {
        /// The one declared alone before.
        id: MemberId,
    },
    /// `J4`: a contact period is over. Knock at a seed or call [`Detector::contact`] with [`Detector::contact_target`].
    ContactDue,
}

/// What an ACK answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckMatch {
    /// A BEAT of mine, for the first time: act on the comparison it carries (`S2`).
    Beat {
        /// The BEAT was a contact or confirmation.
        once: bool,
        /// When the BEAT was sent.
        at: Mono,
    },
    /// A PING of mine.
    Ping,
    /// It came through a relay for me, or I am the relay and have passed it on.
    Relay,
    /// Nothing I remember: late, twice, or never asked.
    None,
}

/// What [`Detector::handle_suspicion`] made of a suspect claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// A suspicion began (`D8`): make [`Detector::claim_of`] hot.
    New,
    /// A further accuser: make [`Detector::claim_of`] hot.
    MoreAccusers,
    /// Nothing new.
    Old,
}

/// What [`Detector::handle_death_report`] made of a dead claim about a living member (`D12`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeathNews {
    /// The running suspicion has all accusers now.
    CountsAsAll,
    /// It is probed with the claim attached; no suspicion, no rumor.
    Probing,
    /// Lower incarnation.
    Ignored,
}

/// [`OBSERVED_MAX`] members are observed already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

/// Failure detector of one member.
pub struct Detector {
    config: config::Detector,
    rtt_initial: Duration,
    running: bool,
    actions: VecDeque<Action>,
    edges: edges::Edges,
    requests: contacts::Requests,
    contacts: contacts::Contacts,
    probes: probe::Probes,
    suspicions: suspicion::Suspicions,
    /// Dead for me only (`D14`).
    alone: Set<MemberId>,
    rtt_max: rtt::RecentMax,
    /// Last datagram from anybody.
    heard_at: Mono,
    /// Last answer to a request of mine, and how many came.
    answered_at: Mono,
    answers: u64,
    metrics: DetectorMetrics,
}

impl Detector {
    /// A detector that keeps silent until [`Detector::start`]; it answers, probes and suspects from now on. `rtt_initial`
    /// is the length of a probe round before any round trip was measured.
    pub fn new(config: &config::Detector, rtt_initial: Duration, now: Now, rng: &mut Rng) -> Detector {
        Detector {
            config: *config,
            rtt_initial,
            running: false,
            actions: VecDeque::new(),
            edges: edges::Edges::new(rng),
            requests: contacts::Requests::new(rng),
            contacts: contacts::Contacts::new(),
            probes: probe::Probes::default(),
            suspicions: suspicion::Suspicions::default(),
            alone: Set::new(),
            rtt_max: rtt::RecentMax::default(),
            heard_at: now.mono,
            answered_at: now.mono,
            answers: 0,
            metrics: DetectorMetrics::default(),
        }
    }

    /// Chooses partners (`D1`), sends their first BEATs and begins the contact period. Called again after a new identity it
    /// begins anew.
    pub fn start(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        self.running = true;
        self.heard_at = self.heard_at.max(now.mono);
        self.start_edges(now.mono, roster, rng);
        self.start_contacts(now.mono, rng);
    }

    /// Ends beats and contacts until [`Detector::start`]: while joining again, and when left. Probes and suspicions run on.
    pub fn stop(&mut self) {
        self.running = false;
        self.stop_edges();
        self.contacts.stop();
    }

    /// Any authentic datagram of a known member: ends isolation (`D14`) and deafness (`D15`). Call it before the handlers of
    /// its messages.
    pub fn handle_heard(&mut self, now: Now, from: MemberId) {
        let _ = from;
        self.heard_at = now.mono;
        while let Some(id) = self.alone.pop_first() {
            self.actions.push_back(Action::UndoAlone { id });
        }
    }

    /// A BEAT. Returns whether a record of the sender is kept: `watched` of the ACK, which the hall sends.
    pub fn handle_beat(&mut self, now: Now, from: MemberId, beat: &Beat, roster: &Roster) -> bool {
        let watched = if beat.once {
            self.is_watched(from)
        } else {
            self.feed_watched(now.mono, from, beat.seq, roster)
        };
        if self.suspicions.contains(from) {
            return watched;
        }
        if !beat.deaf {
            self.end_probe(now.mono, from);
        } else if self.edges.has_record(from) {
            // D15: it may be that nothing reaches it.
            self.probe_living(now.mono, from, roster);
        }
        watched
    }

    /// An ACK; passes it on if I was the relay.
    pub fn handle_ack(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        flags: &AckFlags,
        origin: Option<MemberId>,
        roster: &Roster,
    ) -> AckMatch {
        let now = now.mono;
        if let Some(origin) = origin {
            if origin == roster.my_id() || roster.live(origin).is_none() {
                return AckMatch::None;
            }
            self.end_probe(now, from);
            self.send(origin, Message::Ack { seq, flags: *flags, origin: None });
            return AckMatch::Relay;
        }
        if flags.to_beat
            && seq & contacts::REQUEST_BIT == 0
            && let Some(at) = self.feed_edge(now, from, seq)
        {
            self.handle_answer(now, from, at);
            return AckMatch::Beat { once: false, at };
        }
        match self.requests.answer(seq, from, flags.to_beat) {
            Some((contacts::Ask::Once, at)) => {
                self.handle_answer(now, from, at);
                AckMatch::Beat { once: true, at }
            }
            Some((contacts::Ask::Ping, at)) => {
                self.handle_answer(now, from, at);
                self.heed_watched_flag(from, flags);
                AckMatch::Ping
            }
            Some((contacts::Ask::Via(subject), _)) => {
                self.count_answer(now);
                self.heed_watched_flag(subject, flags);
                if self.end_probe(now, subject) {
                    self.edges.relayed_answer(subject);
                }
                AckMatch::Relay
            }
            None => AckMatch::None,
        }
    }

    /// A direct answer to a request sent at `at`.
    fn handle_answer(&mut self, now: Mono, from: MemberId, at: Mono) {
        self.count_answer(now);
        self.rtt_max.add(now, now - at);
        self.edges.rtt_sample(from, now - at);
        self.edges.direct_answer(from);
        self.contacts.settle(from);
        self.end_probe(now, from);
    }

    fn count_answer(&mut self, now: Mono) {
        self.answers += 1;
        self.answered_at = now;
    }

    /// A member that does not beat me is not watched by me (`D3`).
    fn heed_watched_flag(&mut self, subject: MemberId, flags: &AckFlags) {
        if !flags.watched {
            self.edges.drop_watched(subject);
        }
    }

    fn send(&mut self, to: MemberId, message: Message) {
        self.actions.push_back(Action::Send { to, message });
    }

    /// A PING: queues the ACK. Its `watched` says whether I beat the asker: the asker keeps the record that my BEATs feed only
    /// while I do (`D3`).
    pub fn handle_ping(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        origin: Option<MemberId>,
        roster: &Roster,
    ) {
        let asker = origin.unwrap_or(from);
        if roster.live(from).is_none() || asker == roster.my_id() {
            return;
        }
        if roster.is_alive(from) {
            self.edges.probe_ended(now.mono, from);
        }
        let watched = self.edges.get(asker).is_some();
        let flags = AckFlags { watched, ..AckFlags::default() };
        self.send(from, Message::Ack { seq, flags, origin });
    }

    /// A PING_VIA: queues the RECEIPT and, if the target is known, the PING with origin.
    pub fn handle_ping_via(&mut self, now: Now, from: MemberId, seq: u32, target: MemberId, roster: &Roster) {
        let _ = now;
        if roster.live(from).is_none() {
            return;
        }
        self.send(from, Message::Receipt { seq });
        if target != roster.my_id() && target != from && roster.live(target).is_some() {
            self.send(target, Message::Ping { seq, origin: Some(from) });
        }
    }

    /// A RECEIPT: the relay has my PING_VIA.
    pub fn handle_receipt(&mut self, now: Now, from: MemberId, seq: u32) {
        if let Some((subject, at)) = self.requests.relay(seq, from) {
            self.count_answer(now.mono);
            self.probes.receipt(subject, at);
        }
    }

    /// A suspect claim, also my own of [`Action::Accuse`] (`D8`, `D9`). The hall has filtered: known, living, incarnation not
    /// below the known one, some accuser not held dead. Unless [`News::Old`], the hall then sets the roster and makes
    /// [`Detector::claim_of`] hot.
    pub fn handle_suspicion(&mut self, now: Now, claim: &Claim, roster: &Roster, rng: &mut Rng) -> News {
        self.hear_suspicion(now.mono, claim, roster, rng)
    }

    /// A dead claim about a living member (`D12`).
    pub fn handle_death_report(
        &mut self,
        now: Now,
        claim: &Claim,
        roster: &Roster,
        rng: &mut Rng,
    ) -> DeathNews {
        let _ = rng;
        self.hear_death(now.mono, claim, roster)
    }

    /// After any change of `id` in the roster: new, newer incarnation, refuted, dead, left, forgotten, retired, address.
    /// After a replacement call it for the retired id and for the new one.
    pub fn handle_member(&mut self, now: Now, id: MemberId, roster: &Roster, rng: &mut Rng) {
        let mono = now.mono;
        let live = roster.live(id);
        if let Some((incarnation, _)) = live.filter(|(_, liveness)| liveness.is_living()) {
            if self.suspicions.incarnation(id).is_some_and(|at| at < incarnation) {
                self.refuted(mono, id);
            }
            if self.probes.incarnation(id).is_some_and(|at| at < incarnation) {
                self.end_probe(mono, id);
            }
            self.alone.remove(&id);
        } else {
            self.suspicions.remove(id);
            self.end_probe(mono, id);
            self.edges.drop_watched(id);
            self.contacts.settle(id);
            if live.is_none_or(|(_, liveness)| liveness == Liveness::Left) {
                self.alone.remove(&id);
            }
            self.follow_observed(id, roster);
        }
        self.review_pair(mono, roster);
        self.choose_edges(mono, roster, rng);
    }

    /// WELCOME from a partner outside a join (`J3`): it has just learnt of me, so the first BEAT is sent again.
    pub fn handle_welcome(&mut self, now: Now, from: MemberId) {
        self.first_beat(now.mono, from);
    }

    /// Runs what is due. The host has drained its socket before.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        self.run_contacts(now, roster, rng);
        self.run_edges(now.mono, roster, rng);
        self.run_probes(now.mono, roster, rng);
        self.run_suspicions(now.mono, roster, rng);
    }

    /// When [`Detector::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        self.contacts_deadline()
            .min(self.edges_deadline())
            .min(self.probes.deadline())
            .min(self.suspicions.deadline())
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Queues a contact: a BEAT with `once`, which a living member must answer within the probe time (`D2`).
    pub fn contact(&mut self, now: Now, id: MemberId) {
        self.send_once(now.mono, id, false);
    }

    /// A contact at a later time (`J1`: 1.2 s and 2 s after joining). At most 64 wait; the oldest is dropped.
    pub fn contact_at(&mut self, at: Mono, id: MemberId) {
        self.contacts.schedule(at, Some(id));
    }

    /// As [`Detector::contact`], for `S2`; not counted as a contact.
    pub fn confirm(&mut self, now: Now, id: MemberId) {
        self.send_once(now.mono, id, true);
    }

    /// Adds a lasting edge to this member (`D1`); it follows the member's name to its next run.
    ///
    /// # Errors
    /// [`TooMany`] beyond [`OBSERVED_MAX`].
    pub fn observe(&mut self, now: Now, id: MemberId, roster: &Roster) -> Result<(), TooMany> {
        self.add_observed(now.mono, id, roster)
    }

    /// Ends a lasting edge.
    pub fn unobserve(&mut self, id: MemberId) {
        self.remove_observed(id);
    }

    /// Members I beat now.
    pub fn partners(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.edges.ids()
    }

    /// The running suspicion of this member as a claim.
    pub fn claim_of(&self, id: MemberId) -> Option<Claim> {
        self.suspicions.claim(id)
    }

    /// All running suspicions as claims, by id.
    pub fn suspicions(&self) -> Vec<Claim> {
        self.suspicions.claims().collect()
    }

    /// Phi as users see it: on an edge that of its window; else none while alive, the accusers' largest while suspect,
    /// infinity when dead. 0 for oneself; none for members left or unknown.
    pub fn phi(&self, now: Now, id: MemberId, roster: &Roster) -> Option<f64> {
        if id == roster.my_id() {
            return Some(0.0);
        }
        match roster.liveness(id)? {
            Liveness::Left => None,
            Liveness::Dead => Some(f64::INFINITY),
            Liveness::Alive => self.edges.phi(now.mono, id, &self.config),
            Liveness::Suspect => {
                self.edges.phi(now.mono, id, &self.config).or_else(|| self.suspicions.phi(id))
            }
        }
    }

    /// The longest round trip measured in the last 15 to 30 s, at most 1 s; the last such value if none was measured since,
    /// `rtt_initial` before the first.
    pub fn rtt_max_recent(&self, now: Now) -> Duration {
        let _ = now;
        self.rtt_max.get().unwrap_or(self.rtt_initial)
    }

    /// Counters; `revived` and `refuted_self` are counted by the hall.
    pub fn metrics(&self) -> DetectorMetrics {
        self.metrics
    }
}
