//! Join, identity and seeds: rules `J1`-`J4` and `J6`; PULL and PAGE of both trees (section 5.4).
//!
//! How the hall drives it. After each call drain [`Join::poll_action`]. "Record" below is a member record.
//! - `Gossip::new`: [`Join::new`]. `Gossip::join`: [`Join::start`]. Without `start` the member is a founder at its first timeout.
//! - Every authenticated datagram or frame, before the sender is looked up: [`Join::handle_heard`] with the header's id (unknown
//!   and retired ones too). With my own id: [`Join::handle_own`], then drop it.
//! - Unknown sender, no HELLO, CHALLENGE, WELCOME or refusal inside: [`Join::challenge`]; send what it returns to the source.
//! - HELLO: [`Join::handle_hello`]; on `Accept` merge the record (put it hot at hop 0 if `spread`), and if the roster did not
//!   refuse it send [`Join::welcome`] to the record's address; on `Reply` send the message to that address. [`Action::Admit`]
//!   later means the same as `Accept`.
//! - CHALLENGE: [`Join::handle_challenge`], known sender or not.
//! - WELCOME: [`Join::handle_welcome`] BEFORE its record is merged; then see [`WelcomeVerdict`].
//! - RECORD with hop [`HOP_REFUSED`] of my own name under another id: [`Join::handle_refusal`]; merge it otherwise as usual.
//!   Whenever a merge says `Merged::MyName` (RECORD, PAGE, WELCOME, HELLO): [`Join::handle_my_name`].
//! - PULL in a datagram from a known member: [`Join::serve_pull`]; each message it returns is one datagram (class `Members`).
//! - PAGE, in a datagram or from a stream ([`crate::transfer::Delivered::Page`]): [`Join::handle_page`] first; unless
//!   `Progress::Ignored` merge its records (not hot) and claims. [`crate::transfer::Action::PullFailed`]:
//!   [`Join::handle_pull_failed`].
//! - The detector's `ContactDue`: [`Join::contact_seed`]; if it returns an address the HELLO is queued and nothing else is due.
//! - BEATs carry no roots, and nothing is compared, while [`Join::is_joining`].

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::config::Config;
use crate::gossip::Seed;
use crate::member::{Claim, Generation, Member, MemberId};
use crate::record::Tree;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::time::{Mono, Now};
use crate::wire::{Message, Page};

/// Hop of the RECORD a newcomer gets instead of WELCOME because its name is taken (`J2`).
pub const HOP_REFUSED: u8 = 254;

/// How far a join has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not started; a founder at the first timeout.
    Idle,
    /// HELLO to seeds until one welcomes.
    Hello,
    /// Welcomed; members are being pulled.
    PullingMembers,
    /// Members complete, partners chosen; entries are being pulled.
    PullingEntries,
    /// Both lists are complete, or were given up.
    Joined,
    /// Nobody answered, or there was nobody to ask.
    Founder,
    /// Name conflict: nothing is sent any more.
    Stopped,
}

/// What the hall must do.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send one message to this address (class `Detector`, never held back).
    SendTo {
        /// To.
        to: SocketAddr,
        /// HELLO, PULL, PING or RECORD.
        message: Message,
    },
    /// Call `transfer.pull` with these.
    PullStream {
        /// Which tree.
        tree: Tree,
        /// From whom; in the roster by now.
        to: MemberId,
        /// Its address.
        address: SocketAddr,
        /// Place to start at.
        cursor: u64,
    },
    /// The members are known (or I found a cluster): `detector.start`.
    StartDetector,
    /// 1.2 s and 2 s after the start of the detector (`J1`): `detector.contact` with each partner.
    ContactPartners,
    /// A newcomer of a taken name whose old owner does not answer (`J2`): do as for `HelloVerdict::Accept`.
    Admit {
        /// Its record.
        member: Member,
        /// Make it a rumor.
        spread: bool,
    },
    /// My name belongs to a newer run that is gone: `roster.renew_me` with this generation and a new random id. I join again.
    Renew {
        /// The new generation.
        generation: Generation,
    },
    /// Event `NameConflict`; this member stops.
    Conflict {
        /// The living member of my name.
        other: Member,
    },
    /// Event `SeedFailed`.
    SeedFailed {
        /// As the user wrote it.
        seed: String,
        /// Why.
        error: String,
    },
    /// One list is complete.
    PullDone {
        /// Which.
        tree: Tree,
    },
    /// Roots may be sent and compared from now on; for 10 s quick (`S2`).
    Joined,
    /// Joining ended without a WELCOME. `StartDetector` precedes it.
    Founded,
    /// Event `JoinEnded`; once per [`Join::start`] that was not merged into one under way.
    Ended {
        /// A seed answered.
        joined: bool,
    },
}

/// What to do with a HELLO.
#[derive(Clone, PartialEq, Debug)]
pub enum HelloVerdict {
    /// Merge the record, then send `welcome()` to its address.
    Accept {
        /// Hot at hop 0.
        spread: bool,
    },
    /// Send this to the address in the record: a CHALLENGE, or the RECORD of the name's living owner.
    Reply {
        /// The message.
        message: Message,
    },
    /// Nothing now: over a limit, my own, or the old owner of the name is being probed.
    Drop,
}

/// What to do with a WELCOME.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WelcomeVerdict {
    /// Part of my join: merge the record, not hot.
    Join,
    /// Answer to a knock outside a join (`J4`): merge the record, hot; BEAT with `once`, sessions with it are quick.
    Contact,
    /// I am known again to a member that had challenged me (`J3`): merge; if it is a partner, first beat again.
    Readmitted,
    /// Not asked for: drop.
    Ignored,
}

/// What a PAGE brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Not asked for, or not from the one asked: drop it.
    Ignored,
    /// Merge it.
    More,
    /// Merge it; the list is complete.
    Complete,
}

/// Counters of this part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JoinMetrics {
    /// HELLOs sent.
    pub hellos_sent: u64,
    /// CHALLENGEs sent.
    pub challenges_sent: u64,
    /// WELCOMEs sent.
    pub welcomes_sent: u64,
    /// CHALLENGEs and WELCOMEs not sent for their rate or bytes.
    pub held_back: u64,
    /// HELLOs with a wrong or old cookie.
    pub cookies_refused: u64,
    /// PULLs sent, in datagrams or over streams.
    pub pulls_sent: u64,
    /// PULLs sent again because pages were missing.
    pub pulls_repeated: u64,
    /// PAGEs sent in datagrams.
    pub pages_sent: u64,
    /// PAGEs received that were asked for.
    pub pages_received: u64,
    /// Name conflicts found.
    pub conflicts: u64,
    /// Times I took a new identity.
    pub renewals: u64,
    /// Lists given up; anti-entropy repairs what is missing.
    pub pulls_given_up: u64,
}

/// The part.
pub struct Join {
    phase: Phase,
    actions: VecDeque<Action>,
    metrics: JoinMetrics,
}

impl Join {
    /// A member that has not begun to join. Draws the secret of its cookies.
    pub fn new(config: &Config, now: Now, rng: &mut Rng) -> Join {
        let _ = (config, now, rng);
        Join { phase: Phase::Idle, actions: VecDeque::new(), metrics: JoinMetrics::default() }
    }

    /// Joins by these seeds (`J1`), or replaces the seeds knocked at; [`Action::Ended`] follows once.
    pub fn start(&mut self, now: Now, seeds: Vec<Seed>, roster: &Roster, rng: &mut Rng) {
        let _ = (now, seeds, roster, rng);
    }

    /// Phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Are lists still missing? Then beats carry no roots and nothing is compared (`S1`).
    pub fn is_joining(&self) -> bool {
        matches!(self.phase, Phase::Hello | Phase::PullingMembers | Phase::PullingEntries)
    }

    /// A datagram with my own id came from this address: it is mine, and no seed.
    pub fn handle_own(&mut self, now: Now, from: SocketAddr, roster: &Roster, rng: &mut Rng) {
        let _ = (now, from, roster, rng);
    }

    /// Something authentic came from this id, known or not: ends name probes of it (`J2`).
    pub fn handle_heard(&mut self, now: Now, from: MemberId) {
        let _ = (now, from);
    }

    /// The CHALLENGE that an unknown sender's datagram is answered with (`J3`), to its source address; none while I join or
    /// over the limits of `J6`.
    pub fn challenge(&mut self, now: Now, source: SocketAddr, id: MemberId) -> Option<Message> {
        let _ = (now, source, id);
        None
    }

    /// A HELLO (`J2`, `J6`).
    pub fn handle_hello(
        &mut self,
        now: Now,
        cookie: u64,
        spread: bool,
        member: &Member,
        roster: &Roster,
        rng: &mut Rng,
    ) -> HelloVerdict {
        let _ = (now, cookie, spread, member, roster, rng);
        HelloVerdict::Drop
    }

    /// The WELCOME for an accepted newcomer; none above B/4 (`J6`): it asks again.
    pub fn welcome(&mut self, now: Now, to: MemberId, roster: &Roster, rng: &mut Rng) -> Option<Message> {
        let _ = (now, to, roster, rng);
        None
    }

    /// A CHALLENGE: answers with HELLO if I had sent something there, or if it comes from a known member (`J3`).
    pub fn handle_challenge(
        &mut self,
        now: Now,
        from: SocketAddr,
        sender: MemberId,
        cookie: u64,
        roster: &Roster,
    ) {
        let _ = (now, from, sender, cookie, roster);
    }

    /// A WELCOME, before its record is merged.
    pub fn handle_welcome(
        &mut self,
        now: Now,
        from: SocketAddr,
        member: &Member,
        peers: &[(MemberId, SocketAddr)],
        roster: &Roster,
        rng: &mut Rng,
    ) -> WelcomeVerdict {
        let _ = (now, from, member, peers, roster, rng);
        WelcomeVerdict::Ignored
    }

    /// A RECORD with hop [`HOP_REFUSED`] of my own name under another id.
    pub fn handle_refusal(&mut self, now: Now, from: SocketAddr, record: &Member, roster: &Roster) {
        let _ = (now, from, record, roster);
    }

    /// A record of my own name wins over mine (`Merged::MyName`): probe its address (`J2`).
    pub fn handle_my_name(&mut self, now: Now, record: &Member, roster: &Roster, rng: &mut Rng) {
        let _ = (now, record, roster, rng);
    }

    /// PAGEs for a PULL of the members that came in a datagram: at most 8, each fits one datagram, together (with headers
    /// and seal) at most `allowance_bytes`; none if that is not enough for one. Entries are served over streams only.
    pub fn serve_pull(
        &mut self,
        now: Now,
        tree: Tree,
        cursor: u64,
        allowance_bytes: usize,
        roster: &Roster,
        claim_of: &dyn Fn(MemberId) -> Option<Claim>,
    ) -> Vec<Message> {
        let _ = (now, tree, cursor, allowance_bytes, roster, claim_of);
        Vec::new()
    }

    /// One page of living members in order of place, its message at most `bytes_max` long; for `transfer::Source::page`.
    pub fn members_page(
        &mut self,
        now: Now,
        from: u64,
        bytes_max: usize,
        roster: &Roster,
        claim_of: &dyn Fn(MemberId) -> Option<Claim>,
    ) -> Page {
        let _ = (now, bytes_max, roster, claim_of);
        Page {
            tree: Tree::Members,
            from,
            next: u64::MAX,
            last: true,
            records: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// A PAGE, from a datagram or a stream.
    pub fn handle_page(
        &mut self,
        now: Now,
        from: MemberId,
        page: &Page,
        roster: &Roster,
        rng: &mut Rng,
    ) -> Progress {
        let _ = (now, from, page, roster, rng);
        Progress::Ignored
    }

    /// A PULL over a stream was refused or broke.
    pub fn handle_pull_failed(&mut self, now: Now, tree: Tree, roster: &Roster, rng: &mut Rng) {
        let _ = (now, tree, roster, rng);
    }

    /// `J4`: queues a HELLO to a seed address that belongs to no living member, with probability 1/4, always if nobody else
    /// lives. Returns the address.
    pub fn contact_seed(&mut self, now: Now, roster: &Roster, rng: &mut Rng) -> Option<SocketAddr> {
        let _ = (now, roster, rng);
        None
    }

    /// When [`Join::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        Mono::FAR
    }

    /// Does all that is due.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        let _ = (now, roster, rng);
    }

    /// Next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Counters.
    pub fn metrics(&self) -> JoinMetrics {
        self.metrics
    }
}
