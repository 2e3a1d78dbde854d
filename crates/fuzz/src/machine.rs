//! Drives [`Gossip`] as a host would, by a script of arbitrary bytes, and holds it to its promises:
//!
//! - nothing panics;
//! - bytes that do not decode, or of another cluster, change neither `members()` nor `root()`;
//! - outputs end with `Wait`, and after a timeout at a time later than now;
//! - what it sends decodes and keeps within the limits of datagrams and frames.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::member::{Generation, Incarnation, Liveness, Member, MemberId, Profile, Tags};
use hearsay_proto::output::{Event as Gossiped, StreamId};
use hearsay_proto::time::{Mono, Now, Wall};
use hearsay_proto::wire::{
    AnswerStatus, Framing, Header, Limits, Message, begin, decode, encode_message, label_hash, peek_header,
};
use hearsay_proto::{Config, Gossip, Identity, Output, Seed};

use crate::maker::{Maker, WALL_START_MS};
use crate::mutate::mutate;

/// Most outputs that one input may cause before `Wait`.
const OUTPUTS_MAX: usize = 20_000;
/// Most rows of one batch: entries, the own row, members.
const BATCH_MAX: usize = 4_096 + 1 + 1_024;
/// Most steps of one script.
const STEPS_MAX: usize = 400;
/// Most packets under way between two members; the network drops what exceeds it.
const FLIGHT_MAX: usize = 256;

/// Reads a script; beyond its end everything is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }
    fn word(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
    fn slice(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or_default();
        self.0 = rest;
        taken
    }
    fn ended(&self) -> bool {
        self.0.is_empty()
    }
}

fn ms(n: u32) -> Duration {
    Duration::from_millis(u64::from(n))
}

/// Address of the n-th member.
fn address(n: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, n.wrapping_add(1)), 7946))
}

/// A member under test: its machine, and a host's checks around it.
struct Host {
    gossip: Gossip,
    config: Config,
    deadline: Mono,
    odd: u64,
    datagrams: u64,
    frames: u64,
    deaths: u64,
    /// The batch under way to the disk of a member that has one.
    batch: Option<u64>,
}

/// What a drain brought out.
enum Out {
    Datagram(SocketAddr, Vec<u8>),
    Open(StreamId, SocketAddr),
    Frame(StreamId, Vec<u8>),
    Close(StreamId),
}

impl Host {
    fn new(n: u8, seed: u8, now: Now) -> Host {
        let mut config = Config::lan();
        config.label = "fuzz".into();
        config.limits.value_bytes_max = 4_096;
        let identity = Identity {
            name: format!("m{n}"),
            generation_stored: None,
            address: address(n),
            tags: [("role".to_owned(), "fuzz".to_owned())].into(),
        };
        let mut bytes = [seed; 32];
        bytes[0] = n;
        match Gossip::new(config.clone(), identity, bytes, now) {
            Ok(mut gossip) => {
                if n.is_multiple_of(2) {
                    gossip.keep(now);
                }
                let deadline = Mono::FAR;
                Host { gossip, config, deadline, odd: 1, datagrams: 0, frames: 0, deaths: 0, batch: None }
            }
            Err(error) => panic!("the identity is valid, yet: {error}"),
        }
    }

    fn limits(&self) -> Limits {
        Limits { value_bytes_max: self.config.limits.value_bytes_max }
    }

    /// Would this be refused before any state is looked at?
    fn foreign(&self, plain: &[u8], framing: Framing) -> bool {
        decode(plain, &self.limits(), framing)
            .map_or(true, |decoded| decoded.header.label != label_hash(&self.config.label))
    }

    fn unchanged(&mut self, plain: &[u8], framing: Framing, input: impl FnOnce(&mut Gossip)) {
        let before = self
            .foreign(plain, framing)
            .then(|| (self.gossip.members(), self.gossip.root(), self.gossip.len()));
        input(&mut self.gossip);
        if let Some((members, root, len)) = before {
            assert_eq!(self.gossip.members(), members, "foreign bytes change no member");
            assert_eq!(self.gossip.root(), root, "foreign bytes change no root");
            assert_eq!(self.gossip.len(), len, "foreign bytes change no key");
        }
    }

    fn datagram(&mut self, now: Now, from: SocketAddr, plain: &[u8]) {
        let header = peek_header(plain).ok().filter(|_| !self.foreign(plain, Framing::Datagram));
        let known = header.is_some_and(|h| self.gossip.members().iter().any(|m| m.id() == h.sender));
        self.datagrams += u64::from(known);
        self.unchanged(plain, Framing::Datagram, |g| g.handle_datagram(now, from, plain));
    }

    fn frame(&mut self, now: Now, stream: StreamId, plain: &[u8]) {
        self.frames += u64::from(!self.foreign(plain, Framing::Frame));
        self.unchanged(plain, Framing::Frame, |g| g.handle_frame(now, stream, plain));
    }

    /// Drains to `Wait`.
    fn drain(&mut self, now: Now) -> Vec<Out> {
        let mut outs = Vec::new();
        let mut buf = Vec::new();
        for _ in 0..OUTPUTS_MAX {
            match self.gossip.poll_output(now, &mut buf) {
                Output::Transmit { to } => {
                    let bytes_max = self.config.limits.datagram_bytes_max - self.config.seal_bytes;
                    assert!(buf.len() <= bytes_max, "a datagram of {} B", buf.len());
                    self.well_formed(&buf, Framing::Datagram);
                    outs.push(Out::Datagram(to, buf.clone()));
                }
                Output::Open { stream, to } => outs.push(Out::Open(stream, to)),
                Output::Send { stream } => {
                    assert!(buf.len() <= self.config.frame_bytes_max(), "a frame of {} B", buf.len());
                    self.well_formed(&buf, Framing::Frame);
                    outs.push(Out::Frame(stream, buf.clone()));
                }
                Output::Close { stream } => outs.push(Out::Close(stream)),
                Output::Persist(batch) => {
                    assert!(self.batch.is_none(), "two batches under way");
                    assert!(batch.writes.len() <= BATCH_MAX, "a batch of {} rows", batch.writes.len());
                    self.batch = Some(batch.seq);
                }
                Output::Wait(at) => {
                    self.deadline = at;
                    return outs;
                }
                Output::Event(Gossiped::MemberSuspected(_) | Gossiped::MemberDied(_)) => self.deaths += 1,
                Output::Event(_) => {}
            }
        }
        panic!("{OUTPUTS_MAX} outputs and no Wait; the last of them: {}", self.name_last(&outs, 6))
    }

    /// What the last outputs were, for a failure's message.
    fn name_last(&self, outs: &[Out], count: usize) -> String {
        let last = outs.iter().skip(outs.len().saturating_sub(count));
        let texts: Vec<String> = last
            .map(|out| match out {
                Out::Datagram(to, bytes) => {
                    format!("to {to} {:?}", decode(bytes, &self.limits(), Framing::Datagram))
                }
                Out::Open(stream, to) => format!("open {stream:?} to {to}"),
                Out::Frame(stream, bytes) => format!("frame of {} B on {stream:?}", bytes.len()),
                Out::Close(stream) => format!("close {stream:?}"),
            })
            .collect();
        texts.join("; ")
    }

    fn well_formed(&self, plain: &[u8], framing: Framing) {
        let decoded = decode(plain, &self.limits(), framing);
        assert!(decoded.is_ok_and(|d| d.skipped == 0), "what is sent decodes: {plain:02x?}");
        assert!(!self.foreign(plain, framing), "what is sent bears the label");
    }

    fn timeout(&mut self, now: Now) -> Vec<Out> {
        if let Some(seq) = self.batch.take() {
            self.gossip.handle_persisted(seq);
        }
        self.gossip.handle_timeout(now);
        let outs = self.drain(now);
        assert!(self.deadline > now.mono, "the deadline {:?} is after {:?}", self.deadline, now.mono);
        outs
    }

    /// After an input: drain, and run timers that the input overtook.
    fn settle(&mut self, now: Now) -> Vec<Out> {
        let mut outs = self.drain(now);
        if self.deadline <= now.mono {
            outs.extend(self.timeout(now));
        }
        outs
    }

    fn accept(&mut self, now: Now, from: SocketAddr) -> StreamId {
        let stream = StreamId(self.odd);
        self.odd += 2;
        self.gossip.handle_stream_accepted(now, stream, from);
        stream
    }

    /// A command chosen by the script; faults of the caller are answered, never fatal.
    fn command(&mut self, now: Now, script: &mut Script<'_>) {
        let name = format!("m{}", script.byte() % 9);
        let key = format!("k{}", script.byte() % 16).into_bytes();
        match script.byte() % 20 {
            0 => self.gossip.leave(now),
            1 => drop(self.gossip.update_tags(now, [(name, "v".to_owned())].into())),
            2 => self.gossip.update_address(now, address(script.byte())),
            3 => drop(self.gossip.delete(now, &key)),
            4 => drop(self.gossip.set(now, script.slice(), vec![1].into(), Some(0))),
            5 => {
                let bytes = script.word() as usize % 6_000;
                drop(self.gossip.set(now, &key, vec![7; bytes].into(), None));
            }
            6 => drop(self.gossip.observe(now, &name)),
            7 => self.gossip.unobserve(now, &name),
            8 => {
                let _ = self.gossip.phi(now, &name);
                let _ = self.gossip.get(now, &key);
                let _ = self.gossip.scan(now, b"k", Some(&key), 3);
                let _ = (self.gossip.metrics(now), self.gossip.living(), self.gossip.me());
            }
            9 => self.join(now, script.byte() % 4),
            10 => drop(self.gossip.subscribe("t").and_then(|()| self.gossip.respond("q"))),
            11 => {
                self.gossip.unsubscribe("t");
                self.gossip.unrespond("q");
            }
            12 => {
                let bytes = script.word() as usize % 6_000;
                if let Ok(sent) = self.gossip.broadcast(now, "t", &vec![7; bytes]) {
                    drop(self.gossip.reached(now, sent.number, sent.version, ms(script.word() % 5_000)));
                }
            }
            13 => {
                let (bytes, timeout) = (script.word() as usize % 6_000, ms(script.word() % 5_000));
                drop(self.gossip.send(now, &name, "t", vec![7; bytes].into(), timeout));
                self.gossip.cancel_send(script.word());
            }
            14 => {
                let filter = if script.byte() < 128 { Tags::new() } else { [(name, "v".to_owned())].into() };
                drop(self.gossip.query(now, "q", script.slice(), &filter, ms(script.word() % 5_000)));
                self.gossip.cancel_query(u32::from(script.byte()));
            }
            15 => {
                let status = [AnswerStatus::Ok, AnswerStatus::None, AnswerStatus::Error];
                let status = status[usize::from(script.byte() % 3)];
                let bytes = script.word() as usize % 6_000;
                drop(self.gossip.answer(now, u64::from(script.byte() % 8), status, vec![7; bytes].into()));
            }
            16 => {
                let timeout = ms(script.word() % 5_000);
                drop(self.gossip.spread(now, &key, None, usize::from(script.byte() % 4), timeout));
                self.gossip.cancel_confirm(u64::from(script.byte()));
            }
            17 => {
                let asked = self.gossip.flush();
                assert!(self.gossip.persisted() <= asked, "nothing is saved before it was written");
            }
            _ => {
                let ttl_ms = (script.byte() < 128).then(|| u64::from(script.word() % 5_000));
                drop(self.gossip.set(now, &key, script.slice().into(), ttl_ms));
            }
        }
    }

    /// A stranger with the id and name of number `n` greets, and comes back with the cookie it is challenged with.
    fn introduce(&mut self, now: Now, n: u8) {
        let id = MemberId(u64::from(n));
        let profile = Profile {
            name: format!("m{n}").into(),
            generation: Generation(now.wall.0),
            id,
            revision: 1,
            address: address(n),
            tags: [("n".to_owned(), n.to_string())].into(),
        };
        let (profile, incarnation) = (Arc::new(profile), Incarnation(0));
        let member = Member { profile, incarnation, liveness: Liveness::Alive };
        let header = Header::new(label_hash(&self.config.label), id);
        let mut cookie = 0;
        for _ in 0..2 {
            let mut buf = Vec::new();
            begin(&header, &mut buf);
            let hello = Message::Hello { cookie, spread: n < 5, member: member.clone() };
            encode_message(&hello, &mut buf, Framing::Datagram);
            self.datagram(now, address(n), &buf);
            for out in self.settle(now) {
                let Out::Datagram(to, bytes) = out else { continue };
                let messages = decode(&bytes, &self.limits(), Framing::Datagram).map(|d| d.messages);
                if let (true, Some(Message::Challenge { cookie: given })) =
                    (to == address(n), messages.unwrap_or_default().first())
                {
                    cookie = *given;
                }
            }
        }
    }

    fn join(&mut self, now: Now, to: u8) {
        let addresses = if to == 3 { Err("no such host".into()) } else { Ok(vec![address(to)]) };
        self.gossip.join(now, vec![Seed { name: format!("seed-{to}"), addresses }]);
    }
}

/// What a script reached: how deep the harness gets is tested, too.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reach {
    /// Most members known at the end of a script to the member that knows fewest.
    pub members: usize,
    /// Keys held at the end by the member that holds fewest.
    pub keys: usize,
    /// Valid packets of known members taken in.
    pub datagrams: u64,
    /// Valid frames taken in.
    pub frames: u64,
    /// Suspicions and deaths seen.
    pub deaths: u64,
}

impl Reach {
    fn of<'a>(hosts: impl Iterator<Item = &'a Host> + Clone) -> Reach {
        Reach {
            members: hosts.clone().map(|h| h.gossip.members().len()).min().unwrap_or(0),
            keys: hosts.clone().map(|h| h.gossip.len()).min().unwrap_or(0),
            datagrams: hosts.clone().map(|h| h.datagrams).sum(),
            frames: hosts.clone().map(|h| h.frames).sum(),
            deaths: hosts.map(|h| h.deaths).sum(),
        }
    }
}

/// The clock of a script.
struct Clock(Now);

impl Clock {
    fn new() -> Clock {
        Clock(Now { mono: Mono(1_000_000_000), wall: Wall(WALL_START_MS) })
    }

    fn advance(&mut self, by: Duration) {
        self.0.mono = self.0.mono + by;
        self.0.wall.0 += by.as_millis() as u64;
    }

    /// By the script: nothing, a little, a while, a day, or a step of the wall clock alone.
    fn pass(&mut self, script: &mut Script<'_>) {
        match script.byte() {
            0..=99 => self.advance(Duration::from_millis(u64::from(script.byte()))),
            100..=199 => self.advance(Duration::from_millis(20 * u64::from(script.byte()))),
            200..=205 => self.advance(Duration::from_secs(u64::from(script.word() % 100_000))),
            206..=210 => self.0.wall.0 -= u64::from(script.byte()),
            _ => {}
        }
    }

    /// To a deadline, if it is near enough to matter.
    fn reach(&mut self, at: Mono) {
        self.advance(at.since(self.0.mono).min(Duration::from_secs(60)));
    }
}

/// A packet made by the script: arbitrary bytes, or valid ones, or damaged ones, from a small population of senders.
fn packet(script: &mut Script<'_>, framing: Framing, me: MemberId, now: Now) -> Vec<u8> {
    let how = script.byte();
    if how < 20 {
        return script.slice().to_vec();
    }
    let mut maker = Maker::new(u64::from(script.word()));
    maker.wall_ms = now.wall.0;
    let label = if how < 30 { 1 } else { label_hash("fuzz") };
    let sender = if how < 40 { me } else { maker.id() };
    let header = Header::new(label, sender);
    let mut bytes = maker.packet(&header, framing);
    if how < 90 {
        let other = maker.packet(&header, framing);
        mutate(&mut maker.rng, &mut bytes, &other);
    }
    bytes
}

/// One member under any sequence of inputs: packets of strangers, streams, timeouts, commands.
pub fn single(data: &[u8]) -> Reach {
    let mut script = Script(data);
    let mut clock = Clock::new();
    let mut host = Host::new(0, script.byte(), clock.0);
    let mut streams: Vec<StreamId> = Vec::new();
    drop(host.settle(clock.0));
    for n in 1..=script.byte() % 4 {
        host.introduce(clock.0, n);
    }
    for _ in 0..STEPS_MAX {
        if script.ended() {
            break;
        }
        clock.pass(&mut script);
        let now = clock.0;
        let from = address(script.byte() % 9);
        let stream = streams.get(usize::from(script.byte() % 4)).copied().unwrap_or(StreamId(2));
        match script.byte() % 16 {
            0..=5 => {
                let plain = packet(&mut script, Framing::Datagram, host.gossip.id(), now);
                host.datagram(now, from, &plain);
            }
            6 | 7 => {
                let plain = packet(&mut script, Framing::Frame, host.gossip.id(), now);
                host.frame(now, stream, &plain);
            }
            8 => streams.push(host.accept(now, from)),
            9 => host.gossip.handle_stream_opened(now, stream),
            10 => host.gossip.handle_stream_writable(now, stream),
            11 => host.gossip.handle_stream_closed(now, stream),
            12 => host.command(now, &mut script),
            13 => host.introduce(now, 1 + script.byte() % 8),
            _ => {
                clock.reach(host.deadline);
                drop(host.timeout(clock.0));
            }
        }
        for out in host.settle(clock.0) {
            if let Out::Open(stream, _) = out {
                streams.push(stream);
            }
        }
    }
    Reach::of([host].iter())
}

/// Something under way to a member.
enum Event {
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Opened(StreamId),
    Accepted { by: StreamId },
    Frame { stream: StreamId, bytes: Vec<u8> },
    Writable(StreamId),
    Closed(StreamId),
}

/// Two members and the network between them.
struct Pair {
    hosts: [Host; 2],
    flight: VecDeque<(usize, Event)>,
    /// The far end of each stream end.
    ends: BTreeMap<(usize, StreamId), StreamId>,
    clock: Clock,
}

impl Pair {
    fn carry(&mut self, from: usize, outs: Vec<Out>) {
        let other = 1 - from;
        for out in outs {
            match out {
                Out::Datagram(to, bytes) if to == address(other as u8) => {
                    let from = address(from as u8);
                    self.push(other, Event::Datagram { from, bytes });
                }
                Out::Open(stream, to) if to == address(other as u8) => {
                    self.flight.push_back((other, Event::Accepted { by: stream }));
                    self.flight.push_back((from, Event::Opened(stream)));
                }
                Out::Open(stream, _) => self.flight.push_back((from, Event::Closed(stream))),
                Out::Frame(stream, bytes) => {
                    if let Some(&far) = self.ends.get(&(from, stream)) {
                        self.flight.push_back((other, Event::Frame { stream: far, bytes }));
                        self.flight.push_back((from, Event::Writable(stream)));
                    }
                }
                Out::Close(stream) => {
                    if let Some(far) = self.ends.remove(&(from, stream)) {
                        self.ends.remove(&(other, far));
                        self.flight.push_back((other, Event::Closed(far)));
                    }
                }
                Out::Datagram(..) => {}
            }
        }
    }

    fn push(&mut self, to: usize, event: Event) {
        if self.flight.len() < FLIGHT_MAX {
            self.flight.push_back((to, event));
        }
    }

    fn with(&mut self, n: usize, input: impl FnOnce(&mut Host, Now)) {
        let now = self.clock.0;
        let Some(host) = self.hosts.get_mut(n) else { return };
        input(host, now);
        let outs = host.settle(now);
        self.carry(n, outs);
    }

    /// The next arrival.
    fn deliver(&mut self) {
        let Some((n, event)) = self.flight.pop_front() else { return };
        let now = self.clock.0;
        match event {
            Event::Datagram { from, bytes } => self.with(n, |h, now| h.datagram(now, from, &bytes)),
            Event::Opened(stream) => self.with(n, |h, now| h.gossip.handle_stream_opened(now, stream)),
            Event::Accepted { by } => {
                let Some(host) = self.hosts.get_mut(n) else { return };
                let stream = host.accept(now, address(1 - n as u8));
                self.ends.insert((n, stream), by);
                self.ends.insert((1 - n, by), stream);
                self.with(n, |_, _| {});
            }
            Event::Frame { stream, bytes } => self.with(n, |h, now| h.frame(now, stream, &bytes)),
            Event::Writable(stream) => self.with(n, |h, now| h.gossip.handle_stream_writable(now, stream)),
            Event::Closed(stream) => self.with(n, |h, now| h.gossip.handle_stream_closed(now, stream)),
        }
    }

    fn damage(&mut self, seed: u32) {
        let mut maker = Maker::new(u64::from(seed));
        let at = maker.rng.below(self.flight.len());
        if let Some((_, Event::Datagram { bytes, .. } | Event::Frame { bytes, .. })) = self.flight.get_mut(at)
        {
            let other = bytes.clone();
            mutate(&mut maker.rng, bytes, &other);
        }
    }

    fn new(seed: u8) -> Pair {
        let clock = Clock::new();
        let hosts = [Host::new(0, seed, clock.0), Host::new(1, seed, clock.0)];
        Pair { hosts, flight: VecDeque::new(), ends: BTreeMap::new(), clock }
    }

    /// To the earliest deadline; the member whose it is handles it.
    fn tick(&mut self) {
        let n = usize::from(self.hosts[1].deadline < self.hosts[0].deadline);
        self.clock.reach(self.hosts[n].deadline);
        let outs = self.hosts[n].timeout(self.clock.0);
        self.carry(n, outs);
    }
}

/// Two members that join, write and leave, and a network that delivers, loses, repeats, reorders and damages, all by the
/// script.
pub fn pair(data: &[u8]) -> Reach {
    let mut script = Script(data);
    let mut pair = Pair::new(script.byte());
    for n in 0..2 {
        pair.with(n, |_, _| {});
    }
    pair.with(1, |h, now| h.join(now, 0));
    for _ in 0..STEPS_MAX {
        if script.ended() {
            break;
        }
        match script.byte() {
            0..=119 => pair.deliver(),
            120..=129 => {
                if let Some((_, Event::Datagram { .. })) = pair.flight.front() {
                    pair.flight.pop_front();
                }
            }
            130..=134 => {
                if let Some((n, Event::Datagram { from, bytes })) = pair.flight.front() {
                    let copy = (*n, Event::Datagram { from: *from, bytes: bytes.clone() });
                    pair.push(copy.0, copy.1);
                }
            }
            135..=139 => {
                if let Some((n, event @ Event::Datagram { .. })) = pair.flight.pop_front() {
                    pair.push(n, event);
                }
            }
            140..=154 => pair.damage(script.word()),
            155..=184 => {
                let n = usize::from(script.byte() % 2);
                pair.with(n, |h, now| h.command(now, &mut script));
            }
            185..=194 => {
                let n = usize::from(script.byte() % 2);
                let from = address(script.byte() % 3);
                pair.with(n, |h, now| {
                    let plain = packet(&mut script, Framing::Datagram, h.gossip.id(), now);
                    h.datagram(now, from, &plain);
                });
            }
            195..=199 => pair.clock.pass(&mut script),
            _ => pair.tick(),
        }
    }
    Reach::of(pair.hosts.iter())
}
