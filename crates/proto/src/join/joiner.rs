//! The side that joins: HELLO to seeds, then the two lists (`J1`, `J4`).

use std::net::SocketAddr;
use std::time::Duration;

use super::pull::{Pull, Source, TRIES_MAX};
use super::{Action, Join, PENDING_FOR, Pending, Phase, Progress, WelcomeVerdict, Why};
use crate::config::Seed;
use crate::member::{Member, MemberId};
use crate::record::Tree;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::time::{Mono, Now};
use crate::wire::{Message, Page};

const HELLO_GAP_MIN: Duration = Duration::from_millis(400);
const HELLO_GAP_SPREAD: Duration = Duration::from_millis(200);
/// First wait of a founder that is alone, then doubling up to the contact period, where `J4` takes over.
const ALONE_GAP: Duration = Duration::from_millis(500);
/// A seed that did not answer earlier HELLOs has this long to answer before the PING.
const PING_AFTER: Duration = Duration::from_millis(100);
/// A cookie is used again for this long.
const COOKIE_FOR: Duration = Duration::from_secs(60);
/// How often a CHALLENGE ends the back-off of a founder that is alone: more means an address that nobody reaches.
const EAGER: u32 = 8;
/// HELLOs under way.
const PENDING_MAX: usize = 64;
/// CHALLENGEs answered per HELLO.
const ANSWERS_MAX: u8 = 4;
/// A seed that challenges but does not welcome (it holds back, or datagrams are lost) keeps me from founding for so many
/// join timeouts.
const PATIENCE: u32 = 4;
/// Tries without any progress, whoever was asked, before a list is left to anti-entropy.
const MEMBER_TRIES_MAX: u32 = 16;
const ENTRY_TRIES_MAX: u32 = 8;
/// After so many sources that join themselves, whoever welcomed me is asked.
const REFUSALS_MAX: u32 = 3;
/// Contacts to the partners after the detector has started.
const CONTACTS_AFTER: [Duration; 2] = [Duration::from_millis(1_200), Duration::from_millis(2_000)];

impl Join {
    /// Joins by these seeds (`J1`), or replaces the seeds knocked at; [`Action::Ended`] follows once: when a seed has
    /// welcomed me and the members are pulled, when every seed is unresolved or mine, or after `join_timeout`.
    pub fn start(&mut self, now: Now, seeds: Vec<Seed>, roster: &Roster, rng: &mut Rng) {
        let (failures, fresh) = self.seeds.replace(now.mono, seeds);
        self.report(failures);
        self.end_due = true;
        let me = roster.me().address();
        match self.phase {
            Phase::Stopped => self.finish(false),
            Phase::PullingMembers => {}
            Phase::PullingEntries => self.finish(true),
            Phase::Idle | Phase::Hello if !self.seeds.is_usable(me) => self.found(),
            Phase::Idle | Phase::Hello => {
                self.begin_hello(now.mono);
                self.knock(now.mono, roster, rng);
            }
            Phase::Founder | Phase::Joined => {
                let alone = roster.living() == 1;
                if self.seeds.pick_stray(roster, rng).is_none() || !fresh && !alone {
                    self.finish(!alone);
                } else {
                    self.end_at = now.mono + self.join_timeout;
                    self.knock_gap = ALONE_GAP;
                    self.knock(now.mono, roster, rng);
                }
            }
        }
    }

    pub(super) fn begin_hello(&mut self, now: Mono) {
        self.phase = Phase::Hello;
        self.hello_since = now;
        self.end_at = now + self.join_timeout;
        self.found_at = self.end_at;
        self.knock_at = now;
        self.knock_gap = ALONE_GAP;
        self.eager = EAGER;
    }

    fn found(&mut self) {
        self.phase = Phase::Founder;
        self.actions.push_back(Action::StartDetector);
        self.actions.push_back(Action::Founded);
        self.finish(false);
    }

    pub(super) fn finish(&mut self, joined: bool) {
        if std::mem::take(&mut self.end_due) {
            self.actions.push_back(Action::Ended { joined });
        }
    }

    fn report(&mut self, failures: Vec<(String, String)>) {
        self.actions.extend(failures.into_iter().map(|(seed, error)| Action::SeedFailed { seed, error }));
    }

    /// A datagram with my own id came from this address: it is mine, and no seed.
    pub fn handle_own(&mut self, now: Now, from: SocketAddr, roster: &Roster, rng: &mut Rng) {
        if !self.seeds.mark_own(from) {
            return;
        }
        self.pending.remove(&from);
        if self.phase == Phase::Hello && self.seeds.is_usable(roster.me().address()) {
            self.knock(now.mono, roster, rng);
        } else if !self.seeds.is_usable(roster.me().address()) {
            match self.phase {
                Phase::Hello if roster.living() == 1 => self.found(),
                Phase::Founder | Phase::Joined => self.finish(roster.living() > 1),
                _ => {}
            }
        }
    }

    /// One HELLO of an attempt, or of a founder that is alone; one that is no longer alone pulls instead.
    fn knock(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        self.knock_at = Mono::FAR;
        let me = roster.me().address();
        let attempt = self.phase == Phase::Hello || self.end_due && now < self.end_at;
        if !attempt && self.phase == Phase::Founder && self.pull_from_any(now, roster, rng) {
            return;
        }
        if !attempt && self.phase != Phase::Founder {
            return;
        }
        let to = if self.phase == Phase::Hello {
            let other = |rng: &mut Rng| {
                let id = *roster.pick_living(rng, 1).first()?;
                Some(roster.profile(id)?.address)
            };
            self.seeds.pick(me, rng).or_else(|| other(rng))
        } else {
            self.seeds.pick_stray(roster, rng)
        };
        if attempt {
            self.knock_at = now + HELLO_GAP_MIN + rng.up_to(HELLO_GAP_SPREAD);
        } else {
            self.knock_gap *= 2;
            if self.knock_gap < self.contact_period {
                self.knock_at = now + rng.jitter(self.knock_gap, 0.2);
            }
        }
        if let Some(to) = to {
            self.knock_seed(now, to, roster);
        }
    }

    /// HELLO to a seed; where earlier ones had no answer a PING follows in a datagram of its own, whose CHALLENGE comes to the source address, so that
    /// an advertised address that nobody reaches can be told from a seed that is not there (`J6`).
    fn knock_seed(&mut self, now: Mono, to: SocketAddr, roster: &Roster) {
        let silent = self.seeds.note_try(now, to);
        self.send_hello(now, to, Why::Seed, false, roster);
        if silent {
            self.ping = Some((now + PING_AFTER, to));
        }
    }

    fn ping_seed(&mut self, now: Mono, rng: &mut Rng) {
        if let Some((_, to)) = self.ping.take_if(|(at, _)| *at <= now)
            && self.pending.get(&to).is_some_and(|p| p.answers == 0)
        {
            let message = Message::Ping { seq: rng.u32(), origin: None };
            self.actions.push_back(Action::SendTo { to, message });
        }
    }

    fn send_hello(&mut self, now: Mono, to: SocketAddr, why: Why, spread: bool, roster: &Roster) {
        let before = self.pending.get(&to);
        let cookie = before.and_then(|p| p.cookie).filter(|(_, at)| now.since(*at) < COOKIE_FOR);
        let target = before.map_or(to, |p| p.target);
        self.put_pending(now, to, Pending { at: now, why, spread, answers: 0, cookie, target }, roster);
    }

    fn put_pending(&mut self, now: Mono, to: SocketAddr, hello: Pending, roster: &Roster) {
        if self.pending.len() >= PENDING_MAX && !self.pending.contains_key(&to) {
            self.pending.retain(|_, p| now.since(p.at) < PENDING_FOR);
            let oldest = self.pending.iter().min_by_key(|(_, p)| p.at).map(|(a, _)| *a);
            if let Some(oldest) = oldest.filter(|_| self.pending.len() >= PENDING_MAX) {
                self.pending.remove(&oldest);
            }
        }
        self.push_hello(to, hello.cookie.map_or(0, |(c, _)| c), hello.spread, roster);
        self.pending.insert(to, hello);
    }

    fn push_hello(&mut self, to: SocketAddr, cookie: u64, spread: bool, roster: &Roster) {
        self.metrics.hellos_sent += 1;
        let message = Message::Hello { cookie, spread, member: roster.me() };
        self.actions.push_back(Action::SendTo { to, message });
    }

    /// A CHALLENGE: answers with HELLO if I had sent one there, or if it comes from a known member (`J3`).
    pub fn handle_challenge(
        &mut self,
        now: Now,
        from: SocketAddr,
        sender: MemberId,
        cookie: u64,
        roster: &Roster,
    ) {
        if self.phase == Phase::Stopped || sender == roster.my_id() {
            return;
        }
        let now = now.mono;
        if self.phase == Phase::Hello {
            self.found_at = self.found_at.max(self.hello_since + self.join_timeout * PATIENCE);
        }
        let alone = self.phase == Phase::Founder && roster.living() == 1;
        if alone && self.eager > 0 && self.knock_at > now + ALONE_GAP {
            // A seed is there: the back-off of a founder that is alone begins anew.
            self.eager -= 1;
            self.knock_gap = ALONE_GAP;
            self.knock_at = now + ALONE_GAP;
        }
        if let Some(p) = self.pending.get_mut(&from).filter(|p| now.since(p.at) < PENDING_FOR) {
            if p.answers < ANSWERS_MAX {
                p.answers += 1;
                p.cookie = Some((cookie, now));
                let (target, spread) = (p.target, p.spread);
                self.seeds.note_challenge(target);
                self.push_hello(from, cookie, spread, roster);
            }
            return;
        }
        if let Some(address) = roster.profile(sender).map(|p| p.address).filter(|_| roster.is_living(sender))
        {
            self.answer_challenge(now, address, address, Why::Readmit, cookie, roster);
            return;
        }
        // A new process at the address of a member I know: what I had sent was for its predecessor.
        if now.since(self.stranger_answered) >= super::STRANGER_GAP && roster.is_at(from) {
            self.stranger_answered = now;
            self.answer_challenge(now, from, from, Why::Readmit, cookie, roster);
            return;
        }
        // A seed that answers from another address than I wrote to: one such per HELLO.
        let recent =
            |p: &Pending| p.why == Why::Seed && p.answers == 0 && now.since(p.at) < self.join_timeout;
        let known = self.pending.iter().find(|(_, p)| recent(p)).map(|(at, _)| *at);
        if let Some(p) = known.and_then(|at| self.pending.get_mut(&at)) {
            p.answers = 1;
            let target = p.target;
            self.seeds.note_challenge(target);
            self.answer_challenge(now, from, target, Why::Seed, cookie, roster);
        }
    }

    /// HELLO to a challenger to whom none was under way.
    fn answer_challenge(
        &mut self,
        now: Mono,
        to: SocketAddr,
        target: SocketAddr,
        why: Why,
        cookie: u64,
        roster: &Roster,
    ) {
        let cookie = Some((cookie, now));
        let hello = Pending { at: now, why, spread: false, answers: ANSWERS_MAX, cookie, target };
        self.put_pending(now, to, hello, roster);
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
        let asked = [from, member.address()].into_iter().find_map(|a| {
            let p = self.pending.get(&a)?;
            (now.mono.since(p.at) < PENDING_FOR).then_some((a, p.why, p.target))
        });
        let Some((address, why, target)) = asked.filter(|_| member.id() != roster.my_id()) else {
            return WelcomeVerdict::Ignored;
        };
        if self.phase == Phase::Stopped {
            return WelcomeVerdict::Ignored;
        }
        match why {
            Why::Seed => {
                self.seeds.note_answer(target, member.id());
                let alone = self.phase == Phase::Founder && roster.living() == 1;
                if self.phase == Phase::Hello || alone {
                    self.begin_pull(now.mono, member, true, peers, roster, rng);
                }
                if self.pending.get(&address).is_some_and(|p| p.why == Why::Seed) {
                    self.pending.remove(&address);
                }
                if self.is_joining() {
                    return WelcomeVerdict::Join;
                }
                self.finish(true);
                WelcomeVerdict::Contact
            }
            Why::Source => {
                self.pending.remove(&address);
                let Some(pull) = self.pull.as_mut() else { return WelcomeVerdict::Readmitted };
                if [from, member.address()].contains(&pull.source.address) && !pull.source.admitted {
                    pull.source.admitted = true;
                    // A new process answered: it is not to be asked again under its former id.
                    if let Some(known) = self.welcomed_by.as_mut().filter(|w| w.id == pull.source.id) {
                        known.id = member.id();
                    }
                    pull.source.id = member.id();
                    self.ask(now.mono, roster);
                }
                WelcomeVerdict::Join
            }
            Why::Readmit => {
                self.pending.remove(&address);
                if self.is_joining() { WelcomeVerdict::Join } else { WelcomeVerdict::Readmitted }
            }
        }
    }

    fn begin_pull(
        &mut self,
        now: Mono,
        seed: &Member,
        admitted: bool,
        peers: &[(MemberId, SocketAddr)],
        roster: &Roster,
        rng: &mut Rng,
    ) {
        self.phase = Phase::PullingMembers;
        let mine = |&(id, address): &(MemberId, SocketAddr)| {
            id == roster.my_id() || address == roster.me().address()
        };
        self.peers = peers.iter().take(6).filter(|p| !mine(p) && p.0 != seed.id()).copied().collect();
        let welcomed = Source { id: seed.id(), address: seed.address(), admitted, stream_failed: false };
        self.welcomed_by = Some(welcomed);
        let source = match self.peers.get(rng.below(self.peers.len())) {
            Some(&(id, address)) => Source { id, address, admitted: false, stream_failed: false },
            None => {
                if admitted {
                    self.send_hello(now, welcomed.address, Why::Source, true, roster);
                }
                welcomed
            }
        };
        self.pull = Some(Pull::new(Tree::Members, source));
        self.ask(now, roster);
    }

    /// Who knows others was let in, and only did not hear so: it pulls from one of them.
    fn pull_from_any(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) -> bool {
        let other = roster.pick_living(rng, 1).first().and_then(|&id| roster.get(id));
        if let Some(other) = &other {
            self.begin_pull(now, other, false, &[], roster, rng);
        }
        other.is_some()
    }

    /// Joins again from this member on, under a new identity (`S7`): HELLO with `spread`, both lists.
    pub fn pull_again(&mut self, now: Now, from: &Member, roster: &Roster, rng: &mut Rng) {
        self.pending.clear();
        self.contacts = [Mono::FAR; 2];
        self.knock_at = Mono::FAR;
        self.metrics.renewals += 1;
        // What was read from a disk is not all here any more.
        self.holds_entries = false;
        self.begin_pull(now.mono, from, false, &[], roster, rng);
    }

    /// Sends what the pull under way needs next.
    fn ask(&mut self, now: Mono, roster: &Roster) {
        let Some(pull) = self.pull.as_mut() else { return };
        let (tree, source, cursor) = (pull.tree, pull.source, pull.cursor());
        let streaming = source.admitted && pull.wants_stream();
        pull.asked(now, streaming);
        if !source.admitted {
            self.send_hello(now, source.address, Why::Source, true, roster);
            return;
        }
        self.metrics.pulls_sent += 1;
        self.actions.push_back(if streaming {
            Action::PullStream { tree, to: source.id, address: source.address, cursor }
        } else {
            Action::SendTo { to: source.address, message: Message::Pull { tree, cursor } }
        });
    }

    /// A PAGE, from a datagram or a stream.
    pub fn handle_page(&mut self, now: Now, from: MemberId, page: &Page, roster: &Roster) -> Progress {
        if self.pull.as_ref().is_some_and(|p| p.is_refused(from, page)) {
            self.turn_away(now.mono, roster);
            return Progress::Ignored;
        }
        let Some(pull) = self.pull.as_mut().filter(|p| p.is_mine(from, page)) else {
            return Progress::Ignored;
        };
        self.metrics.pages_received += 1;
        let ask = pull.take(now.mono, page);
        if pull.is_complete() {
            let (tree, source) = (pull.tree, pull.source);
            self.actions.push_back(Action::PullDone { tree });
            self.pulled(now.mono, tree, source, roster);
            return Progress::Complete;
        }
        if ask {
            self.ask(now.mono, roster);
        }
        Progress::More
    }

    /// My source joins itself and has no list: two others are asked, then whoever welcomed me. Where all are new nobody has one,
    /// and what there is comes by anti-entropy.
    fn turn_away(&mut self, now: Mono, roster: &Roster) {
        let Some(pull) = self.pull.as_mut() else { return };
        pull.refusals += 1;
        let fit = |id: MemberId| id != pull.source.id && !pull.tried.contains(&id);
        let peer = self
            .peers
            .iter()
            .find(|p| fit(p.0) && pull.refusals < REFUSALS_MAX)
            .map(|&(id, address)| Source { id, address, admitted: false, stream_failed: false });
        match peer.or_else(|| self.welcomed_by.filter(|s| fit(s.id))) {
            Some(next) => {
                pull.turn_to(next);
                self.ask_again(now, roster);
            }
            None => {
                self.metrics.pulls_given_up += 1;
                let (tree, source) = (pull.tree, pull.source);
                self.pulled(now, tree, source, roster);
            }
        }
    }

    /// A list is complete or given up.
    fn pulled(&mut self, now: Mono, tree: Tree, source: Source, roster: &Roster) {
        self.pull = None;
        match tree {
            Tree::Members => {
                self.actions.push_back(Action::StartDetector);
                self.contacts = CONTACTS_AFTER.map(|after| now + after);
                self.finish(true);
                if self.holds_entries {
                    self.phase = Phase::Joined;
                    self.actions.push_back(Action::Joined);
                    return;
                }
                self.phase = Phase::PullingEntries;
                let source = Source { stream_failed: false, ..source };
                self.pull = Some(Pull::new(Tree::Entries, source));
                self.ask(now, roster);
            }
            Tree::Entries => {
                self.phase = Phase::Joined;
                self.actions.push_back(Action::Joined);
            }
        }
    }

    /// A PULL over a stream was refused (`busy`) or broke: asked again from the first gap after the retry wait; if it broke, in
    /// datagrams.
    pub fn handle_pull_failed(&mut self, now: Now, tree: Tree, busy: bool) {
        if let Some(pull) = self.pull.as_mut().filter(|p| p.tree == tree && p.streaming) {
            pull.streaming = false;
            pull.source.stream_failed = !busy;
            pull.wait(now.mono);
        }
    }

    /// The member died, left or was retired: its list is asked of another at once. Whoever answers at its address now is a new
    /// run, whose pages are not of this list, and must let me in first.
    pub fn handle_gone(&mut self, now: Now, id: MemberId) {
        if let Some(pull) = self.pull.as_mut().filter(|p| p.source.id == id) {
            pull.source.admitted = false;
            pull.tries = TRIES_MAX;
            pull.retry_at = now.mono;
        }
    }

    fn retry_pull(&mut self, now: Mono, roster: &Roster, rng: &mut Rng) {
        let Some(pull) = self.pull.as_mut().filter(|p| p.retry_at <= now) else { return };
        self.metrics.pulls_repeated += 1;
        pull.tries += 1;
        pull.tries_total += 1;
        let tries_max = if pull.tree == Tree::Members { MEMBER_TRIES_MAX } else { ENTRY_TRIES_MAX };
        if pull.tries_total >= tries_max {
            self.metrics.pulls_given_up += 1;
            let (tree, source) = (pull.tree, pull.source);
            self.pulled(now, tree, source, roster);
            return;
        }
        if pull.tries >= TRIES_MAX {
            let fit = |id: MemberId| id != pull.source.id && !pull.tried.contains(&id);
            let peer = self.peers.iter().find(|p| fit(p.0)).copied();
            let peer = peer.or_else(|| {
                let id = *roster.pick(rng, 1, fit).first()?;
                Some((id, roster.profile(id)?.address))
            });
            let next = match peer {
                Some((id, address)) => Some(Source { id, address, admitted: false, stream_failed: false }),
                None => self.welcomed_by.filter(|s| fit(s.id)),
            };
            let same = Source { stream_failed: false, ..pull.source };
            pull.turn_to(next.unwrap_or(same));
        }
        self.ask_again(now, roster);
    }

    /// Asks a source that may have been replaced meanwhile: the new run at its address, whose pages carry another id, must let me
    /// in first.
    fn ask_again(&mut self, now: Mono, roster: &Roster) {
        if let Some(pull) = self.pull.as_mut() {
            pull.source.admitted &= roster.is_living(pull.source.id);
        }
        self.ask(now, roster);
    }

    /// `J4`: queues a HELLO to a seed address that belongs to no living member, with probability 1/4, always if nobody else
    /// lives. Returns the address.
    pub fn contact_seed(&mut self, now: Now, roster: &Roster, rng: &mut Rng) -> Option<SocketAddr> {
        if !matches!(self.phase, Phase::Founder | Phase::Joined) {
            return None;
        }
        let to = self.seeds.pick_stray(roster, rng)?;
        if roster.living() > 1 && !rng.chance(0.25) {
            return None;
        }
        self.knock_seed(now.mono, to, roster);
        Some(to)
    }

    /// When [`Join::handle_timeout`] is due.
    pub fn deadline(&self) -> Mono {
        let phase = match self.phase {
            Phase::Stopped => return Mono::FAR,
            Phase::Idle => self.hello_since,
            Phase::Hello => self.found_at,
            _ => Mono::FAR,
        };
        let end = if self.end_due { self.end_at } else { Mono::FAR };
        let pull = self.pull.as_ref().map_or(Mono::FAR, |p| p.retry_at);
        let seeds = self.seeds.deadline(self.join_timeout);
        let ping = self.ping.map_or(Mono::FAR, |(at, _)| at);
        let times = [
            ping,
            phase,
            end,
            pull,
            seeds,
            self.knock_at,
            self.contacts[0],
            self.contacts[1],
            self.names.deadline(),
        ];
        times.into_iter().min().unwrap_or(Mono::FAR)
    }

    /// Does all that is due.
    pub fn handle_timeout(&mut self, now: Now, roster: &Roster, rng: &mut Rng) {
        let at = now.mono;
        match self.phase {
            Phase::Stopped => return,
            Phase::Idle if self.hello_since <= at => self.found(),
            _ => {}
        }
        let over = self.phase == Phase::Hello && self.found_at <= at;
        if over && !self.pull_from_any(at, roster, rng) {
            self.found();
        }
        if self.end_due && self.end_at <= at {
            let joined = !matches!(self.phase, Phase::Idle | Phase::Hello | Phase::Founder);
            self.finish(joined);
        }
        let failures = self.seeds.due(at, self.join_timeout, roster);
        self.report(failures);
        if self.knock_at <= at {
            self.knock(at, roster, rng);
        }
        self.ping_seed(at, rng);
        self.retry_pull(at, roster, rng);
        for contact in &mut self.contacts {
            if *contact <= at {
                *contact = Mono::FAR;
                self.actions.push_back(Action::ContactPartners);
            }
        }
        self.handle_names_timeout(now, roster);
    }
}
