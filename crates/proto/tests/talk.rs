//! Broadcasts, queries, mail and confirmations of two or three members over a small lossy network in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::entry::{Entry, Version};
use hearsay_proto::member::{MemberId, Tags};
use hearsay_proto::output::{CallError, StreamId};
use hearsay_proto::rng::Rng;
use hearsay_proto::roster::Roster;
use hearsay_proto::talk::{Action, Talk};
use hearsay_proto::time::{Mono, Now, Stamp, Wall};
use hearsay_proto::wire::AnswerStatus;
use hearsay_proto::{Config, Event, Gossip, Identity, Output, Seed};

const EPOCH_MS: u64 = 1_767_225_600_000;
const DELAY: Duration = Duration::from_millis(1);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn address(n: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, n as u8 + 1), 7946))
}

enum Packet {
    Datagram(SocketAddr, Vec<u8>),
    Opened(StreamId),
    Accepted(StreamId, SocketAddr),
    Frame(StreamId, Vec<u8>),
    Writable(StreamId),
    Closed(StreamId),
}

struct Host {
    gossip: Gossip,
    deadline: Mono,
    events: Vec<Event>,
}

struct Net {
    now: Mono,
    hosts: Vec<Host>,
    flight: BTreeMap<(Mono, u64), (usize, Packet)>,
    count: u64,
    loss: f64,
    cut: BTreeSet<usize>,
    rng: Rng,
    ends: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    odd: u64,
    /// Datagrams sent, by kind of their first message.
    sent: BTreeMap<u8, u64>,
}

impl Net {
    fn empty(seed: u64) -> Net {
        Net {
            now: Mono(0),
            hosts: Vec::new(),
            flight: BTreeMap::new(),
            count: 0,
            loss: 0.0,
            cut: BTreeSet::new(),
            rng: Rng::from_number(seed),
            ends: BTreeMap::new(),
            odd: 1,
            sent: BTreeMap::new(),
        }
    }

    /// Members m0, m1, ... with full views.
    fn new(members: usize, seed: u64) -> Net {
        let mut net = Net::empty(seed);
        for n in 0..members {
            net.add(Config::lan(), n);
        }
        let all: Vec<_> = net.hosts.iter().map(|h| h.gossip.me().unwrap()).collect();
        for n in 0..members {
            net.act(n, |g, now| g.adopt(now, &all));
        }
        net.run(secs(5));
        net
    }

    fn add(&mut self, config: Config, n: usize) {
        let tags = Tags::from([("n".to_owned(), n.to_string())]);
        let identity = Identity { name: format!("m{n}"), generation_stored: None, address: address(n), tags };
        let mut seed = [n as u8; 32];
        seed[1] = self.rng.u32() as u8;
        let now = self.clock();
        let gossip = Gossip::new(config, identity, seed, now).unwrap();
        self.hosts.push(Host { gossip, deadline: Mono(0), events: Vec::new() });
        self.drain(n);
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(EPOCH_MS + self.now.0 / 1_000_000) }
    }

    fn push(&mut self, to: usize, packet: Packet) {
        self.count += 1;
        self.flight.insert((self.now + DELAY, self.count), (to, packet));
    }

    fn act<T>(&mut self, n: usize, act: impl FnOnce(&mut Gossip, Now) -> T) -> T {
        let now = self.clock();
        let result = act(&mut self.hosts[n].gossip, now);
        self.drain(n);
        result
    }

    fn drain(&mut self, n: usize) {
        let now = self.clock();
        let mut buf = Vec::new();
        for _ in 0..100_000 {
            match self.hosts[n].gossip.poll_output(now, &mut buf) {
                Output::Wait(at) => {
                    assert!(at > now.mono);
                    self.hosts[n].deadline = at;
                    return;
                }
                Output::Event(event) => self.hosts[n].events.push(event),
                Output::Transmit { to } => {
                    *self.sent.entry(buf[12]).or_default() += 1;
                    let target = (0..self.hosts.len()).find(|&h| address(h) == to);
                    let apart = |t: usize| self.cut.contains(&n) != self.cut.contains(&t);
                    if let Some(target) = target.filter(|&t| !apart(t))
                        && !self.rng.chance(self.loss)
                    {
                        self.push(target, Packet::Datagram(address(n), buf.clone()));
                    }
                }
                Output::Open { stream, to } => {
                    let target = (0..self.hosts.len()).find(|&h| address(h) == to).unwrap();
                    let other = StreamId(self.odd);
                    self.odd += 2;
                    self.ends.insert((n, stream), (target, other));
                    self.ends.insert((target, other), (n, stream));
                    self.push(target, Packet::Accepted(other, address(n)));
                    self.push(n, Packet::Opened(stream));
                }
                Output::Send { stream } => {
                    if let Some(&(target, other)) = self.ends.get(&(n, stream)) {
                        self.push(target, Packet::Frame(other, buf.clone()));
                        self.push(n, Packet::Writable(stream));
                    }
                }
                Output::Persist(_) => panic!("nothing is to be saved"),
                Output::Close { stream } => {
                    if let Some((target, other)) = self.ends.remove(&(n, stream)) {
                        self.push(target, Packet::Closed(other));
                    }
                }
            }
        }
        panic!("no Wait");
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let packet = self.flight.first_key_value().map(|((at, _), _)| *at);
            let timer = self.hosts.iter().map(|h| h.deadline).min();
            let next = packet.into_iter().chain(timer).min().filter(|at| *at <= until);
            let Some(next) = next else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if packet == Some(next) {
                let ((_, _), (to, packet)) = self.flight.pop_first().unwrap();
                self.act(to, |g, now| match packet {
                    Packet::Datagram(from, bytes) => g.handle_datagram(now, from, &bytes),
                    Packet::Opened(stream) => g.handle_stream_opened(now, stream),
                    Packet::Accepted(stream, from) => g.handle_stream_accepted(now, stream, from),
                    Packet::Frame(stream, bytes) => g.handle_frame(now, stream, &bytes),
                    Packet::Writable(stream) => g.handle_stream_writable(now, stream),
                    Packet::Closed(stream) => g.handle_stream_closed(now, stream),
                });
            } else {
                let n = (0..self.hosts.len()).find(|&h| self.hosts[h].deadline <= self.now).unwrap();
                self.act(n, Gossip::handle_timeout);
            }
        }
    }

    fn run_until(&mut self, at_most: Duration, done: impl Fn(&Net) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < at_most, "not within {at_most:?}");
            self.run(ms(1));
        }
        self.now.since(start)
    }

    /// What a member was told: "topic from:payload".
    fn heard(&self, n: usize) -> Vec<String> {
        let texts = self.hosts[n].events.iter().filter_map(|event| match event {
            Event::BroadcastReceived { from, topic, payload }
            | Event::MailReceived { from, topic, payload } => {
                let short = if payload.len() > 32 { format!("{} B", payload.len()) } else { text(payload) };
                Some(format!("{topic} {from}:{short}"))
            }
            _ => None,
        });
        texts.collect()
    }

    fn confirmed(&self, n: usize, number: u64) -> Option<(u64, u64)> {
        self.hosts[n].events.iter().find_map(|event| match event {
            Event::Confirmed { waiter, count, of } if *waiter == number => Some((*count, *of)),
            _ => None,
        })
    }

    fn mail_ended(&self, n: usize, wanted: u32) -> Option<bool> {
        self.hosts[n].events.iter().find_map(|event| match event {
            Event::MailEnded { number, delivered } if *number == wanted => Some(*delivered),
            _ => None,
        })
    }

    fn query_ended(&self, n: usize, wanted: u32) -> Option<Vec<String>> {
        self.hosts[n].events.iter().find_map(|event| match event {
            Event::QueryEnded { query, silent } if *query == wanted => {
                Some(silent.iter().map(ToString::to_string).collect())
            }
            _ => None,
        })
    }

    /// Answers to a query, in order of name.
    fn answers(&self, n: usize, wanted: u32) -> Vec<(String, AnswerStatus, usize)> {
        let mut answers: Vec<_> = self.hosts[n]
            .events
            .iter()
            .filter_map(|event| match event {
                Event::AnswerReceived { query, from, status, payload } if *query == wanted => {
                    Some((from.to_string(), *status, payload.len()))
                }
                _ => None,
            })
            .collect();
        answers.sort_by(|a, b| a.0.cmp(&b.0));
        answers
    }

    /// Answers every query that waits here, with `len` bytes.
    fn respond(&mut self, n: usize, status: AnswerStatus, len: usize) -> usize {
        let mut open = Vec::new();
        self.hosts[n].events.retain(|event| match event {
            Event::QueryReceived { query, .. } => {
                open.push(*query);
                false
            }
            _ => true,
        });
        for query in &open {
            self.act(n, |g, now| g.answer(now, *query, status, vec![7; len].into()).unwrap());
        }
        open.len()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn broadcasts_come_once_and_in_order_though_a_fifth_is_lost() {
    for seed in 0..4 {
        let mut net = Net::new(3, seed);
        for n in 0..3 {
            net.act(n, |g, _| g.subscribe("t").unwrap());
        }
        net.loss = 0.2;
        for i in 0..50 {
            for n in 0..2 {
                net.act(n, |g, now| g.broadcast(now, "t", format!("{i}").as_bytes()).unwrap());
            }
            net.run(ms(20));
        }
        net.run(secs(20));
        for n in 0..3 {
            let heard = net.heard(n);
            for sender in ["m0", "m1"] {
                let from: Vec<&str> =
                    heard.iter().filter_map(|h| h.strip_prefix(&format!("t {sender}:"))).collect();
                let want: Vec<String> = (0..50).map(|i| i.to_string()).collect();
                assert_eq!(from, want, "seed {seed}: m{n} of {sender}");
            }
            assert_eq!(heard.len(), 100);
            assert!(!net.hosts[n].events.iter().any(|e| matches!(e, Event::BroadcastsLagged { .. })));
        }
    }
}

#[test]
fn only_topics_subscribed_to_are_told_and_only_from_then_on() {
    let mut net = Net::new(2, 1);
    net.act(0, |g, now| g.broadcast(now, "t", b"early").unwrap());
    net.run(secs(1));
    net.act(1, |g, _| g.subscribe("t").unwrap());
    for topic in ["t", "other", "t"] {
        net.act(0, |g, now| g.broadcast(now, topic, b"x").unwrap());
    }
    net.run(secs(1));
    net.act(1, |g, _| g.unsubscribe("t"));
    net.act(0, |g, now| g.broadcast(now, "t", b"late").unwrap());
    net.run(secs(1));
    assert_eq!(net.heard(1), ["t m0:x", "t m0:x"]);
    assert!(net.heard(0).is_empty(), "the sender does not subscribe");
    assert_eq!(net.hosts[1].gossip.len(), 0, "no key of a user");
}

#[test]
fn who_was_cut_off_gets_them_after_the_heal_by_anti_entropy() {
    let mut net = Net::new(3, 5);
    net.act(2, |g, _| g.subscribe("t").unwrap());
    net.cut.insert(2);
    let want: Vec<String> = (0..10).map(|i| format!("t m0:{i}")).collect();
    for i in 0..10 {
        net.act(0, |g, now| g.broadcast(now, "t", format!("{i}").as_bytes()).unwrap());
        net.run(secs(1));
    }
    assert!(net.heard(2).is_empty());
    net.cut.clear();
    net.run(secs(20));
    assert_eq!(net.heard(2), want);
}

#[test]
fn a_gap_is_asked_for_and_filled_before_anti_entropy_would() {
    let mut net = Net::new(3, 6);
    net.act(2, |g, _| g.subscribe("t").unwrap());
    net.cut.insert(2);
    for payload in [b"0", b"1", b"2"] {
        net.act(0, |g, now| g.broadcast(now, "t", payload).unwrap());
    }
    net.run(ms(900));
    net.cut.clear();
    net.act(0, |g, now| g.broadcast(now, "t", b"3").unwrap());
    net.run(ms(100));
    assert!(net.heard(2).is_empty(), "it waits for what it lacks");
    let took = net.run_until(secs(4), |net| net.heard(2).len() == 4);
    assert!(took < ms(2_000), "{took:?}");
    assert_eq!(net.heard(2), ["t m0:0", "t m0:1", "t m0:2", "t m0:3"]);
    assert!(net.hosts[2].gossip.metrics(net.clock()).talk.gaps_asked > 0);
}

#[test]
fn a_joiner_stores_what_was_said_before_and_hears_what_follows() {
    let mut net = Net::empty(3);
    net.add(Config::lan(), 0);
    net.act(0, |g, now| g.join(now, Vec::new()));
    net.run(secs(2));
    net.act(0, |g, now| g.broadcast(now, "t", b"before").unwrap());
    net.run(secs(5));
    net.add(Config::lan(), 1);
    net.act(1, |g, _| g.subscribe("t").unwrap());
    let seeds = vec![Seed { name: "m0".into(), addresses: Ok(vec![address(0)]) }];
    net.act(1, |g, now| g.join(now, seeds));
    net.run(secs(5));
    assert_eq!(net.hosts[0].gossip.root(), net.hosts[1].gossip.root(), "it has the old one");
    net.act(0, |g, now| g.broadcast(now, "t", b"after").unwrap());
    net.run(ms(300));
    assert_eq!(net.heard(1), ["t m0:after"], "at once, and nothing from before");
}

#[test]
fn a_large_broadcast_arrives_before_the_small_one_behind_it() {
    let mut net = Net::new(3, 4);
    for n in 0..3 {
        net.act(n, |g, _| g.subscribe("t").unwrap());
    }
    net.act(0, |g, now| g.broadcast(now, "t", &vec![1; 300_000]).unwrap());
    net.act(0, |g, now| g.broadcast(now, "t", b"small").unwrap());
    net.run(secs(12));
    for n in 0..3 {
        assert_eq!(net.heard(n), ["t m0:300000 B", "t m0:small"], "m{n}");
    }
}

#[test]
fn limits_of_a_call_are_named() {
    let mut net = Net::new(2, 1);
    let long = "t".repeat(257);
    let topic = CallError::Topic { bytes: 257, bytes_max: 256 };
    net.act(0, |g, now| {
        assert_eq!(g.subscribe(&long), Err(topic.clone()));
        assert_eq!(g.respond(""), Err(CallError::Topic { bytes: 0, bytes_max: 256 }));
        assert_eq!(g.broadcast(now, &long, b""), Err(topic.clone()));
        let max = 1 << 20;
        let payload = CallError::Payload { bytes: max + 1, bytes_max: max };
        assert_eq!(g.broadcast(now, "t", &vec![0; max + 1]), Err(payload.clone()));
        assert_eq!(g.query(now, "t", &vec![0; max + 1], &Tags::new(), secs(1)), Err(payload.clone()));
        assert_eq!(g.send(now, "m1", "t", vec![0; max + 1].into(), secs(1)), Err(payload));
        assert_eq!(g.send(now, "nobody", "t", Arc::default(), secs(1)), Err(CallError::UnknownMember));
        let tags = Tags::from([("a".into(), "x".repeat(255)), ("b".into(), "x".repeat(255))]);
        assert_eq!(
            g.query(now, "t", b"", &tags, secs(1)),
            Err(CallError::Tags { bytes: 516, bytes_max: 512 })
        );
        assert_eq!(g.spread(now, b"no", None, 1, secs(1)), Err(CallError::UnknownKey));
        assert_eq!(g.spread(now, b"\0b", None, 1, secs(1)), Err(CallError::ReservedKey));
        let full = g.broadcast(now, &"t".repeat(256), &vec![0; max]);
        assert!(full.is_ok(), "the largest of all: {full:?}");
    });
}

#[test]
fn queries_are_answered_once_by_each_though_a_fifth_is_lost() {
    for seed in 0..4 {
        let mut net = Net::new(3, seed);
        for n in 0..3 {
            net.act(n, |g, _| g.respond("size").unwrap());
        }
        net.loss = 0.2;
        for round in 0..5 {
            let query = net.act(0, |g, now| g.query(now, "size", b"?", &Tags::new(), secs(10)).unwrap());
            let mut asked = [0; 3];
            for _ in 0..10_000 {
                for (n, asked) in asked.iter_mut().enumerate() {
                    *asked += net.respond(n, AnswerStatus::Ok, 10 + n);
                }
                if net.query_ended(0, query).is_some() {
                    break;
                }
                net.run(ms(1));
            }
            assert_eq!(net.query_ended(0, query), Some(Vec::new()), "seed {seed} round {round}");
            let want: Vec<_> = (0..3).map(|n| (format!("m{n}"), AnswerStatus::Ok, 10 + n)).collect();
            assert_eq!(net.answers(0, query), want);
            assert_eq!(asked, [1; 3]);
        }
    }
}

#[test]
fn filters_errors_no_responder_silence_and_large_answers() {
    let mut net = Net::new(3, 2);
    let all = Tags::new();
    net.act(1, |g, _| g.respond("q").unwrap());
    net.act(2, |g, _| g.respond("q").unwrap());

    // Only m2 passes; m1 would answer if it were asked.
    let only = Tags::from([("n".into(), "2".into())]);
    let query = net.act(0, |g, now| g.query(now, "q", b"", &only, secs(2)).unwrap());
    net.run(ms(200));
    assert_eq!(net.respond(1, AnswerStatus::Ok, 1), 0, "outside the filter");
    assert_eq!(net.respond(2, AnswerStatus::Error, 4), 1);
    net.run(ms(100));
    assert_eq!(net.answers(0, query), [("m2".into(), AnswerStatus::Error, 4)]);
    assert_eq!(net.query_ended(0, query), Some(vec![]));

    // m0 has no responder and is left out; m1 answers with 300 kB; m2 says nothing.
    let query = net.act(0, |g, now| g.query(now, "q", b"", &all, secs(4)).unwrap());
    net.run(ms(200));
    assert_eq!(net.respond(1, AnswerStatus::Ok, 300_000), 1);
    net.run(secs(3));
    assert_eq!(net.answers(0, query), [("m1".into(), AnswerStatus::Ok, 300_000)]);
    assert_eq!(net.query_ended(0, query), None, "m2 may still answer");
    net.run(secs(2));
    assert_eq!(net.query_ended(0, query), Some(vec!["m2".into()]));
    assert_eq!(net.respond(2, AnswerStatus::Ok, 1), 1, "told, but too late to answer");

    // A topic nobody responds to ends as soon as all have said so.
    let query = net.act(0, |g, now| g.query(now, "nothing", b"", &all, secs(10)).unwrap());
    let took = net.run_until(secs(1), |net| net.query_ended(0, query).is_some());
    assert!(took < ms(300), "{took:?}");
    assert!(net.answers(0, query).is_empty());

    // A filter that matches nobody ends at once.
    let nobody = Tags::from([("n".into(), "9".into())]);
    let query = net.act(0, |g, now| g.query(now, "q", b"", &nobody, secs(10)).unwrap());
    assert_eq!(net.query_ended(0, query), Some(vec![]));

    // What nobody reads leaves nothing behind.
    let query = net.act(0, |g, now| g.query(now, "q", b"", &only, secs(1)).unwrap());
    net.act(0, |g, _| g.cancel_query(query));
    net.run(ms(500));
    net.respond(2, AnswerStatus::Ok, 1);
    net.run(secs(3));
    assert!(net.answers(0, query).is_empty() && net.query_ended(0, query).is_none());
    for host in &net.hosts {
        assert_eq!(host.gossip.talk_counts(), [0; 4]);
    }
}

#[test]
fn mail_arrives_once_though_a_fifth_is_lost() {
    for seed in 0..4 {
        let mut net = Net::new(2, seed);
        net.act(1, |g, _| g.subscribe("jobs").unwrap());
        net.loss = 0.2;
        let mut numbers = Vec::new();
        for i in 0..100 {
            let payload: Arc<[u8]> = Arc::from(format!("{i}").as_bytes());
            numbers.push(net.act(0, |g, now| g.send(now, "m1", "jobs", payload, secs(10)).unwrap()));
            net.run(ms(5));
        }
        net.run(secs(12));
        assert!(numbers.iter().all(|n| net.mail_ended(0, *n) == Some(true)), "seed {seed}");
        let mut heard = net.heard(1);
        heard.sort();
        let mut want: Vec<String> = (0..100).map(|i| format!("jobs m0:{i}")).collect();
        want.sort();
        assert_eq!(heard, want, "seed {seed}");
        assert!(net.hosts[1].gossip.metrics(net.clock()).talk.mail_known > 0, "some came again");
        assert_eq!(net.hosts[0].gossip.talk_counts(), [0; 4]);
    }
}

#[test]
fn mail_large_to_self_in_vain_and_cancelled() {
    let mut net = Net::new(2, 9);
    for n in 0..2 {
        net.act(n, |g, _| g.subscribe("t").unwrap());
    }
    let large = net.act(0, |g, now| g.send(now, "m1", "t", vec![1; 300_000].into(), secs(10)).unwrap());
    net.run(secs(3));
    assert_eq!((net.mail_ended(0, large), net.heard(1)), (Some(true), vec!["t m0:300000 B".to_owned()]));

    let own = net.act(0, |g, now| g.send(now, "m0", "t", b"me"[..].into(), secs(1)).unwrap());
    assert_eq!((net.mail_ended(0, own), net.heard(0)), (Some(true), vec!["t m0:me".to_owned()]));

    let unheard = net.act(0, |g, now| g.send(now, "m1", "other", b"x"[..].into(), secs(1)).unwrap());
    net.run(ms(100));
    assert_eq!(net.mail_ended(0, unheard), Some(true), "its process has it");

    net.cut.insert(1);
    let vain = net.act(0, |g, now| g.send(now, "m1", "t", b"x"[..].into(), secs(1)).unwrap());
    let cancelled = net.act(0, |g, now| g.send(now, "m1", "t", b"x"[..].into(), secs(60)).unwrap());
    net.act(0, |g, _| g.cancel_send(cancelled));
    net.run(ms(900));
    assert_eq!(net.mail_ended(0, vain), None);
    net.run(ms(200));
    assert_eq!((net.mail_ended(0, vain), net.mail_ended(0, cancelled)), (Some(false), None));
    assert_eq!(net.hosts[0].gossip.talk_counts(), [0; 4]);
}

#[test]
fn spread_and_reached_ask_only_when_somebody_waits() {
    let poll = 19;
    let mut net = Net::new(3, 7);
    let first = net.act(0, |g, now| g.set(now, b"k", b"1"[..].into(), None).unwrap());
    let sent = net.act(0, |g, now| g.broadcast(now, "t", b"x").unwrap());
    net.run(secs(2));
    assert_eq!(net.sent.get(&poll), None, "nobody waits");

    let both = net.act(0, |g, now| g.spread(now, b"k", None, 2, secs(5)).unwrap());
    let all = net.act(0, |g, now| g.reached(now, sent.number, sent.version, secs(5)).unwrap());
    net.run(ms(100));
    assert_eq!((net.confirmed(0, both), net.confirmed(0, all)), (Some((2, 2)), Some((3, 3))));
    let polls = net.sent[&poll];
    net.run(secs(5));
    assert_eq!(net.sent[&poll], polls, "and nothing after that");

    // Any member may ask, of an older version too; a delete counts.
    net.act(1, |g, now| g.delete(now, b"k").unwrap().unwrap());
    let old = net.act(1, |g, now| g.spread(now, b"k", Some(first.version), 2, secs(5)).unwrap());
    let newest = net.act(1, |g, now| g.spread(now, b"k", None, 2, secs(5)).unwrap());
    net.run(secs(1));
    assert_eq!((net.confirmed(1, old), net.confirmed(1, newest)), (Some((2, 2)), Some((2, 2))));

    // Two at once: nobody else ever has the first of them, yet it is spread by the second.
    let lost = net.act(0, |g, now| g.set(now, b"k", b"2"[..].into(), None).unwrap());
    let lost = net.act(0, |g, now| g.spread(now, b"k", Some(lost.version), 2, secs(5)).unwrap());
    net.act(0, |g, now| g.set(now, b"k", b"3"[..].into(), None).unwrap());
    net.run(secs(1));
    assert_eq!(net.confirmed(0, lost), Some((2, 2)));

    // One is cut off.
    net.cut.insert(2);
    net.act(0, |g, now| g.set(now, b"k", b"4"[..].into(), None).unwrap());
    let sent = net.act(0, |g, now| g.broadcast(now, "t", b"y").unwrap());
    let one = net.act(0, |g, now| g.spread(now, b"k", None, 1, secs(2)).unwrap());
    let two = net.act(0, |g, now| g.spread(now, b"k", None, 2, secs(2)).unwrap());
    let all = net.act(0, |g, now| g.reached(now, sent.number, sent.version, secs(2)).unwrap());
    let gone = net.act(0, |g, now| g.spread(now, b"k", None, 2, secs(2)).unwrap());
    net.act(0, |g, _| g.cancel_confirm(gone));
    net.run(secs(1));
    assert_eq!((net.confirmed(0, one), net.confirmed(0, two)), (Some((1, 1)), None));
    net.run(ms(1_100));
    assert_eq!((net.confirmed(0, two), net.confirmed(0, all)), (Some((1, 2)), Some((2, 3))));
    assert_eq!(net.confirmed(0, gone), None);
}

#[test]
fn confirmations_survive_loss() {
    for seed in 0..8 {
        let mut net = Net::new(3, seed);
        net.loss = 0.2;
        let sent = net.act(0, |g, now| g.broadcast(now, "t", b"x").unwrap());
        let all = net.act(0, |g, now| g.reached(now, sent.number, sent.version, secs(20)).unwrap());
        net.run_until(secs(20), |net| net.confirmed(0, all).is_some());
        assert_eq!(net.confirmed(0, all), Some((3, 3)));
    }
}

/// A [`Talk`] that is given entries by hand.
struct Bench {
    talk: Talk,
    sender: Talk,
    me: Roster,
    from: Roster,
    rng: Rng,
    now: Now,
    sent: u64,
}

impl Bench {
    fn new() -> Bench {
        let now = Now { mono: Mono(0), wall: Wall(EPOCH_MS) };
        let roster = |n: usize| {
            let net = {
                let mut net = Net::empty(n as u64);
                net.add(Config::lan(), 0);
                net
            };
            let me = net.hosts[0].gossip.me().unwrap();
            let hasher = hearsay_proto::record::RecordHasher::new("");
            Roster::new(hasher, me, 1, 100, secs(60))
        };
        let config = Config::lan();
        let mut talk = Talk::new(&config, now);
        talk.subscribe("t").unwrap();
        let sender = Talk::new(&config, now);
        Bench { talk, sender, me: roster(1), from: roster(2), rng: Rng::from_number(1), now, sent: 0 }
    }

    /// The sender's next broadcast.
    fn entry(&mut self) -> Arc<Entry> {
        let payload = format!("{}", self.sent);
        self.sent += 1;
        let (_, key, value) = self.sender.compose(self.now, &self.from, "t", payload.as_bytes());
        let version = Version { stamp: Stamp(self.now.wall.0 << 16 | self.sent), writer: self.from.my_id() };
        let entry = Arc::new(Entry {
            key: Arc::from(key),
            value: Arc::from(value),
            version,
            tombstone: false,
            ttl_ms: None,
        });
        self.sender.composed(&entry);
        entry
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall = Wall(self.now.wall.0 + time.as_millis() as u64);
    }

    fn give(&mut self, entry: &Arc<Entry>, quiet: bool) -> Vec<String> {
        self.talk.handle_reserved(self.now, entry, quiet, &self.me, &mut self.rng);
        self.told()
    }

    fn timeout(&mut self, is_coming: bool) -> Vec<String> {
        self.talk.handle_timeout(self.now, &self.me, &|_| is_coming);
        self.told()
    }

    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(action) = self.talk.poll_action() {
            match action {
                Action::Tell(Event::BroadcastReceived { payload, .. }) => told.push(text(&payload)),
                Action::Tell(Event::BroadcastsLagged { dropped, .. }) => {
                    told.push(format!("lagged {dropped}"))
                }
                Action::Ask { writer, keys } => {
                    assert_eq!(writer, self.from.my_id());
                    let numbers: Vec<String> = keys.iter().map(|key| key[10].to_string()).collect();
                    told.push(format!("ask {}", numbers.join(" ")));
                }
                other => panic!("{other:?}"),
            }
        }
        told
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_gap_is_waited_for_and_then_skipped() {
    let mut b = Bench::new();
    let e: Vec<_> = (0..6).map(|_| b.entry()).collect();
    assert_eq!(b.give(&e[0], false), ["0"]);
    assert_eq!(b.give(&e[2], false), NOTHING);
    assert_eq!(b.give(&e[3], false), NOTHING);
    b.pass(ms(4_900));
    assert_eq!(b.timeout(false), ["ask 1"]);
    assert_eq!(b.give(&e[1], false), ["1", "2", "3"], "the gap was filled in time");
    assert_eq!(b.give(&e[5], false), NOTHING);
    b.pass(ms(1_250));
    assert_eq!(b.talk.deadline(), b.now.mono);
    assert_eq!(b.timeout(false), ["ask 4"]);
    assert_eq!(b.talk.deadline(), b.now.mono + ms(750), "and again");
    b.pass(ms(3_750));
    assert_eq!(b.timeout(true), NOTHING, "a transfer is under way");
    b.pass(ms(5_000));
    assert_eq!(b.timeout(false), ["lagged 1", "5"]);
    assert_eq!(b.give(&e[4], false), NOTHING, "too late");
    assert_eq!(b.talk.deadline(), Mono::FAR);
    assert_eq!(b.talk.metrics().broadcasts_skipped, 1);
}

#[test]
fn what_a_pull_brought_fills_gaps_in_silence() {
    let mut b = Bench::new();
    let e: Vec<_> = (0..2).map(|_| b.entry()).collect();
    b.pass(ms(500));
    b.talk = Talk::new(&Config::lan(), b.now);
    b.talk.subscribe("t").unwrap();
    let f: Vec<_> = (0..3).map(|_| b.entry()).collect();
    assert_eq!(b.give(&f[0], false), NOTHING, "0 and 1 may be on their way");
    assert_eq!(b.give(&e[1], true), NOTHING);
    assert_eq!(b.give(&e[0], true), ["2"]);
    assert_eq!(b.give(&f[1], true), ["3"], "said since I began, though the PULL was faster than the rumor");
    assert_eq!(b.give(&f[2], false), ["4"]);
}

#[test]
fn a_newcomer_is_told_of_what_never_came() {
    let mut b = Bench::new();
    let e: Vec<_> = (0..3).map(|_| b.entry()).collect();
    assert_eq!(b.give(&e[2], false), NOTHING);
    b.pass(secs(5));
    assert_eq!(b.timeout(false), ["lagged 2", "2"]);
}

#[test]
fn what_the_sender_no_longer_retains_is_not_waited_for() {
    let mut b = Bench::new();
    let e: Vec<_> = (0..3).map(|_| b.entry()).collect();
    assert_eq!(b.give(&e[0], false), ["0"]);
    b.pass(secs(62));
    let late = b.entry();
    assert_eq!(b.give(&late, false), ["lagged 2", "3"], "1 and 2 cannot come any more");
    assert_eq!(b.talk.deadline(), Mono::FAR);
    // Another member that never heard of this sender begins with what is retained.
    let mut other = Bench::new();
    assert_eq!(other.give(&late, false), ["3"]);
}

#[test]
fn entries_that_say_nothing_are_counted() {
    let mut b = Bench::new();
    let good = b.entry();
    for (key, value) in
        [(&good.key[..], &b"\xff"[..]), (&good.key[..13], &good.value[..]), (&b"\0x"[..], &good.value[..])]
    {
        let bad = Arc::new(Entry { key: Arc::from(key), value: Arc::from(value), ..(*good).clone() });
        assert_eq!(b.give(&bad, false), NOTHING);
    }
    let forged = Version { writer: MemberId(77), ..good.version };
    let bad = Arc::new(Entry { version: forged, ..(*good).clone() });
    assert_eq!(b.give(&bad, false), NOTHING);
    assert_eq!(b.talk.metrics().malformed, 4);
    assert_eq!(b.give(&good, false), ["0"]);
}
