//! A few members over an in-memory network with scripted time: what users are told, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::budget::Class;
use crate::entry::Entry;
use crate::member::{Accuser, Claim};
use crate::output::{Change, ChangeKind, Healed};
use crate::record::Record;
use crate::time::{Stamp, Wall};
use crate::wire::{Beat, Framing, HOP_COLD, Header, Message};

const START_MS: u64 = 1_700_000_000_000;
const DELAY: Duration = Duration::from_millis(1);

fn address(port: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000 + port as u16))
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

enum Parcel {
    Datagram(SocketAddr, Vec<u8>),
    Opened(StreamId),
    Accepted(StreamId, SocketAddr),
    Frame(StreamId, Vec<u8>),
    Writable(StreamId),
    Closed(StreamId),
}

struct Host {
    gossip: Gossip,
    address: SocketAddr,
    wait: Mono,
    events: Vec<Event>,
    up: bool,
    /// Own wall clock ahead of the others', ms.
    ahead_ms: u64,
    sent: usize,
    longest: usize,
    streams: BTreeMap<StreamId, (usize, StreamId)>,
}

struct World {
    mono: Mono,
    hosts: Vec<Host>,
    queue: BTreeMap<(Mono, u64), (usize, Parcel)>,
    order: u64,
    /// Pairs that hear nothing of each other.
    cut: BTreeSet<(usize, usize)>,
    /// What was sent to addresses of no host.
    stray: Vec<(SocketAddr, Vec<u8>)>,
}

fn config() -> Config {
    Config { label: "hall".into(), ..Config::lan() }
}

impl World {
    fn new() -> World {
        World {
            mono: Mono(1_000_000_000),
            hosts: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            cut: BTreeSet::new(),
            stray: Vec::new(),
        }
    }

    /// Members named a, b, c... that joined by the first, and know each other.
    fn joined(count: usize) -> World {
        let mut world = World::new();
        for name in ["a", "b", "c", "d", "e"].iter().take(count) {
            let host = world.add(name, 0);
            if host > 0 {
                world.join(host, 0);
            }
        }
        world.run(secs(8));
        assert!(world.hosts.iter().all(|h| h.gossip.living() == count), "a full view before the test");
        world
    }

    fn now_of(&self, host: usize) -> Now {
        let ms = self.mono.0 / 1_000_000;
        Now { mono: self.mono, wall: Wall(START_MS + ms + self.hosts.get(host).map_or(0, |h| h.ahead_ms)) }
    }

    fn add(&mut self, name: &str, ahead_ms: u64) -> usize {
        let host = self.hosts.len();
        let now = Now { wall: Wall(self.now_of(host).wall.0 + ahead_ms), ..self.now_of(host) };
        let identity = Identity {
            name: name.into(),
            generation_stored: None,
            address: address(host),
            tags: Tags::new(),
        };
        let gossip = Gossip::new(config(), identity, [host as u8 + 1; 32], now).unwrap();
        self.hosts.push(Host {
            gossip,
            address: address(host),
            wait: Mono(0),
            events: Vec::new(),
            up: true,
            ahead_ms,
            sent: 0,
            longest: 0,
            streams: BTreeMap::new(),
        });
        host
    }

    fn join(&mut self, host: usize, seed: usize) {
        let addresses = Ok(vec![address(seed)]);
        let seeds = vec![Seed { name: format!("seed-{seed}"), addresses }];
        self.command(host, |g, now| g.join(now, seeds));
    }

    fn command<R>(&mut self, host: usize, f: impl FnOnce(&mut Gossip, Now) -> R) -> R {
        let now = self.now_of(host);
        let result = f(&mut self.hosts[host].gossip, now);
        self.drain(host);
        result
    }

    fn put(&mut self, after: Duration, host: usize, parcel: Parcel) {
        self.order += 1;
        self.queue.insert((self.mono + after, self.order), (host, parcel));
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        self.hosts[to].up && !self.cut.contains(&(from.min(to), from.max(to)))
    }

    fn drain(&mut self, host: usize) {
        let now = self.now_of(host);
        let mut buf = Vec::new();
        loop {
            let from = self.hosts[host].address;
            match self.hosts[host].gossip.poll_output(now, &mut buf) {
                Output::Wait(until) => {
                    assert!(until > now.mono, "a deadline in the past spins");
                    self.hosts[host].wait = until;
                    return;
                }
                Output::Event(event) => self.hosts[host].events.push(event),
                Output::Transmit { to } => {
                    self.hosts[host].sent += 1;
                    self.hosts[host].longest = self.hosts[host].longest.max(buf.len());
                    match self.hosts.iter().position(|h| h.address == to) {
                        Some(to) if self.passes(host, to) => {
                            self.put(DELAY, to, Parcel::Datagram(from, buf.clone()));
                        }
                        Some(_) => {}
                        None => self.stray.push((to, buf.clone())),
                    }
                }
                Output::Open { stream, to } => {
                    match self.hosts.iter().position(|h| h.address == to).filter(|&to| self.passes(host, to))
                    {
                        Some(to) => {
                            self.order += 1;
                            let theirs = StreamId(2 * self.order + 1);
                            self.hosts[host].streams.insert(stream, (to, theirs));
                            self.hosts[to].streams.insert(theirs, (host, stream));
                            self.put(DELAY, host, Parcel::Opened(stream));
                            self.put(DELAY, to, Parcel::Accepted(theirs, from));
                        }
                        None => self.put(DELAY, host, Parcel::Closed(stream)),
                    }
                }
                Output::Send { stream } => {
                    if let Some(&(to, theirs)) = self.hosts[host].streams.get(&stream) {
                        self.put(DELAY, to, Parcel::Frame(theirs, buf.clone()));
                        self.put(DELAY, host, Parcel::Writable(stream));
                    }
                }
                Output::Persist(_) => panic!("nothing is to be saved"),
                Output::Close { stream } => {
                    if let Some((to, theirs)) = self.hosts[host].streams.remove(&stream) {
                        self.hosts[to].streams.remove(&theirs);
                        self.put(DELAY, to, Parcel::Closed(theirs));
                    }
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.mono + time;
        loop {
            let due = (0..self.hosts.len()).filter(|&h| self.hosts[h].up).min_by_key(|&h| self.hosts[h].wait);
            let timer = due.map_or(Mono::FAR, |h| self.hosts[h].wait);
            let parcel = self.queue.first_key_value().map_or(Mono::FAR, |(&(at, _), _)| at);
            if timer.min(parcel) > end {
                break;
            }
            self.mono = self.mono.max(timer.min(parcel));
            if parcel <= timer {
                let Some((_, (host, parcel))) = self.queue.pop_first() else { break };
                if self.hosts[host].up {
                    self.command(host, |g, now| deliver(g, now, parcel));
                }
            } else if let Some(host) = due {
                self.command(host, |g, now| g.handle_timeout(now));
            }
        }
        self.mono = end;
        for host in &self.hosts {
            host.gossip.audit().unwrap();
        }
    }

    fn id(&self, host: usize) -> MemberId {
        self.hosts[host].gossip.id()
    }

    /// A datagram with these messages, as if it came from this member.
    fn inject(&mut self, to: usize, sender: MemberId, from: SocketAddr, messages: &[Message]) {
        let mut plain = Vec::new();
        wire::begin(&Header::new(wire::label_hash("hall"), sender), &mut plain);
        for message in messages {
            assert!(wire::encode_message(message, &mut plain, Framing::Datagram));
        }
        self.command(to, |g, now| g.handle_datagram(now, from, &plain));
    }

    fn forget_events(&mut self) {
        self.hosts.iter_mut().for_each(|h| h.events.clear());
    }

    /// Names of events about members, in order.
    fn told(&self, host: usize) -> Vec<String> {
        self.hosts[host].events.iter().filter_map(member_event).collect()
    }

    fn changes(&self, host: usize) -> Vec<Change> {
        let changed = |e: &Event| if let Event::StateChanged(c) = e { Some(c.clone()) } else { None };
        self.hosts[host].events.iter().filter_map(changed).collect()
    }

    fn heals(&self, host: usize) -> Vec<Healed> {
        let healed = |e: &Event| if let Event::PartitionHealed(h) = e { Some(h.clone()) } else { None };
        self.hosts[host].events.iter().filter_map(healed).collect()
    }

    fn liveness(&self, host: usize, of: &str) -> Option<Liveness> {
        self.hosts[host].gossip.member(of).map(|m| m.liveness)
    }
}

fn deliver(g: &mut Gossip, now: Now, parcel: Parcel) {
    match parcel {
        Parcel::Datagram(from, plain) => g.handle_datagram(now, from, &plain),
        Parcel::Opened(stream) => g.handle_stream_opened(now, stream),
        Parcel::Accepted(stream, from) => g.handle_stream_accepted(now, stream, from),
        Parcel::Frame(stream, plain) => g.handle_frame(now, stream, &plain),
        Parcel::Writable(stream) => g.handle_stream_writable(now, stream),
        Parcel::Closed(stream) => g.handle_stream_closed(now, stream),
    }
}

fn member_event(event: &Event) -> Option<String> {
    let (what, member) = match event {
        Event::MemberJoined(m) => ("joined", m),
        Event::MemberSuspected(m) => ("suspected", m),
        Event::MemberRefuted(m) => ("refuted", m),
        Event::MemberDied(m) => ("died", m),
        Event::MemberLeft(m) => ("left", m),
        Event::MemberUpdated(m) => ("updated", m),
        Event::MemberRevived(m) => ("revived", m),
        Event::MemberForgotten(m) => ("forgotten", m),
        _ => return None,
    };
    Some(format!("{what} {}", member.name()))
}

fn value(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

fn beat(seq: u32, clock: Stamp) -> Message {
    Message::Beat(Beat { seq, clock, settle_secs: 3, once: true, deaf: false, roots: None })
}

fn decoded(plain: &[u8]) -> Vec<Message> {
    let limits = wire::Limits { value_bytes_max: 1 << 20 };
    wire::decode(plain, &limits, Framing::Datagram).unwrap().messages
}

#[test]
fn a_join_is_told_once_per_member_and_ends_once() {
    let world = World::joined(3);
    for (host, others) in [(0, ["b", "c"]), (1, ["a", "c"]), (2, ["a", "b"])] {
        let mut told = world.told(host);
        told.sort();
        assert_eq!(told, others.map(|name| format!("joined {name}")));
    }
    for host in [1, 2] {
        let ended: Vec<&Event> =
            world.hosts[host].events.iter().filter(|e| matches!(e, Event::JoinEnded { .. })).collect();
        assert_eq!(ended, [&Event::JoinEnded { joined: true }]);
    }
    let roots: BTreeSet<[u8; 32]> = world.hosts.iter().map(|h| h.gossip.root()).collect();
    assert_eq!(roots.len(), 1);
}

#[test]
fn watchers_see_set_delete_and_expiry_once_with_the_writers_name() {
    let mut world = World::joined(3);
    let first = world.command(0, |g, now| g.set(now, b"k", value("1"), None)).unwrap();
    world.command(0, |g, now| g.set(now, b"t", value("2"), Some(2_000))).unwrap();
    world.run(secs(1));
    let found = world.hosts[2].gossip.get(world.now_of(2), b"k").unwrap();
    assert_eq!((found.version, &*found.value), (first.version, &b"1"[..]));
    let second = world.command(1, |g, now| g.delete(now, b"k")).unwrap().unwrap();
    assert!(second.version > first.version);
    assert_eq!(world.command(1, |g, now| g.delete(now, b"k")), Ok(None));
    world.run(secs(3));
    for host in 0..3 {
        let kinds: Vec<(ChangeKind, Vec<u8>, Option<Arc<str>>)> =
            world.changes(host).into_iter().map(|c| (c.kind, c.entry.key.to_vec(), c.origin)).collect();
        let by = |name: &str| Some(Arc::from(name));
        let mut first = kinds[..2].to_vec();
        first.sort_by(|a, b| a.1.cmp(&b.1));
        assert_eq!(first[0], (ChangeKind::Set, b"k".to_vec(), by("a")));
        assert_eq!(first[1], (ChangeKind::Set, b"t".to_vec(), by("a")));
        assert_eq!(kinds[2], (ChangeKind::Delete, b"k".to_vec(), by("b")));
        assert_eq!(kinds[3], (ChangeKind::Expire, b"t".to_vec(), by("a")));
        assert_eq!(kinds.len(), 4);
        assert!(world.hosts[host].gossip.is_empty());
    }
}

#[test]
fn a_lifetime_ends_everywhere_at_the_stamps_time_whenever_the_entry_came() {
    let mut world = World::joined(3);
    let written = world.command(0, |g, now| g.set(now, b"t", value("1"), Some(2_500))).unwrap();
    let end_ms = written.version.stamp.wall().0 + 2_500;
    let mut ended = [None; 3];
    while ended.contains(&None) {
        for (host, ended) in ended.iter_mut().enumerate() {
            let now = world.now_of(host);
            let lives = world.hosts[host].gossip.get(now, b"t").is_some();
            if !lives && now.wall.0 >= end_ms - 2_000 && ended.is_none() {
                *ended = Some(now.wall.0);
            }
        }
        world.run(Duration::from_millis(10));
    }
    for ended in ended {
        assert!((end_ms..end_ms + 11).contains(&ended.unwrap()), "{ended:?}, due {end_ms}");
    }
    world.run(secs(4));
    let root = world.hosts[0].gossip.root();
    assert!(world.hosts.iter().all(|h| h.gossip.root() == root));
}

#[test]
fn who_leaves_is_told_as_left_and_takes_no_commands_after() {
    let mut world = World::joined(3);
    world.forget_events();
    world.command(2, |g, now| g.leave(now));
    world.command(2, |g, now| g.leave(now));
    assert_eq!(world.command(2, |g, now| g.set(now, b"k", value("1"), None)), Err(CallError::Left));
    assert_eq!(world.command(2, |g, now| g.update_tags(now, Tags::new())), Err(CallError::Left));
    let revision = world.hosts[2].gossip.me().unwrap().profile.revision;
    world.command(2, |g, now| g.update_address(now, address(99)));
    assert_eq!(world.hosts[2].gossip.me().unwrap().profile.revision, revision);
    world.run(secs(2));
    let sent = world.hosts[2].sent;
    world.join(2, 0);
    world.run(secs(30));
    assert_eq!(world.hosts[2].events, [Event::LeaveEnded]);
    assert_eq!(world.hosts[2].sent, sent, "nothing leaves one that has left");
    for host in [0, 1] {
        assert_eq!(world.told(host), ["left c"]);
        assert_eq!(world.liveness(host, "c"), Some(Liveness::Left));
        assert_eq!(world.hosts[host].gossip.living(), 2);
    }
    world.command(2, |g, now| g.handle_stream_accepted(now, StreamId(1), address(0)));
    let mut buf = Vec::new();
    let now = world.now_of(2);
    world.hosts[2].gossip.handle_stream_accepted(now, StreamId(3), address(0));
    let output = world.hosts[2].gossip.poll_output(now, &mut buf);
    assert_eq!(output, Output::Close { stream: StreamId(3) });
}

#[test]
fn leaving_alone_or_while_joining_ends_at_once_and_nothing_begins_after() {
    let mut world = World::new();
    world.add("a", 0);
    world.run(secs(3));
    world.command(0, |g, now| g.leave(now));
    assert_eq!(world.hosts[0].events.last(), Some(&Event::LeaveEnded));

    let mut world = World::new();
    world.add("a", 0);
    world.join(0, 9);
    world.run(Duration::from_millis(300));
    assert!(!world.stray.is_empty(), "it was asking its seed");
    world.command(0, |g, now| g.leave(now));
    assert_eq!(world.hosts[0].events.last(), Some(&Event::LeaveEnded));
    let sent = world.hosts[0].sent;
    world.run(secs(20));
    assert_eq!(world.hosts[0].sent, sent);

    // Members are known, entries are not: the leave spreads, and what the join would begin does not.
    let mut world = World::new();
    world.add("a", 0);
    world.add("b", 0);
    world.run(secs(2));
    world.join(1, 0);
    while world.hosts[1].gossip.living() < 2 {
        world.run(Duration::from_millis(1));
    }
    world.command(1, |g, now| g.leave(now));
    world.command(1, |g, now| {
        g.run_join(now, crate::join::Action::StartDetector);
        g.run_join(now, crate::join::Action::Renew { generation: Generation::MAX });
    });
    assert_eq!(world.hosts[1].gossip.detector.partners().count(), 0);
    assert_eq!(world.hosts[1].gossip.me().unwrap().liveness, Liveness::Left);
    world.run(secs(20));
    assert_eq!(world.liveness(0, "b"), Some(Liveness::Left));
}

#[test]
fn a_false_accusation_is_refuted_with_a_higher_incarnation() {
    let mut world = World::joined(3);
    world.forget_events();
    let (b, c) = (world.id(1), world.id(2));
    let accuser = Accuser::new(c, 9.0);
    let claim = |liveness, incarnation| Claim {
        id: b,
        incarnation: Incarnation(incarnation),
        liveness,
        accusers: vec![accuser],
    };
    world.inject(0, c, address(2), &[Message::Claims(vec![claim(Liveness::Suspect, 0)])]);
    assert_eq!(world.told(0), ["suspected b"]);
    world.run(secs(2));
    assert_eq!(world.told(0), ["suspected b", "refuted b"]);
    assert_eq!(world.hosts[1].gossip.me().unwrap().incarnation, Incarnation(1));
    assert_eq!(world.hosts[1].gossip.metrics(world.now_of(1)).detector.refuted_self, 1);
    for host in 0..3 {
        assert_eq!(world.hosts[host].gossip.roster.live(b), Some((Incarnation(1), Liveness::Alive)));
    }
    // An old claim changes nothing; one from far beyond is refused and counted.
    world.forget_events();
    let refused = world.hosts[0].gossip.traffic.records_refused;
    world.inject(0, c, address(2), &[Message::Claims(vec![claim(Liveness::Suspect, 0)])]);
    world.inject(0, c, address(2), &[Message::Claims(vec![claim(Liveness::Suspect, 70_000)])]);
    world.inject(0, c, address(2), &[Message::Claims(vec![claim(Liveness::Dead, 70_000)])]);
    assert_eq!(world.hosts[0].gossip.traffic.records_refused, refused + 2);
    world.run(secs(8));
    assert_eq!(world.told(0), Vec::<String>::new());
}

#[test]
fn death_revival_and_heal_are_told_in_order_once_on_both_sides() {
    let mut world = World::joined(4);
    world.cut = [(0, 2), (0, 3), (1, 2), (1, 3)].into();
    world.forget_events();
    world.run(secs(10));
    for i in 0..5u8 {
        world.command(0, |g, now| g.set(now, &[b'x', i], value("left"), None)).unwrap();
        world.command(2, |g, now| g.set(now, &[b'y', i], value("right"), None)).unwrap();
    }
    world.run(secs(20));
    for (host, gone) in [(0, ["c", "d"]), (1, ["c", "d"]), (2, ["a", "b"]), (3, ["a", "b"])] {
        for name in gone {
            let told: Vec<String> = world.told(host).into_iter().filter(|e| e.ends_with(name)).collect();
            assert_eq!(told, [format!("suspected {name}"), format!("died {name}")]);
        }
        assert_eq!(world.hosts[host].gossip.metrics(world.now_of(host)).gauges.members_dead, 2);
        assert!(gone.iter().all(|n| {
            let id = world.hosts[host].gossip.member(n).unwrap().id();
            !world.hosts[host].gossip.clock.knows(id)
        }));
    }
    world.cut.clear();
    world.forget_events();
    world.run(secs(40));
    let mut received = 0;
    for (host, back) in [(0, ["c", "d"]), (1, ["c", "d"]), (2, ["a", "b"]), (3, ["a", "b"])] {
        let mut told = world.told(host);
        told.sort();
        assert_eq!(told, back.map(|name| format!("revived {name}")));
        let heals = world.heals(host);
        assert_eq!(heals.len(), 1, "once per heal");
        assert_eq!(heals[0].members, back.map(Arc::from));
        assert!(heals[0].bytes > 0 && (1_000..30_000).contains(&heals[0].duration_ms), "{heals:?}");
        received += heals[0].keys_received;
        assert_eq!(world.hosts[host].gossip.len(), 10);
        assert_eq!(world.hosts[host].gossip.metrics(world.now_of(host)).detector.revived, 2);
    }
    assert!(received >= 10, "each side got the other's five keys: {received}");
}

#[test]
fn the_account_of_a_heal_counts_large_records_and_streams() {
    const LARGE: usize = 50_000;
    let mut world = World::joined(4);
    world.cut = [(0, 2), (0, 3), (1, 2), (1, 3)].into();
    world.run(secs(15));
    for host in [0, 2] {
        let large: Arc<[u8]> = vec![host as u8; LARGE].into();
        world.command(host, |g, now| g.set(now, &[b'k', host as u8], large, None)).unwrap();
    }
    world.run(secs(15));
    world.cut.clear();
    world.run(secs(40));
    let heals: Vec<Healed> = (0..4).flat_map(|host| world.heals(host)).collect();
    assert_eq!(heals.len(), 4);
    let total = |of: fn(&Healed) -> u64| heals.iter().map(of).sum::<u64>();
    // Each value crosses once by a session at least; a session that announced it to one whom a rumor served gives nothing.
    let (received, sent) = (total(|h| h.keys_received), total(|h| h.keys_sent));
    assert!((2..=4).contains(&received) && sent >= received, "{heals:?}");
    let bytes = total(|h| h.bytes) as usize;
    assert!(bytes >= 2 * received as usize * LARGE, "both ends count: {heals:?}");
    assert!((0..4).all(|host| world.hosts[host].gossip.len() == 2));
}

#[test]
fn one_that_left_and_lives_again_is_told_as_revived_and_a_late_verdict_does_not_bring_it_back() {
    let mut world = World::joined(3);
    let c = world.id(2);
    world.hosts[2].up = false;
    world.forget_events();
    let claim =
        |incarnation, liveness| Message::Claims(vec![Claim::plain(c, Incarnation(incarnation), liveness)]);
    world.inject(0, world.id(1), address(1), &[claim(1, Liveness::Left)]);
    world.command(0, |g, now| g.declare(now, c, Liveness::Alive, false));
    world.command(0, |g, now| g.declare(now, c, Liveness::Dead, false));
    assert_eq!(world.liveness(0, "c"), Some(Liveness::Left));
    world.inject(0, world.id(1), address(1), &[claim(2, Liveness::Left)]);
    world.inject(0, world.id(1), address(1), &[claim(3, Liveness::Alive)]);
    assert_eq!(world.told(0), ["left c", "revived c"]);
}

#[test]
fn a_retired_id_gets_its_successors_record_once_a_second_and_never_as_dead() {
    let mut world = World::joined(3);
    let (old, clock) = (world.id(2), Stamp::at(world.now_of(0).wall));
    world.hosts[2].up = false;
    world.hosts[2].address = address(50);
    world.run(Duration::from_millis(100));
    world.forget_events();
    let again = world.add("c", 0);
    world.hosts[again].address = address(again);
    world.join(again, 0);
    world.run(secs(6));
    assert_eq!(world.told(0).last().unwrap(), "joined c");
    let new = world.id(again);
    assert_ne!(old, new);
    let asked = address(60);
    for seq in 0..2 {
        world.inject(0, old, asked, &[beat(seq, clock)]);
    }
    let answers: Vec<Message> =
        world.stray.drain(..).filter(|(to, _)| *to == asked).flat_map(|(_, plain)| decoded(&plain)).collect();
    let [Message::Record { hop: HOP_COLD, record: Record::Member(record) }] = &answers[..] else {
        panic!("one record, got {answers:?}")
    };
    assert_eq!((record.id(), record.liveness), (new, Liveness::Alive));
    assert_eq!(world.hosts[0].gossip.traffic.dropped_stale_generation, 2);
    // The successor dies: its record still travels, but not as dead.
    world.hosts[again].up = false;
    world.run(secs(30));
    assert_eq!(world.liveness(0, "c"), Some(Liveness::Dead));
    world.inject(0, old, asked, &[beat(3, clock)]);
    let answers: Vec<Message> =
        world.stray.drain(..).filter(|(to, _)| *to == asked).flat_map(|(_, plain)| decoded(&plain)).collect();
    assert!(
        matches!(&answers[..], [Message::Record { record: Record::Member(m), .. }] if m.id() == new),
        "{answers:?}"
    );
}

#[test]
fn other_labels_and_malformed_datagrams_are_counted_and_change_nothing() {
    let mut world = World::joined(2);
    world.forget_events();
    let (members, root, sent) =
        (world.hosts[0].gossip.members(), world.hosts[0].gossip.root(), world.hosts[0].sent);
    let before = world.hosts[0].gossip.traffic;
    let b = world.id(1);
    let mut plain = Vec::new();
    wire::begin(&Header::new(wire::label_hash("other"), b), &mut plain);
    let dead = Claim {
        id: b,
        incarnation: Incarnation(0),
        liveness: Liveness::Suspect,
        accusers: vec![Accuser::new(MemberId(7), 1.0)],
    };
    assert!(wire::encode_message(&Message::Claims(vec![dead]), &mut plain, Framing::Datagram));
    world.command(0, |g, now| g.handle_datagram(now, address(1), &plain));
    let label = wire::label_hash("hall").to_le_bytes();
    plain[2..4].copy_from_slice(&label);
    plain.truncate(plain.len() - 1);
    world.command(0, |g, now| g.handle_datagram(now, address(1), &plain));
    world.command(0, |g, now| g.handle_datagram(now, address(1), &[]));
    plain[0] = 99;
    world.command(0, |g, now| g.handle_datagram(now, address(1), &plain));
    let after = world.hosts[0].gossip.traffic;
    assert_eq!(after.dropped_label, before.dropped_label + 1);
    assert_eq!(after.dropped_malformed, before.dropped_malformed + 2);
    assert_eq!(after.dropped_version, before.dropped_version + 1);
    assert_eq!(after.datagrams_received, before.datagrams_received);
    let host = &world.hosts[0];
    assert_eq!((host.gossip.members(), host.gossip.root(), host.sent), (members, root, sent));
    assert!(host.events.is_empty());
}

#[test]
fn a_second_member_of_a_living_name_is_told_of_the_conflict_and_stops() {
    let mut world = World::joined(2);
    world.forget_events();
    let other = world.add("a", 0);
    world.join(other, 1);
    world.run(secs(5));
    let conflicts: Vec<MemberId> = world.hosts[other]
        .events
        .iter()
        .filter_map(|e| if let Event::NameConflict { other } = e { Some(other.id()) } else { None })
        .collect();
    assert_eq!(conflicts, [world.id(0)]);
    assert_eq!(world.hosts[other].events.last().map(member_event), Some(None));
    let sent = world.hosts[other].sent;
    assert_eq!(world.command(other, |g, now| g.set(now, b"k", value("1"), None)), Err(CallError::Left));
    world.run(secs(20));
    assert_eq!(world.hosts[other].sent, sent, "it stopped");
    for host in [0, 1] {
        assert_eq!(world.told(host), Vec::<String>::new());
        assert_eq!(world.hosts[host].gossip.member("a").unwrap().id(), world.id(0));
    }
}

#[test]
fn new_tags_and_a_new_address_are_told_once_everywhere() {
    let mut world = World::joined(3);
    world.forget_events();
    let tags: Tags = [("role".to_string(), "db".to_string())].into();
    world.command(1, |g, now| g.update_tags(now, tags.clone())).unwrap();
    let too_long: Tags = [("role".to_string(), "x".repeat(600))].into();
    let refused = world.command(1, |g, now| g.update_tags(now, too_long));
    assert!(matches!(refused, Err(CallError::Tags { .. })));
    world.run(secs(2));
    for host in 0..3 {
        assert_eq!(world.told(host), ["updated b"]);
        assert_eq!(world.hosts[host].gossip.member("b").unwrap().profile.tags, tags);
    }
    world.forget_events();
    world.hosts[1].address = address(40);
    world.command(1, |g, now| g.update_address(now, address(40)));
    world.run(secs(20));
    for host in 0..3 {
        assert_eq!(world.told(host), ["updated b"]);
        assert_eq!(world.hosts[host].gossip.member("b").unwrap().address(), address(40));
    }
}

#[test]
fn a_large_value_comes_over_a_stream_and_no_datagram_is_too_long() {
    let mut world = World::joined(3);
    let large: Arc<[u8]> = vec![7u8; 200_000].into();
    world.command(0, |g, now| g.set(now, b"large", large.clone(), None)).unwrap();
    world.run(secs(10));
    for host in 0..3 {
        let found = world.hosts[host].gossip.get(world.now_of(host), b"large");
        assert_eq!(found.map(|e: Arc<Entry>| e.value.clone()), Some(large.clone()));
        assert!(world.hosts[host].longest + 24 <= 1_400);
    }
    let frames: u64 = world.hosts.iter().map(|h| h.gossip.traffic.frames_sent).sum();
    let bytes: u64 = world.hosts.iter().map(|h| h.gossip.traffic.frame_bytes_sent).sum();
    assert!(frames >= 4 && bytes >= 400_000, "{frames} frames, {bytes} bytes");
    assert!(world.hosts.iter().all(|h| h.gossip.traffic.dropped_overload == 0));
}

#[test]
fn a_clock_far_off_the_others_is_told_once() {
    let mut world = World::new();
    world.add("a", 0);
    for (name, ahead_ms) in [("b", 0), ("c", 20_000)] {
        let host = world.add(name, ahead_ms);
        world.join(host, 0);
    }
    world.run(secs(30));
    let off = |host: usize| -> Vec<i64> {
        let events = world.hosts[host].events.iter();
        events.filter_map(|e| if let Event::ClockOff { off_ms } = e { Some(*off_ms) } else { None }).collect()
    };
    assert!(matches!(off(2)[..], [ms] if (19_900..=20_100).contains(&ms)), "{:?}", off(2));
    // A median of two is the larger of both, so one of them may blame itself too; never twice.
    assert!(off(0).len() <= 1 && off(1).len() <= 1);
}

#[test]
fn messages_share_datagrams_by_address_in_order_and_what_cannot_travel_is_counted() {
    let mut world = World::joined(2);
    let now = world.now_of(0);
    let g = &mut world.hosts[0].gossip;
    let count = 3_000u32;
    for seq in 0..count {
        g.post_to(address(80 + seq as usize % 2), Message::Ping { seq, origin: None }, Class::Detector);
    }
    g.audit().unwrap();
    let before = g.traffic;
    let mut dead = g.member("b").unwrap();
    dead.liveness = Liveness::Dead;
    g.post_to(address(82), Message::member(0, dead), Class::Detector);
    let mut buf = Vec::new();
    let mut heard: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
    let mut datagrams = 0;
    while let Output::Transmit { to } = g.poll_output(now, &mut buf) {
        datagrams += 1;
        assert!(buf.len() <= 1_400 - 24);
        let seqs = decoded(&buf).into_iter().filter_map(|m| match m {
            Message::Ping { seq, .. } => Some(seq),
            _ => None,
        });
        heard.entry(to).or_default().extend(seqs);
    }
    let of = |odd: u32| (0..count).filter(|seq| seq % 2 == odd).collect::<Vec<u32>>();
    assert_eq!(heard.get(&address(80)), Some(&of(0)));
    assert_eq!(heard.get(&address(81)), Some(&of(1)));
    assert_eq!(heard.len(), 2, "no empty datagram for what cannot travel");
    let least = 2 * (count as usize / 2 * 7).div_ceil(1_400 - 24 - 12);
    assert!(datagrams <= least + 2, "{datagrams} datagrams, {least} would do");
    assert_eq!(g.traffic.dropped_overload, before.dropped_overload + 1);
    g.audit().unwrap();
}
