//! Several members over a simulated network: rosters, joins and transfers, with just enough hall around them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Budget, Class};
use crate::config::{Config, Seed};
use crate::entry::{Entry, Version};
use crate::join::{Action, HOP_REFUSED, HelloVerdict, Join, Phase, Progress, WelcomeVerdict};
use crate::member::{Generation, Incarnation, Liveness, Member, MemberId, Profile};
use crate::output::StreamId;
use crate::record::{Record, RecordHasher, RumorId, Tree};
use crate::rng::Rng;
use crate::roster::{Merged, Roster};
use crate::time::{Mono, Now, Stamp, Wall};
use crate::transfer::{self, Delivered, Transfer};
use crate::wire::{Message, Page, message_bytes};

pub(super) const LATENCY: Duration = Duration::from_micros(500);
const START_MS: u64 = 1_700_000_000_000;

pub(super) fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 7946))
}

pub(super) fn member(name: &str, generation: u64, id: u64, address: SocketAddr) -> Member {
    let profile = Profile {
        name: name.into(),
        generation: Generation(generation),
        id: MemberId(id),
        revision: 0,
        address,
        tags: [("zone".to_owned(), "a".to_owned())].into(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive }
}

pub(super) fn seed(address: SocketAddr) -> Seed {
    Seed { name: address.to_string(), addresses: Ok(vec![address]) }
}

pub(super) struct Peer {
    /// Where its socket is; its record may say otherwise.
    pub(super) bound: SocketAddr,
    pub(super) up: bool,
    pub(super) accepts_streams: bool,
    pub(super) island: u8,
    pub(super) roster: Roster,
    pub(super) join: Join,
    pub(super) transfer: Transfer,
    pub(super) budget: Budget,
    pub(super) rng: Rng,
    pub(super) entries: BTreeMap<u64, Arc<Entry>>,
    pub(super) log: Vec<(Mono, Action)>,
    pub(super) contacts: usize,
    pub(super) readmitted: usize,
    pub(super) contact_every: Option<Duration>,
    contact_at: Mono,
    next_odd: u64,
    pub(super) pages: Vec<(u64, bool)>,
}

impl Peer {
    pub(super) fn count(&self, fit: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|(_, a)| fit(a)).count()
    }
    pub(super) fn at(&self, fit: impl Fn(&Action) -> bool) -> Option<Duration> {
        self.log.iter().find(|(_, a)| fit(a)).map(|(at, _)| at.since(Mono(0)))
    }
    pub(super) fn phase(&self) -> Phase {
        self.join.phase()
    }
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = |a: &Action| match a {
            Action::SeedFailed { error, .. } => Some(error.clone()),
            _ => None,
        };
        self.log.iter().filter_map(|(_, a)| failed(a)).collect()
    }
}

pub(super) enum Event {
    Datagram { to: SocketAddr, from: SocketAddr, sender: MemberId, message: Message },
    Open { by: usize, stream: StreamId, to: SocketAddr },
    Frame { at: usize, stream: StreamId, sender: MemberId, message: Message },
    Writable { at: usize, stream: StreamId },
    Closed { at: usize, stream: StreamId },
}

pub(super) struct World {
    pub(super) config: Config,
    pub(super) now: Now,
    pub(super) peers: Vec<Peer>,
    pub(super) loss: f64,
    /// Lose only PAGEs.
    pub(super) lose_pages_only: bool,
    /// Break a stream after so many of its frames.
    pub(super) break_after: Option<usize>,
    pub(super) frames: BTreeMap<StreamId, usize>,
    pub(super) breaks: usize,
    /// Datagrams and their bytes sent by member 0, headers and seal included.
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// New members are told to all known.
    pub(super) rumors: bool,
    pub(super) biggest: usize,
    queue: BTreeMap<(Mono, u64), Event>,
    sequence: u64,
    links: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    last_timeout: Mono,
    same_time: u32,
    rng: Rng,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            config: Config::lan(),
            now: Now { mono: Mono(0), wall: Wall(START_MS) },
            peers: Vec::new(),
            loss: 0.0,
            lose_pages_only: false,
            break_after: None,
            frames: BTreeMap::new(),
            breaks: 0,
            datagrams: 0,
            bytes: 0,
            rumors: true,
            biggest: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            links: BTreeMap::new(),
            last_timeout: Mono(0),
            same_time: 0,
            rng: Rng::from_number(seed),
        }
    }

    /// A member whose number also makes its address and id.
    pub(super) fn add(&mut self) -> usize {
        let n = self.peers.len();
        let generation = self.now.wall.0;
        self.add_as(member(&format!("m{n}"), generation, 1000 + n as u64, address(n)), address(n))
    }

    pub(super) fn add_as(&mut self, me: Member, bound: SocketAddr) -> usize {
        let n = self.peers.len();
        let mut rng = Rng::from_number(self.rng.u64());
        let hasher = RecordHasher::new("test");
        let roster = Roster::new(hasher, me, rng.u64(), 16_384, Duration::from_secs(86_400));
        let join = Join::new(&self.config, self.now, &mut rng);
        self.peers.push(Peer {
            bound,
            up: true,
            accepts_streams: true,
            island: 0,
            roster,
            join,
            transfer: Transfer::new(&self.config, self.now),
            budget: Budget::new(self.config.bytes_per_second_max, self.now.mono),
            rng,
            entries: BTreeMap::new(),
            log: Vec::new(),
            contacts: 0,
            readmitted: 0,
            contact_every: None,
            contact_at: Mono(0),
            next_odd: 1,
            pages: Vec::new(),
        });
        n
    }

    pub(super) fn start(&mut self, n: usize, seeds: Vec<Seed>) {
        let p = &mut self.peers[n];
        p.join.start(self.now, seeds, &p.roster, &mut p.rng);
        self.drain(n);
    }

    /// Gives a member entries of this many bytes each.
    pub(super) fn fill(&mut self, n: usize, count: usize, bytes: usize) {
        for i in 0..count {
            let key = format!("key{i}");
            let version = Version { stamp: Stamp(i as u64 + 1), writer: MemberId(7) };
            let value = vec![i as u8; bytes].into();
            let entry = Entry { key: key.as_bytes().into(), value, version, tombstone: false, ttl_ms: None };
            let place = self.peers[n].roster.hasher().place(key.as_bytes());
            self.peers[n].entries.insert(place, Arc::new(entry));
        }
    }

    pub(super) fn run_for(&mut self, d: Duration) {
        let until = self.now.mono + d;
        self.run_until(until, |_| false);
    }

    /// Runs until `done`, or this time has come; says whether it was done.
    pub(super) fn run_until(&mut self, until: Mono, done: impl Fn(&World) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let event = self.queue.first_key_value().map_or(Mono::FAR, |((at, _), _)| *at);
            let timer = self.peers.iter().filter(|p| p.up).map(deadline).min().unwrap_or(Mono::FAR);
            let next = event.min(timer);
            if next > until {
                self.set(until);
                return done(self);
            }
            self.set(next);
            if event <= timer {
                if let Some((_, event)) = self.queue.pop_first() {
                    self.handle(event);
                }
            } else {
                for n in 0..self.peers.len() {
                    if self.peers[n].up && deadline(&self.peers[n]) <= self.now.mono {
                        self.timeout(n);
                    }
                }
            }
        }
    }

    fn set(&mut self, to: Mono) {
        let to = to.max(self.now.mono);
        self.now = Now { mono: to, wall: Wall(START_MS + to.0 / 1_000_000) };
    }

    fn timeout(&mut self, n: usize) {
        let now = self.now;
        let p = &mut self.peers[n];
        p.join.handle_timeout(now, &p.roster, &mut p.rng);
        p.transfer.handle_timeout(now, &p.roster);
        if let Some(every) = p.contact_every.filter(|_| p.contact_at <= now.mono) {
            p.contact_at = now.mono + every;
            p.join.contact_seed(now, &p.roster, &mut p.rng);
        }
        self.drain(n);
        self.same_time = if self.last_timeout == now.mono { self.same_time + 1 } else { 0 };
        self.last_timeout = now.mono;
        assert!(self.same_time < 100, "a timer that stays due");
    }

    pub(super) fn push(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now.mono + after, self.sequence), event);
    }

    pub(super) fn send(&mut self, n: usize, to: SocketAddr, message: Message) {
        let (from, sender) = (self.peers[n].bound, self.peers[n].roster.my_id());
        let bytes = message_bytes(&message);
        if n == 0 {
            self.datagrams += 1;
            self.bytes += bytes as u64 + 64;
        }
        self.biggest = self.biggest.max(bytes);
        let fits = !self.lose_pages_only || matches!(message, Message::Page(_));
        if fits && self.rng.chance(self.loss) {
            return;
        }
        self.push(LATENCY, Event::Datagram { to, from, sender, message });
    }

    fn by_address(&self, to: SocketAddr, island: u8) -> Option<usize> {
        self.peers.iter().position(|p| p.bound == to && p.up && p.island == island)
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Datagram { to, from, sender, message } => {
                let island = self.peers.iter().find(|p| p.bound == from).map_or(0, |p| p.island);
                if let Some(n) = self.by_address(to, island) {
                    self.datagram(n, from, sender, message);
                    self.drain(n);
                }
            }
            Event::Open { by, stream, to } => {
                let other = self.by_address(to, self.peers[by].island);
                match other.filter(|&o| self.peers[o].accepts_streams) {
                    Some(other) => {
                        let theirs = StreamId(self.peers[other].next_odd);
                        self.peers[other].next_odd += 2;
                        self.links.insert((by, stream), (other, theirs));
                        self.links.insert((other, theirs), (by, stream));
                        let from = self.peers[by].bound;
                        self.peers[other].transfer.handle_accepted(now, theirs, from);
                        self.peers[by].transfer.handle_opened(now, stream);
                        self.drain(other);
                        self.drain(by);
                    }
                    None => self.handle(Event::Closed { at: by, stream }),
                }
            }
            Event::Writable { at, stream } => {
                self.peers[at].transfer.handle_writable(now, stream);
                self.drain(at);
            }
            Event::Closed { at, stream } => {
                let p = &mut self.peers[at];
                p.transfer.handle_closed(now, stream, &p.roster);
                self.drain(at);
            }
            Event::Frame { at, stream, sender, message } => {
                if !self.peers[at].up || !self.links.contains_key(&(at, stream)) {
                    return;
                }
                let p = &mut self.peers[at];
                if p.roster.liveness(sender).is_none() {
                    p.transfer.refuse(now, stream, &p.roster);
                } else {
                    match p.transfer.handle_message(now, stream, sender, message, &p.roster) {
                        Delivered::Page(page) => self.page(at, sender, &page, true),
                        Delivered::Nothing => {}
                        other => panic!("{other:?}"),
                    }
                }
                self.drain(at);
            }
        }
    }

    fn merge(&mut self, n: usize, record: &Member) -> Merged {
        let now = self.now;
        let p = &mut self.peers[n];
        let merged = p.roster.merge(now, record);
        match merged {
            Merged::MyName => p.join.handle_my_name(now, record, &p.roster),
            Merged::Replaced { old, .. } => p.join.handle_gone(now, old),
            _ => {}
        }
        merged
    }

    fn page(&mut self, n: usize, from: MemberId, page: &Page, stream: bool) {
        let now = self.now;
        let p = &mut self.peers[n];
        if p.join.handle_page(now, from, page, &p.roster) == Progress::Ignored {
            return;
        }
        p.pages.push((page.from, stream));
        for record in &page.records {
            match record {
                Record::Member(m) => drop(self.merge(n, m)),
                Record::Entry(e) => {
                    let place = self.peers[n].roster.hasher().place(&e.key);
                    self.peers[n].entries.insert(place, e.clone());
                }
            }
        }
    }

    fn admit(&mut self, n: usize, record: &Member, spread: bool) {
        self.merge(n, record);
        let now = self.now;
        let p = &mut self.peers[n];
        if p.roster.get(record.id()).is_none() {
            return;
        }
        if let Some(welcome) = p.join.welcome(now, record.id(), &p.roster, &mut p.rng) {
            self.send(n, record.address(), welcome);
        }
        if spread {
            self.flood(n, record);
        }
    }

    /// A rumor of sorts: to all known.
    fn flood(&mut self, n: usize, record: &Member) {
        if !self.rumors {
            return;
        }
        let p = &self.peers[n];
        let known = p.roster.iter().filter(|m| m.id() != p.roster.my_id());
        let all: Vec<SocketAddr> = known.map(|m| m.address()).collect();
        for to in all {
            self.send(n, to, Message::member(0, record.clone()));
        }
    }

    fn datagram(&mut self, n: usize, from: SocketAddr, sender: MemberId, message: Message) {
        let now = self.now;
        let p = &mut self.peers[n];
        if sender == p.roster.my_id() {
            p.join.handle_own(now, from, &p.roster, &mut p.rng);
            return;
        }
        p.join.handle_heard(now, sender);
        let known = p.roster.liveness(sender).is_some();
        match message {
            Message::Hello { cookie, spread, member } => {
                match p.join.handle_hello(now, cookie, spread, &member, &p.roster, &mut p.rng) {
                    HelloVerdict::Accept { spread } => self.admit(n, &member, spread),
                    HelloVerdict::Reply { message } => self.send(n, member.address(), message),
                    HelloVerdict::Drop => {}
                }
            }
            Message::Challenge { cookie } => p.join.handle_challenge(now, from, sender, cookie, &p.roster),
            Message::Welcome { member, peers } => {
                let verdict = p.join.handle_welcome(now, from, &member, &peers, &p.roster, &mut p.rng);
                p.contacts += usize::from(verdict == WelcomeVerdict::Contact);
                p.readmitted += usize::from(verdict == WelcomeVerdict::Readmitted);
                if verdict != WelcomeVerdict::Ignored {
                    self.merge(n, &member);
                }
            }
            Message::Record { hop: HOP_REFUSED, record: Record::Member(m) } => {
                p.join.handle_refusal(now, from, &m, &p.roster);
            }
            _ if !known => {
                if let Some(challenge) = p.join.challenge(now, from, sender) {
                    self.send(n, from, challenge);
                }
            }
            Message::Record { record: Record::Member(m), .. } => {
                let news = self.merge(n, &m) == Merged::New;
                if news {
                    self.flood(n, &m);
                }
            }
            Message::Ping { seq, .. } => {
                let ack = Message::Ack { seq, flags: Default::default(), origin: None };
                let to = p.roster.profile(sender).unwrap().address;
                self.send(n, to, ack);
            }
            Message::Pull { tree, cursor } => {
                let allowance = p.budget.available(now.mono, Class::Members);
                let pages = p.join.serve_pull(now, tree, cursor, allowance, &p.roster, &|_| None);
                let to = p.roster.profile(sender).unwrap().address;
                for page in pages {
                    let bytes = message_bytes(&page) + 36 + 28;
                    assert!(self.peers[n].budget.try_spend(now.mono, Class::Members, bytes));
                    self.send(n, to, page);
                }
            }
            Message::Page(page) => self.page(n, sender, &page, false),
            _ => {}
        }
    }

    pub(super) fn drain(&mut self, n: usize) {
        let now = self.now;
        loop {
            let p = &mut self.peers[n];
            if let Some(action) = p.join.poll_action() {
                match &action {
                    Action::SendTo { to, message } => {
                        let (to, message) = (*to, message.clone());
                        self.send(n, to, message);
                    }
                    Action::PullStream { tree, address, cursor, .. } => {
                        p.transfer.pull(now, *tree, *address, *cursor, &p.roster);
                    }
                    Action::Admit { member, spread } => {
                        let (member, spread) = (member.clone(), *spread);
                        self.admit(n, &member, spread);
                    }
                    Action::Renew { generation } => {
                        let id = MemberId(p.rng.u64().max(1));
                        p.roster.renew_me(now.mono, *generation, id);
                    }
                    _ => {}
                }
                self.peers[n].log.push((now.mono, action));
                continue;
            }
            let mut source = Served { now, join: &mut p.join, roster: &p.roster, entries: &p.entries };
            let Some(action) = p.transfer.poll_action(now, &mut p.budget, &mut source) else { return };
            match action {
                transfer::Action::Open { stream, to } => {
                    self.push(LATENCY, Event::Open { by: n, stream, to })
                }
                transfer::Action::SendFrame { stream, message } => self.frame(n, stream, message),
                transfer::Action::Close { stream } => {
                    if let Some((at, stream)) = self.unlink(n, stream) {
                        self.push(LATENCY, Event::Closed { at, stream });
                    }
                }
                transfer::Action::PullFailed { tree, busy } => p.join.handle_pull_failed(now, tree, busy),
                transfer::Action::Began { .. }
                | transfer::Action::GaveUp { .. }
                | transfer::Action::SendFailed { .. } => {}
            }
        }
    }

    fn unlink(&mut self, n: usize, stream: StreamId) -> Option<(usize, StreamId)> {
        let other = self.links.remove(&(n, stream))?;
        self.links.remove(&other);
        Some(other)
    }

    fn frame(&mut self, n: usize, stream: StreamId, message: Message) {
        let Some(&(at, theirs)) = self.links.get(&(n, stream)) else { return };
        let sent = self.frames.entry(stream).or_default();
        *sent += 1;
        if self.break_after.is_some_and(|after| *sent > after) {
            *sent = 0;
            self.breaks += 1;
            self.unlink(n, stream);
            self.push(LATENCY, Event::Closed { at: n, stream });
            self.push(LATENCY, Event::Closed { at, stream: theirs });
            return;
        }
        let sender = self.peers[n].roster.my_id();
        self.push(LATENCY, Event::Frame { at, stream: theirs, sender, message });
        self.push(LATENCY, Event::Writable { at: n, stream });
    }

    /// Members `ids` all alive in the view of `n`, and nobody else?
    pub(super) fn sees(&self, n: usize, ids: impl Iterator<Item = usize>) -> bool {
        let view: BTreeSet<MemberId> = self.peers[n].roster.living_ids().collect();
        view == ids.map(|m| self.peers[m].roster.my_id()).collect()
    }

    /// Members that `n` knows, those that they know, and so on.
    pub(super) fn reached_from(&self, n: usize) -> BTreeSet<MemberId> {
        let mut reached = BTreeSet::from([self.peers[n].roster.my_id()]);
        loop {
            let views = self.peers.iter().filter(|p| reached.contains(&p.roster.my_id()));
            let next: BTreeSet<MemberId> = views.flat_map(|p| p.roster.living_ids()).collect();
            if next == reached {
                return reached;
            }
            reached = next;
        }
    }

    pub(super) fn queue_is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

fn deadline(p: &Peer) -> Mono {
    let contact = if p.contact_every.is_some() { p.contact_at } else { Mono::FAR };
    p.join.deadline().min(p.transfer.deadline()).min(contact)
}

struct Served<'a> {
    now: Now,
    join: &'a mut Join,
    roster: &'a Roster,
    entries: &'a BTreeMap<u64, Arc<Entry>>,
}

impl transfer::Source for Served<'_> {
    fn record(&mut self, _: RumorId) -> Option<(u8, Record)> {
        None
    }
    fn page(&mut self, tree: Tree, from: u64, bytes_max: usize) -> Page {
        if tree == Tree::Members {
            return self.join.members_page(self.now, from, bytes_max, self.roster, &|_| None);
        }
        let mut page =
            Page { tree, from, next: u64::MAX, last: true, records: Vec::new(), claims: Vec::new() };
        let mut bytes = 0;
        for (&place, entry) in self.entries.range(from..) {
            bytes += entry.key.len() + entry.value.len() + 32;
            if bytes > bytes_max && !page.records.is_empty() {
                (page.next, page.last) = (place, false);
                break;
            }
            page.records.push(Record::Entry(entry.clone()));
        }
        page
    }
}
