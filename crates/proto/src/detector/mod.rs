//! The failure detector: rules `D1`-`D15` but `D13`, which is the hall's.
//!
//! Members exchange BEATs along few chosen edges and keep an arrival window per edge; silence starts a probe, a probe that
//! finds witnesses but no answer starts a suspicion, and a suspicion that nobody refutes within its patience is a death.
//! This part sends nothing: it queues [`Action`]s. Its tables hold edges, probes and suspicions, never all members, so a
//! timeout costs what is due and nothing grows with the size of the cluster but mass events.

use std::time::Duration;

use crate::config;
use crate::member::{Claim, MemberId};
use crate::metrics::DetectorMetrics;
use crate::rng::Rng;
use crate::roster::Roster;
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
}

impl Detector {
    /// A detector that keeps silent until [`Detector::start`]; it answers, probes and suspects from now on. `rtt_initial`
    /// is the length of a probe round before any round trip was measured.
    pub fn new(config: &config::Detector, rtt_initial: Duration, now: Now, rng: &mut Rng) -> Detector {
        let _ = (rtt_initial, now, rng);
        Detector { config: *config }
    }

    /// Chooses partners (`D1`), sends their first BEATs and begins the contact period. Called again after a new identity it
    /// begins anew.
    pub fn start(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        let _ = (now, roster, rng);
    }

    /// Ends beats and contacts until [`Detector::start`]: while joining again, and when left.
    pub fn stop(&mut self) {}

    /// Any authentic datagram of a known member: ends isolation (`D14`) and deafness (`D15`). Call it before the handlers of
    /// its messages.
    pub fn handle_heard(&mut self, now: Now, from: MemberId) {
        let _ = (now, from);
    }

    /// A BEAT. Returns whether a record of the sender is kept: `watched` of the ACK, which the hall sends.
    pub fn handle_beat(&mut self, now: Now, from: MemberId, beat: &Beat, roster: &Roster) -> bool {
        let _ = (now, from, beat, roster);
        false
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
        let _ = (now, from, seq, flags, origin, roster);
        AckMatch::None
    }

    /// A PING: queues the ACK.
    pub fn handle_ping(
        &mut self,
        now: Now,
        from: MemberId,
        seq: u32,
        origin: Option<MemberId>,
        roster: &Roster,
    ) {
        let _ = (now, from, seq, origin, roster);
    }

    /// A PING_VIA: queues the RECEIPT and, if the target is known, the PING with origin.
    pub fn handle_ping_via(&mut self, now: Now, from: MemberId, seq: u32, target: MemberId, roster: &Roster) {
        let _ = (now, from, seq, target, roster);
    }

    /// A RECEIPT: the relay has my PING_VIA.
    pub fn handle_receipt(&mut self, now: Now, from: MemberId, seq: u32) {
        let _ = (now, from, seq);
    }

    /// A suspect claim, also my own of [`Action::Accuse`] (`D8`, `D9`). The hall has filtered: known, living, incarnation not
    /// below the known one, some accuser not held dead. Unless [`News::Old`], the hall then sets the roster and makes
    /// [`Detector::claim_of`] hot.
    pub fn handle_suspicion(&mut self, now: Now, claim: &Claim, roster: &Roster, rng: &mut Rng) -> News {
        let _ = (now, claim, roster, rng);
        News::Old
    }

    /// A dead claim about a living member (`D12`).
    pub fn handle_death_report(
        &mut self,
        now: Now,
        claim: &Claim,
        roster: &Roster,
        rng: &mut Rng,
    ) -> DeathNews {
        let _ = (now, claim, roster, rng);
        DeathNews::Ignored
    }

    /// After any change of `id` in the roster: new, newer incarnation, refuted, dead, left, forgotten, retired, address.
    /// After a replacement call it for the retired id and for the new one.
    pub fn handle_member(&mut self, now: Now, id: MemberId, roster: &Roster, rng: &mut Rng) {
        let _ = (now, id, roster, rng);
    }

    /// WELCOME from a partner outside a join (`J3`): it has just learnt of me, so the first BEAT is sent again.
    pub fn handle_welcome(&mut self, now: Now, from: MemberId) {
        let _ = (now, from);
    }

    /// Runs what is due. The host has drained its socket before.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        let _ = (now, roster, rng);
    }

    /// When [`Detector::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        Mono::FAR
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// Queues a contact: a BEAT with `once`, which a living member must answer within the probe time (`D2`).
    pub fn contact(&mut self, now: Now, id: MemberId) {
        let _ = (now, id);
    }

    /// A contact at a later time (`J1`: 1.2 s and 2 s after joining). At most 64 wait; the oldest is dropped.
    pub fn contact_at(&mut self, at: Mono, id: MemberId) {
        let _ = (at, id);
    }

    /// As [`Detector::contact`], for `S2`; not counted as a contact.
    pub fn confirm(&mut self, now: Now, id: MemberId) {
        let _ = (now, id);
    }

    /// Whom to contact when a contact is due and no seed is knocked at (`J4`): a random dead member with probability
    /// min(1/2, dead/(dead + living)), always if nobody else lives, else a random living one. None while every pair is an
    /// edge and nobody is dead (section 4).
    pub fn contact_target(&self, roster: &Roster, rng: &mut Rng) -> Option<MemberId> {
        let _ = (roster, rng);
        None
    }

    /// Adds a lasting edge to this member (`D1`); it follows the member's name to its next run.
    ///
    /// # Errors
    /// [`TooMany`] beyond [`OBSERVED_MAX`].
    pub fn observe(&mut self, now: Now, id: MemberId, roster: &Roster) -> Result<(), TooMany> {
        let _ = (now, id, roster);
        Ok(())
    }

    /// Ends a lasting edge.
    pub fn unobserve(&mut self, id: MemberId) {
        let _ = id;
    }

    /// Members I beat now.
    pub fn partners(&self) -> impl Iterator<Item = MemberId> + '_ {
        std::iter::empty()
    }

    /// The running suspicion of this member as a claim.
    pub fn claim_of(&self, id: MemberId) -> Option<Claim> {
        let _ = id;
        None
    }

    /// All running suspicions as claims, by id.
    pub fn suspicions(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// Phi as users see it: on an edge that of its window; else none while alive, the accusers' largest while suspect,
    /// infinity when dead. 0 for oneself; none for members left or unknown.
    pub fn phi(&self, now: Now, id: MemberId, roster: &Roster) -> Option<f64> {
        let _ = (now, id, roster);
        None
    }

    /// The longest round trip measured in the last 15 to 30 s, at most 1 s; the last such value if none was measured since,
    /// `rtt_initial` before the first.
    pub fn rtt_max_recent(&self, now: Now) -> Duration {
        let _ = now;
        self.config.probe_round_max
    }

    /// Counters; `revived` and `refuted_self` are counted by the hall.
    pub fn metrics(&self) -> DetectorMetrics {
        DetectorMetrics::default()
    }
}
