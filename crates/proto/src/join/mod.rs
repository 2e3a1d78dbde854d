//! Join, identity and seeds: rules `J1`-`J4` and `J6`; PULL and PAGE of both trees (section 5.4).
//!
//! How the hall drives it. After each call drain [`Join::poll_action`]. "Record" below is a member record.
//! - `Gossip::new`: [`Join::new`]. `Gossip::join`: [`Join::start`]. Without `start` the member is a founder at its first timeout.
//! - Every authenticated datagram or frame, before the sender is looked up: [`Join::handle_heard`] with the header's id (unknown
//!   and retired ones too). With my own id: [`Join::handle_own`], then drop it.
//! - Unknown sender, no HELLO, CHALLENGE, WELCOME or refusal inside: [`Join::challenge`]; send what it returns to the source.
//! - HELLO: [`Join::handle_hello`]; on `Accept` ask [`Join::welcome`]; none for a stranger: nothing. Else merge the record (put it
//!   hot at hop 0 if `spread`), and if the roster did not refuse it send the WELCOME to the record's address; on `Reply` send the
//!   message to that address. [`Action::Admit`] later means the same as `Accept`.
//! - CHALLENGE: [`Join::handle_challenge`], known sender or not.
//! - WELCOME: [`Join::handle_welcome`] BEFORE its record is merged; then see [`WelcomeVerdict`].
//! - RECORD with hop [`HOP_REFUSED`] of my own name under another id: [`Join::handle_refusal`] and nothing else.
//!   Whenever a merge says `Merged::MyName` (RECORD, PAGE, WELCOME, HELLO): [`Join::handle_my_name`].
//! - PULL in a datagram from a known member: [`Join::serve_pull`]; each message it returns is one datagram (class `Members`).
//! - PAGE, in a datagram or from a stream ([`crate::transfer::Delivered::Page`]): [`Join::handle_page`] first; unless
//!   `Progress::Ignored` merge its records (not hot) and claims. [`crate::transfer::Action::PullFailed`]:
//!   [`Join::handle_pull_failed`].
//! - The detector's `ContactDue`: [`Join::contact_seed`]; if it returns an address the HELLO is queued and nothing else is due.
//! - BEATs carry no roots, and nothing is compared, while [`Join::is_joining`].

mod cookie;
mod joiner;
mod names;
mod pages;
mod pull;
mod seeds;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::budget::DATAGRAM_OVERHEAD;
use crate::config::Config;
use crate::member::{Claim, Generation, Member, MemberId};
use crate::record::Tree;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::table::Table;
use crate::time::{Mono, Now};
use crate::wire::{HEADER_BYTES, Message, Page, message_bytes};

use cookie::{Cookies, Gate};
use names::Names;
use pages::MemberOrder;
use pull::{PAGES_PER_PULL, Pull, Source};
use seeds::Seeds;

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
    /// The members are known, or I found a cluster: `detector.start`. Comes again when a founder that lived alone joins, and
    /// after [`Action::Renew`].
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

/// Bytes of a CHALLENGE message.
const CHALLENGE_BYTES: usize = 11;
/// Least time between two HELLOs to new processes at the addresses of known members.
const STRANGER_GAP: Duration = Duration::from_millis(100);
/// A HELLO can be answered for this long.
const PENDING_FOR: Duration = Duration::from_secs(10);

/// Why a HELLO was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// To a seed.
    Seed,
    /// To the member whose lists I pull.
    Source,
    /// To a member that did not know me (`J3`).
    Readmit,
}

/// A HELLO under way, by the address it went to.
struct Pending {
    at: Mono,
    why: Why,
    spread: bool,
    /// CHALLENGEs answered since.
    answers: u8,
    cookie: Option<(u64, Mono)>,
    /// The seed's address, where it answers from another.
    target: SocketAddr,
}

/// The part.
pub struct Join {
    phase: Phase,
    actions: VecDeque<Action>,
    metrics: JoinMetrics,
    join_timeout: Duration,
    contact_period: Duration,
    room_bytes: usize,
    /// Header, seal, IP and UDP of one datagram.
    overhead_bytes: usize,
    cookies: Cookies,
    gate: Gate,
    seeds: Seeds,
    names: Names,
    order: MemberOrder,
    pending: Table<SocketAddr, Pending>,
    hello_since: Mono,
    /// The member becomes a founder.
    found_at: Mono,
    /// [`Action::Ended`] is due at the latest, if `end_due`.
    end_at: Mono,
    end_due: bool,
    knock_at: Mono,
    /// When a CHALLENGE from a new process at a known address was answered last.
    stranger_answered: Mono,
    knock_gap: Duration,
    eager: u32,
    /// A PING that follows a HELLO to a silent seed.
    ping: Option<(Mono, SocketAddr)>,
    pull: Option<Pull>,
    /// Named in the WELCOME.
    peers: Vec<(MemberId, SocketAddr)>,
    welcomed_by: Option<Source>,
    contacts: [Mono; 2],
    /// Entries are held already: none but what differs is asked for.
    holds_entries: bool,
}

impl Join {
    /// A member that has not begun to join. Draws the secret of its cookies.
    pub fn new(config: &Config, now: Now, rng: &mut Rng) -> Join {
        let gap = config.detector.probe_round_max.min(config.join_timeout / (names::QUESTIONS + 2));
        Join {
            phase: Phase::Idle,
            actions: VecDeque::new(),
            metrics: JoinMetrics::default(),
            join_timeout: config.join_timeout,
            contact_period: config.detector.contact_period,
            room_bytes: config.room(),
            overhead_bytes: HEADER_BYTES + config.seal_bytes + DATAGRAM_OVERHEAD,
            cookies: Cookies::new(rng),
            gate: Gate::new(config.bytes_per_second_max, now.mono),
            seeds: Seeds::new(),
            names: Names::new(gap),
            order: MemberOrder::new(),
            pending: Table::new(),
            hello_since: now.mono,
            found_at: Mono::FAR,
            end_at: Mono::FAR,
            end_due: false,
            knock_at: Mono::FAR,
            stranger_answered: Mono(0),
            knock_gap: Duration::ZERO,
            eager: 0,
            ping: None,
            pull: None,
            peers: Vec::new(),
            welcomed_by: None,
            contacts: [Mono::FAR; 2],
            holds_entries: false,
        }
    }

    /// Phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The roster was filled by other means (simulations that begin with full views): nothing is left to join.
    pub fn adopted(&mut self) {
        self.phase = Phase::Joined;
        self.pull = None;
        self.found_at = Mono::FAR;
        self.end_at = Mono::FAR;
        self.end_due = false;
        self.knock_at = Mono::FAR;
        self.actions.clear();
    }

    /// A member was there in an earlier run of mine: knocked at as a seed is, but nobody is told if it does not answer.
    pub fn remember(&mut self, address: SocketAddr, rng: &mut Rng) {
        self.seeds.remember(address, rng);
    }

    /// Are so many entries held from an earlier run that joining skips their PULL, and sessions bring what differs?
    pub fn hold_entries(&mut self, holds: bool) {
        self.holds_entries = holds;
    }

    /// See [`Join::hold_entries`].
    pub fn holds_entries(&self) -> bool {
        self.holds_entries
    }

    /// Are lists still missing? Then beats carry no roots and nothing is compared (`S1`).
    pub fn is_joining(&self) -> bool {
        matches!(self.phase, Phase::Hello | Phase::PullingMembers | Phase::PullingEntries)
    }

    /// The CHALLENGE that an unknown sender's datagram is answered with (`J3`), to its source address; none while I join or
    /// over the limits of `J6`.
    pub fn challenge(&mut self, now: Now, source: SocketAddr, id: MemberId) -> Option<Message> {
        let silent = self.is_joining() || self.phase == Phase::Stopped;
        if silent { None } else { self.challenge_message(now.mono, source, id) }
    }

    fn challenge_message(&mut self, now: Mono, to: SocketAddr, id: MemberId) -> Option<Message> {
        if !self.gate.pass(now, CHALLENGE_BYTES + self.overhead_bytes, true) {
            self.metrics.held_back += 1;
            return None;
        }
        self.metrics.challenges_sent += 1;
        Some(Message::Challenge { cookie: self.cookies.issue(now, to, id) })
    }

    /// A HELLO (`J2`, `J6`): without a cookie of mine for the address and id in its record, nothing of it is used and a
    /// CHALLENGE goes to that address.
    pub fn handle_hello(
        &mut self,
        now: Now,
        cookie: u64,
        spread: bool,
        member: &Member,
        roster: &Roster,
        rng: &mut Rng,
    ) -> HelloVerdict {
        if self.phase == Phase::Stopped || member.id() == roster.my_id() || member.id() == MemberId::NONE {
            return HelloVerdict::Drop;
        }
        if !self.cookies.check(now.mono, cookie, member.address(), member.id()) {
            self.metrics.cookies_refused += u64::from(cookie != 0);
            let challenge = self.challenge_message(now.mono, member.address(), member.id());
            return challenge.map_or(HelloVerdict::Drop, |message| HelloVerdict::Reply { message });
        }
        let Some(owner) = roster.by_name(member.name()).filter(|owner| owner.id() != member.id()) else {
            return HelloVerdict::Accept { spread };
        };
        let run = |m: &Member| (m.profile.generation, m.id());
        if owner.id() == roster.my_id() || run(member) < run(&owner) {
            return HelloVerdict::Reply { message: names::refusal(&owner) };
        }
        if owner.liveness.is_living() && owner.address() != member.address() {
            self.probe_owner(now.mono, member, spread, owner, rng);
            return HelloVerdict::Drop;
        }
        HelloVerdict::Accept { spread }
    }

    /// The WELCOME for a newcomer; none above B/2 (`J6`): then it is not let in yet, and asks again.
    pub fn welcome(&mut self, now: Now, to: MemberId, roster: &Roster, rng: &mut Rng) -> Option<Message> {
        let member = roster.me();
        let ids = roster.pick(rng, 6, |id| id != to && roster.is_alive(id));
        let peers: Vec<(MemberId, SocketAddr)> =
            ids.into_iter().filter_map(|id| Some((id, roster.profile(id)?.address))).collect();
        let message = Message::Welcome { member, peers };
        let bytes = message_bytes(&message) + self.overhead_bytes;
        if !self.gate.pass(now.mono, bytes, false) {
            self.metrics.held_back += 1;
            return None;
        }
        self.metrics.welcomes_sent += 1;
        Some(message)
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
        let (mut pages, mut from, mut left) = (Vec::new(), cursor, allowance_bytes);
        while tree == Tree::Members && pages.len() < PAGES_PER_PULL {
            let (page, bytes) = self.order.page(now.mono, from, self.room_bytes, roster, claim_of);
            let Some(rest) = left.checked_sub(bytes + self.overhead_bytes) else { break };
            left = rest;
            from = page.next;
            let last = page.last;
            pages.push(Message::Page(page));
            if last {
                break;
            }
        }
        self.metrics.pages_sent += pages.len() as u64;
        pages
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
        self.order.page(now.mono, from, bytes_max, roster, claim_of).0
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

#[cfg(test)]
mod tests;
