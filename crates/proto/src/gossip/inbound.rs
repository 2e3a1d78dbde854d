//! Datagrams and frames: decoded whole, then each message goes to the part it belongs to.

use std::net::SocketAddr;
use std::time::Duration;

use super::records::{Source, Trees};
use super::{Gossip, Leave};
use crate::budget::Class;
use crate::detector::AckMatch;
use crate::join::{HOP_REFUSED, HelloVerdict, Progress, WelcomeVerdict};
use crate::member::{Claim, Liveness, Member, MemberId};
use crate::output::StreamId;
use crate::record::{Record, RumorId, Tree};
use crate::replica::Known;
use crate::sync::{self, Comparison, Mine};
use crate::time::{Now, Stamp};
use crate::transfer::Delivered;
use crate::wire::{
    self, AckFlags, Beat, Compared, DecodeError, Decoded, Framing, HEADER_FEEDBACK, HOP_COLD, Message, Page,
    Roots,
};

/// BEATs whose roots are remembered until their ACK; beyond, those older than [`BEATEN_FOR`] go.
const BEATEN_MAX: usize = 256;
pub(super) const BEATEN_CEILING: usize = 4 * BEATEN_MAX;
const BEATEN_FOR: Duration = Duration::from_secs(10);
/// When a member contacts whom it has let in.
const ADMITTED_CONTACT: Duration = Duration::from_secs(1);
/// Least time between two CHALLENGEs to a member that sends from another address.
const MOVED_GAP: Duration = Duration::from_secs(10);

/// Who sent a message, and how.
#[derive(Clone, Copy)]
struct From {
    id: MemberId,
    address: SocketAddr,
    /// Its datagram carries records or ids of a session: claims in it are `S6`'s.
    session: bool,
}

/// A member's record as RECORD carries it: never dead (section 2.1); who gets it finds out.
pub(super) fn carried(member: Member) -> Member {
    let liveness = if member.liveness == Liveness::Dead { Liveness::Suspect } else { member.liveness };
    Member { liveness, ..member }
}

impl Gossip {
    /// A plain datagram (header and messages, seal removed and checked) arrived from this source.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, plain: &[u8]) {
        if self.is_over() {
            return;
        }
        let Some(decoded) = self.decode(plain, Framing::Datagram) else { return };
        self.traffic.datagrams_received += 1;
        self.traffic.bytes_received += (plain.len() + self.config.seal_bytes) as u64;
        let sender = decoded.header.sender;
        if sender == self.roster.my_id() {
            self.traffic.dropped_own += 1;
            self.join.handle_own(now, from, &self.roster, &mut self.rng);
            return;
        }
        self.join.handle_heard(now, sender);
        let introduces = |m: &Message| {
            matches!(m, Message::Hello { .. } | Message::Challenge { .. } | Message::Welcome { .. })
                || matches!(m, Message::Record { hop: HOP_REFUSED, .. })
        };
        if self.roster.liveness(sender).is_none() && !decoded.messages.iter().any(introduces) {
            self.handle_stranger(now, from, sender);
            return;
        }
        if let Some(recorded) = self.roster.profile(sender).map(|p| p.address) {
            self.detector.handle_heard(now, sender);
            self.notice(now, sender);
            if recorded != from {
                self.handle_moved(now, from, sender);
            }
        }
        let session = decoded.messages.iter().any(|m| {
            matches!(
                m,
                Message::IHave { repair: true, .. }
                    | Message::Want { repair: true, .. }
                    | Message::Diff { .. }
            )
        });
        let repairs = session
            || decoded.messages.iter().any(|m| {
                matches!(
                    m,
                    Message::Walk { .. } | Message::List { .. } | Message::Record { hop: HOP_COLD, .. }
                )
            });
        if repairs {
            self.sync.count_received(plain.len());
        }
        let from = From { id: sender, address: from, session };
        self.rumors.set_sender(decoded.header.flags & HEADER_FEEDBACK != 0);
        // A DIFF ends what the rest of its datagram reports.
        let (last, first): (Vec<Message>, Vec<Message>) =
            decoded.messages.into_iter().partition(|m| matches!(m, Message::Diff { .. }));
        for message in first.into_iter().chain(last) {
            if self.is_over() {
                return;
            }
            self.handle_message(now, from, message);
        }
    }

    /// A plain frame arrived.
    pub fn handle_frame(&mut self, now: Now, stream: StreamId, plain: &[u8]) {
        if self.is_over() {
            return;
        }
        let Some(decoded) = self.decode(plain, Framing::Frame) else {
            self.transfer.refuse(now, stream, &self.roster);
            return;
        };
        self.traffic.frames_received += 1;
        self.traffic.frame_bytes_received += plain.len() as u64;
        let sender = decoded.header.sender;
        if sender == self.roster.my_id() {
            self.traffic.dropped_own += 1;
            self.transfer.refuse(now, stream, &self.roster);
            return;
        }
        self.join.handle_heard(now, sender);
        let Some(address) = self.roster.profile(sender).map(|p| p.address) else {
            self.transfer.refuse(now, stream, &self.roster);
            return;
        };
        let from = From { id: sender, address, session: false };
        self.rumors.set_sender(decoded.header.flags & HEADER_FEEDBACK != 0);
        for message in decoded.messages {
            match self.transfer.handle_message(now, stream, sender, message, &self.roster) {
                Delivered::Nothing => {}
                Delivered::Record { hop, record } => {
                    self.handle_record(now, sender, &record, Source::Rumor(hop));
                }
                Delivered::Page(page) => self.handle_page(now, sender, &page),
                Delivered::Message(message) => self.handle_message(now, from, message),
            }
        }
    }

    fn decode(&mut self, plain: &[u8], framing: Framing) -> Option<Decoded> {
        let limits = wire::Limits { value_bytes_max: self.config.limits.value_bytes_max };
        match wire::peek_header(plain) {
            Err(DecodeError::Version) => self.traffic.dropped_version += 1,
            Err(_) => self.traffic.dropped_malformed += 1,
            Ok(header) if header.label != self.label => self.traffic.dropped_label += 1,
            Ok(_) => match wire::decode(plain, &limits, framing) {
                Ok(decoded) => return Some(decoded),
                Err(_) => self.traffic.dropped_malformed += 1,
            },
        }
        None
    }

    /// `J3`: CHALLENGE to an unknown sender; its successor's record to a retired one, at most once a second.
    fn handle_stranger(&mut self, now: Now, from: SocketAddr, sender: MemberId) {
        if let Some(successor) = self.roster.successor(sender) {
            self.traffic.dropped_stale_generation += 1;
            if self.successors.due(sender, now.mono, Duration::from_secs(1)) {
                self.post_to(from, Message::member(HOP_COLD, carried(successor)), Class::Members);
            }
            return;
        }
        self.traffic.dropped_unknown_sender += 1;
        if let Some(challenge) = self.join.challenge(now, from, sender) {
            self.post_to(from, challenge, Class::Detector);
        }
    }

    /// A known member sends from elsewhere than its record says. If its newer record was lost, no answer of mine reaches it,
    /// and no session can repair that: a CHALLENGE to the source brings its HELLO, at most once in ten seconds.
    fn handle_moved(&mut self, now: Now, from: SocketAddr, sender: MemberId) {
        if self.moved.due(sender, now.mono, MOVED_GAP)
            && let Some(challenge) = self.join.challenge(now, from, sender)
        {
            self.post_to(from, challenge, Class::Detector);
        }
    }

    fn handle_message(&mut self, now: Now, from: From, message: Message) {
        match message {
            Message::Hello { cookie, spread, member } => self.handle_hello(now, cookie, spread, &member),
            Message::Challenge { cookie } => {
                self.join.handle_challenge(now, from.address, from.id, cookie, &self.roster);
            }
            Message::Welcome { member, peers } => self.handle_welcome(now, from, &member, &peers),
            Message::Record { hop: HOP_REFUSED, record: Record::Member(member) }
                if member.name() == self.roster.me().name() =>
            {
                self.join.handle_refusal(now, from.address, &member, &self.roster);
            }
            // Everything else is for members only.
            _ if self.roster.liveness(from.id).is_none() => {}
            Message::Beat(beat) => self.handle_beat(now, from.id, &beat),
            Message::Ack { seq, flags, origin } => self.handle_ack(now, from.id, seq, &flags, origin),
            Message::Ping { seq, origin } => {
                self.detector.handle_ping(now, from.id, seq, origin, &self.roster);
            }
            Message::PingVia { seq, target } => {
                self.detector.handle_ping_via(now, from.id, seq, target, &self.roster);
            }
            Message::Receipt { seq } => self.detector.handle_receipt(now, from.id, seq),
            Message::Claims(claims) => {
                for claim in &claims {
                    self.handle_claim_from(now, from, claim);
                }
            }
            Message::Record { hop, record } => {
                let source = if hop == HOP_COLD { Source::Quiet } else { Source::Rumor(hop) };
                self.handle_record(now, from.id, &record, source);
            }
            Message::IHave { repair, large, ids } => self.handle_ihave(now, from.id, repair, large, &ids),
            Message::Want { repair, ids, .. } => self.handle_want(now, from.id, repair, &ids),
            Message::Pull { tree, cursor } => self.handle_pull(now, from.id, tree, cursor),
            Message::Page(page) => self.handle_page(now, from.id, &page),
            Message::Walk { tree: Tree::Entries, .. } | Message::List { tree: Tree::Entries, .. }
                if !self.may_move(now, from.id) =>
            {
                self.post(from.id, Message::Busy { tree: Some(Tree::Entries), id: None }, Class::Repair);
            }
            Message::Walk { seq, tree, settled, salt, items } => {
                let mut trees =
                    Trees { store: &mut self.store, roster: &self.roster, index: &mut self.index };
                self.sync.handle_walk(now, from.id, seq, tree, settled, salt, &items, &mut trees);
            }
            Message::Diff { seq, items, .. } => {
                let mut trees =
                    Trees { store: &mut self.store, roster: &self.roster, index: &mut self.index };
                self.sync.handle_diff(now, from.id, seq, &items, &mut trees);
            }
            Message::List { seq, tree, settled, ranges } => {
                let mut trees =
                    Trees { store: &mut self.store, roster: &self.roster, index: &mut self.index };
                self.sync.handle_list(now, from.id, seq, tree, settled, &ranges, &mut trees);
            }
            Message::Busy { tree: Some(tree), .. } => self.sync.handle_busy(now, from.id, tree),
            Message::Busy { id: Some(id), .. } => self.sync.handle_missing(now, from.id, id),
            Message::Busy { .. } => {}
            Message::Poll(ids) => self.handle_poll(from.id, ids),
            Message::Seen(ids) => self.handle_seen(now, from.id, &ids),
            Message::Mail { seq, topic, payload } => self.handle_mail(now, from.id, seq, &topic, payload),
            Message::Done { seq } => self.handle_done(from.id, seq),
            Message::Answer { query, status, payload } => self.handle_answer(from.id, query, status, payload),
            Message::Heard { living, table } => self.handle_heard(now, from.id, living, &table),
            // Pieces come on streams, which put them together.
            Message::Part { .. } => {}
        }
    }

    /// `S6` for claims that a session brought, else an ordinary claim.
    fn handle_claim_from(&mut self, now: Now, from: From, claim: &Claim) {
        if !from.session {
            self.handle_claim(now, from.id, claim);
            return;
        }
        let before = self.roster.live(claim.id);
        self.handle_claim(now, from.id, claim);
        let held_against = before.is_some_and(|(incarnation, liveness)| {
            claim.liveness == Liveness::Alive && !liveness.is_living() && incarnation >= claim.incarnation
        });
        if held_against {
            if let Some(mine) = self.accusation_of(claim.id) {
                self.post_claim(from.id, mine);
            }
            self.sync.handle_claim(now, from.id);
        } else if self.roster.live(claim.id) != before {
            self.sync.handle_claim(now, from.id);
        }
    }

    /// My roots at the settled second that BEATs of this moment carry; none while I join.
    pub(super) fn roots(&mut self, now: Now, clock: Stamp) -> Option<Roots> {
        if self.join.is_joining() {
            return None;
        }
        let settled = clock.second().minus(u32::from(self.config.anti_entropy.settle_secs));
        Some(Roots {
            members: self.roster.root(),
            entries: self.store.settled_root(now, settled).unwrap_or(0),
            living: u16::try_from(self.roster.living()).unwrap_or(u16::MAX),
        })
    }

    /// `D2`, `D3`, `S1`: a BEAT is recorded, compared and acknowledged at once.
    fn handle_beat(&mut self, now: Now, from: MemberId, beat: &Beat) {
        if self.store.observe(now, beat.clock).is_err() {
            self.traffic.records_refused += 1;
        }
        self.note_drift(now, from, beat);
        let watched = self.detector.handle_beat(now, from, beat, &self.roster);
        let settled = beat.clock.second().minus(u32::from(beat.settle_secs));
        let mine = (!self.join.is_joining() && self.leave == Leave::No).then(|| Mine {
            members: self.roster.root(),
            living: self.roster.living(),
            entries: if self.store.is_full() { None } else { self.store.settled_root(now, settled) },
        });
        let (members, entries) = sync::compare(beat.roots.as_ref(), mine.as_ref());
        if entries == Compared::Equal {
            self.note_match(now, from, settled);
        }
        if (members, entries) == (Compared::Equal, Compared::Equal) {
            self.note_equal(now, from);
        }
        let flags = AckFlags { to_beat: true, watched, members, entries };
        self.post(from, Message::Ack { seq: beat.seq, flags, origin: None }, Class::Detector);
    }

    fn handle_ack(&mut self, now: Now, from: MemberId, seq: u32, flags: &AckFlags, origin: Option<MemberId>) {
        let matched = self.detector.handle_ack(now, from, seq, flags, origin, &self.roster);
        let AckMatch::Beat { at, .. } = matched else { return };
        let Some((_, settled, roots)) = self.beaten.remove(&(from, seq)) else { return };
        if (flags.members, flags.entries) == (Compared::Equal, Compared::Equal) {
            self.note_equal(now, from);
        }
        let entries = match flags.entries {
            Compared::Equal => {
                self.note_match(now, from, settled);
                Compared::Equal
            }
            // What a full store lacks it cannot take.
            Compared::Differ | Compared::Far if self.store.is_full() || !self.may_move(now, from) => {
                Compared::Not
            }
            other => other,
        };
        let comparison = Comparison {
            peer: from,
            sent_at: at,
            roots,
            settled,
            members: flags.members,
            entries,
            quick: self.is_quick(now),
        };
        self.sync.handle_comparison(now, &comparison, &mut self.rng);
    }

    /// Sends a BEAT with clock and roots, and remembers the roots for its ACK.
    pub(super) fn beat(&mut self, now: Now, to: MemberId, seq: u32, once: bool, deaf: bool) {
        let clock = self.store.clock(now);
        let settle_secs = self.config.anti_entropy.settle_secs;
        let roots = self.roots(now, clock);
        if let Some(roots) = roots {
            if self.beaten.len() >= BEATEN_MAX {
                self.beaten.retain(|_, (at, ..)| *at + BEATEN_FOR > now.mono);
            }
            if self.beaten.len() < BEATEN_CEILING {
                let settled = clock.second().minus(u32::from(settle_secs));
                self.beaten.insert((to, seq), (now.mono, settled, roots));
            }
        }
        self.post(to, Message::Beat(Beat { seq, clock, settle_secs, once, deaf, roots }), Class::Detector);
    }

    fn handle_hello(&mut self, now: Now, cookie: u64, spread: bool, member: &Member) {
        if self.leave != Leave::No {
            return;
        }
        let verdict = self.join.handle_hello(now, cookie, spread, member, &self.roster, &mut self.rng);
        match verdict {
            HelloVerdict::Accept { spread } => self.admit(now, member, spread),
            HelloVerdict::Reply { message } => self.post_to(member.address(), message, Class::Detector),
            HelloVerdict::Drop => {}
        }
    }

    /// `J2`: a newcomer with a good cookie. One that cannot be welcomed yet asks again; if it were known all the same, others
    /// would beat a member that does not know them, and declare it dead.
    pub(super) fn admit(&mut self, now: Now, member: &Member, spread: bool) {
        let stranger = self.roster.liveness(member.id()).is_none();
        let welcome = self.join.welcome(now, member.id(), &self.roster, &mut self.rng);
        if stranger && welcome.is_none() {
            return;
        }
        self.merge_member(now, member, Source::Quiet);
        let Some(known) = self.roster.get(member.id()) else { return };
        if spread {
            let id = self.roster.hasher().member_rumor(&known.profile);
            self.rumors.put_member(now, known, id, 0, false, &mut self.rng);
        }
        // A newcomer that crashes before its own beats have begun is watched by nobody: whoever let it in looks once.
        self.detector.contact_at(now.mono + ADMITTED_CONTACT, member.id());
        if let Some(welcome) = welcome {
            self.post_to(member.address(), welcome, Class::Detector);
        }
    }

    fn handle_welcome(&mut self, now: Now, from: From, member: &Member, peers: &[(MemberId, SocketAddr)]) {
        let verdict = self.join.handle_welcome(now, from.address, member, peers, &self.roster, &mut self.rng);
        match verdict {
            WelcomeVerdict::Ignored => {}
            WelcomeVerdict::Join => {
                self.merge_member(now, member, Source::Quiet);
            }
            WelcomeVerdict::Contact => {
                self.merge_member(now, member, Source::Rumor(0));
                self.note_back(now, member.id());
                self.detector.contact(now, member.id());
            }
            WelcomeVerdict::Readmitted => {
                self.merge_member(now, member, Source::Rumor(0));
                self.detector.handle_welcome(now, member.id());
            }
        }
    }

    fn handle_ihave(&mut self, now: Now, from: MemberId, repair: bool, large: bool, ids: &[RumorId]) {
        self.roster.index_rumors();
        let (known, unknown): (Vec<RumorId>, Vec<RumorId>) = ids.iter().partition(|&&id| self.knows(id));
        if large {
            for &id in &unknown {
                self.transfer.handle_announced(now, from, id, repair, &self.roster);
            }
            if repair {
                self.sync.handle_large(now, from, ids);
            }
        } else if repair {
            let (store, roster) = (&self.store, &self.roster);
            let mut known = |id| match store.known(id) {
                Known::No if roster.find_rumor(id).is_some() => Known::Yes,
                other => other,
            };
            self.sync.handle_ihave(now, from, ids, &mut known);
        } else {
            self.rumors.set_rtt(self.detector.rtt_max_recent(now));
            self.rumors.handle_ihave(now, from, &unknown);
            self.rumors.handle_known_ids(from, &known);
        }
    }

    fn handle_want(&mut self, now: Now, from: MemberId, repair: bool, ids: &[RumorId]) {
        self.roster.index_rumors();
        if repair {
            let (store, roster, index) = (&self.store, &self.roster, &mut self.index);
            let mut find = |id| store.find(id).map(sync::Found::from).or_else(|| index.find(roster, id));
            let answers = self.sync.answer_wants(now, from, ids, &mut self.budget, &mut find);
            for message in answers {
                self.post(from, message, Class::Repair);
            }
        } else {
            let (store, roster) = (&self.store, &self.roster);
            let mut find = |id| {
                store
                    .find(id)
                    .map(Record::Entry)
                    .or_else(|| roster.find_rumor(id).map(carried).map(Record::Member))
            };
            self.rumors.handle_want(now, from, ids, &mut self.budget, &mut find);
        }
    }

    fn handle_pull(&mut self, now: Now, from: MemberId, tree: Tree, cursor: u64) {
        let allowance = self.budget.available(now.mono, Class::Members);
        let detector = &self.detector;
        let claim_of = |id| detector.claim_of(id);
        let pages = self.join.serve_pull(now, tree, cursor, allowance, &self.roster, &claim_of);
        for page in pages {
            self.post(from, page, Class::Members);
        }
    }

    fn handle_page(&mut self, now: Now, from: MemberId, page: &Page) {
        if self.join.handle_page(now, from, page, &self.roster) == Progress::Ignored {
            return;
        }
        for record in &page.records {
            self.handle_record(now, from, record, Source::Page);
        }
        for claim in &page.claims {
            self.handle_claim(now, from, claim);
        }
    }
}
