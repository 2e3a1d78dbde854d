//! Members with a store, a roster and anti-entropy over a lossy queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::members::MemberIndex;
use super::*;
use crate::entry::{Entry, Version};
use crate::member::{Generation, Incarnation, Liveness, Member, Profile};
use crate::record::{Record, RecordHasher};
use crate::replica::Replica;
use crate::roster::{Merged, Roster};
use crate::store::{MergedEntry, Store};
use crate::time::{Stamp, Wall};
use crate::wire::Compared;

const START_MS: u64 = 1_700_000_000_000;
/// Header and seal.
const HEAD_BYTES: usize = 12 + 24;

struct Peer {
    id: MemberId,
    store: Store,
    roster: Roster,
    index: MemberIndex,
    sync: Sync,
    budget: Budget,
    ended: Vec<(Tree, u64, bool)>,
    beats: Vec<MemberId>,
}

struct Both<'a>(&'a mut Store, &'a Roster, &'a mut MemberIndex);

impl Replicas for Both<'_> {
    fn root(&mut self, now: Now, tree: Tree, settled: Second) -> Option<u32> {
        match tree {
            Tree::Members => Some(self.1.root()),
            Tree::Entries => self.0.settled_root(now, settled),
        }
    }
    fn view(&mut self, now: Now, tree: Tree, settled: Second) -> Option<Box<dyn Replica + '_>> {
        match tree {
            Tree::Members => Some(Box::new(self.2.view(self.1))),
            Tree::Entries => self.0.view(now, settled),
        }
    }
}

struct Net {
    peers: Vec<Peer>,
    queue: BTreeMap<(u64, u64), (usize, usize, Vec<Message>)>,
    now_us: u64,
    number: u64,
    loss: f64,
    rng: Rng,
    config: Config,
    hasher: RecordHasher,
    datagrams: u64,
    bytes: u64,
    by_kind: BTreeMap<&'static str, (u64, u64)>,
}

fn member(i: usize) -> Member {
    let profile = Profile {
        name: format!("member-{i}").into(),
        generation: Generation(START_MS),
        id: MemberId(1000 + i as u64),
        revision: 0,
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 1000 + i as u16)),
        tags: BTreeMap::new(),
    };
    Member { profile: Arc::new(profile), incarnation: Incarnation(0), liveness: Liveness::Alive }
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Walk { .. } => "walk",
        Message::Diff { .. } => "diff",
        Message::List { .. } => "list",
        Message::IHave { .. } => "ihave",
        Message::Want { .. } => "want",
        Message::Record { .. } => "record",
        Message::Claims(_) => "claims",
        _ => "other",
    }
}

impl Net {
    fn new(count: usize, loss: f64, seed: u64) -> Net {
        let mut config = Config::lan();
        config.bytes_per_second_max = 100_000_000;
        Net::with(config, count, loss, seed)
    }

    fn with(config: Config, count: usize, loss: f64, seed: u64) -> Net {
        let mut rng = Rng::from_number(seed);
        let hasher = RecordHasher::new("sync");
        let peers = (0..count)
            .map(|i| {
                let mut roster = Roster::new(
                    hasher.clone(),
                    member(i),
                    7,
                    config.limits.members_max,
                    config.forget_dead_after,
                );
                for other in (0..count).filter(|&o| o != i) {
                    roster.merge(Now { mono: Mono(0), wall: Wall(START_MS) }, &member(other));
                }
                let mut sync = Sync::new(&config, &mut rng);
                sync.set_rtt(Duration::from_millis(2));
                Peer {
                    id: member(i).id(),
                    store: Store::new(&config, hasher.clone()),
                    roster,
                    index: MemberIndex::new(),
                    sync,
                    budget: Budget::new(config.bytes_per_second_max, Mono(0)),
                    ended: Vec::new(),
                    beats: Vec::new(),
                }
            })
            .collect();
        Net {
            peers,
            queue: BTreeMap::new(),
            now_us: 200_000_000,
            number: 0,
            loss,
            rng,
            config,
            hasher,
            datagrams: 0,
            bytes: 0,
            by_kind: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now_us * 1000), wall: Wall(START_MS + self.now_us / 1000) }
    }

    fn settled(&self) -> Second {
        self.now().wall.second().minus(3)
    }

    fn send(&mut self, from: usize, to: MemberId, messages: Vec<Message>) {
        let to = self.peers.iter().position(|p| p.id == to).expect("known");
        let mut bytes = 0;
        for message in &messages {
            bytes += message_bytes(message);
            let of_kind = self.by_kind.entry(kind(message)).or_default();
            *of_kind = (of_kind.0 + 1, of_kind.1 + message_bytes(message) as u64);
        }
        assert!(bytes <= self.config.room(), "{bytes} B do not fit a datagram");
        self.datagrams += 1;
        self.bytes += (bytes + HEAD_BYTES) as u64;
        if !self.rng.chance(self.loss) {
            self.number += 1;
            let late = 300 + self.rng.below(700) as u64;
            self.queue.insert((self.now_us + late, self.number), (from, to, messages));
        }
    }

    /// Packs messages into datagrams as the hall does.
    fn pack(&mut self, from: usize, to: MemberId, messages: Vec<Message>) {
        let (mut now, mut bytes) = (Vec::new(), 0);
        for message in messages {
            let more = message_bytes(&message);
            if bytes + more > self.config.room() && !now.is_empty() {
                self.send(from, to, std::mem::take(&mut now));
                bytes = 0;
            }
            bytes += more;
            now.push(message);
        }
        if !now.is_empty() {
            self.send(from, to, now);
        }
    }

    fn drain(&mut self, i: usize) {
        while let Some(action) = self.peers[i].sync.poll_action() {
            match action {
                Action::Send { to, messages, class } => {
                    assert_eq!(class, Class::Repair);
                    let now = self.now().mono;
                    let bytes: usize = messages.iter().map(message_bytes).sum::<usize>() + HEAD_BYTES + 28;
                    if self.peers[i].budget.try_spend(now, class, bytes) {
                        self.send(i, to, messages);
                    }
                }
                Action::ConfirmBeat { to } => self.peers[i].beats.push(to),
                Action::SessionEnded { tree, moved, whole, .. } => {
                    self.peers[i].ended.push((tree, moved, whole))
                }
            }
        }
    }

    fn receive(&mut self, from: usize, to: usize, message: Message) {
        let now = self.now();
        let from_id = self.peers[from].id;
        let p = &mut self.peers[to];
        let mut both = Both(&mut p.store, &p.roster, &mut p.index);
        match message {
            Message::Walk { seq, tree, settled, salt, items } => {
                p.sync.handle_walk(now, from_id, seq, tree, settled, salt, &items, &mut both);
            }
            Message::Diff { seq, items, .. } => p.sync.handle_diff(now, from_id, seq, &items, &mut both),
            Message::List { seq, tree, settled, ranges } => {
                p.sync.handle_list(now, from_id, seq, tree, settled, &ranges, &mut both);
            }
            Message::Busy { tree: Some(tree), .. } => p.sync.handle_busy(now, from_id, tree),
            Message::IHave { repair: true, large: false, ids } => {
                let (store, roster, index) = (&p.store, &p.roster, &mut p.index);
                let mut known = |id| match store.known(id) {
                    Known::No if index.find(roster, id).is_some() => Known::Yes,
                    known => known,
                };
                p.sync.handle_ihave(now, from_id, &ids, &mut known);
            }
            Message::Want { ids, .. } => {
                let (store, roster, index) = (&p.store, &p.roster, &mut p.index);
                let mut find = |id| store.find(id).map(Found::from).or_else(|| index.find(roster, id));
                let answer = p.sync.answer_wants(now, from_id, &ids, &mut p.budget, &mut find);
                let bytes: usize = answer.iter().map(message_bytes).sum();
                p.budget.spend(now.mono, Class::Repair, bytes);
                self.pack(to, from_id, answer);
            }
            Message::Record { record: Record::Entry(entry), .. } => {
                let id = self.hasher.entry_rumor(&entry);
                match p.store.merge(now, &entry) {
                    MergedEntry::Accepted { .. } => {
                        p.sync.handle_arrived(now, id, true);
                    }
                    MergedEntry::Stale { newer } => {
                        if p.sync.handle_arrived(now, id, false).wanted {
                            p.sync.handle_stale(now, from_id, newer);
                        }
                    }
                    MergedEntry::Known | MergedEntry::Refused(_) => {
                        p.sync.handle_arrived(now, id, false);
                    }
                }
            }
            Message::Record { record: Record::Member(member), .. } => {
                let id = self.hasher.member_rumor(&member.profile);
                let news = p.roster.merge(now, &member) != Merged::Unchanged;
                p.sync.handle_arrived(now, id, news);
            }
            Message::Claims(claims) => {
                for claim in claims {
                    let merged = p.roster.merge_live(now.mono, claim.id, claim.incarnation, claim.liveness);
                    if merged.is_ok_and(|was| was.is_some()) {
                        p.sync.handle_claim(now, from_id);
                    }
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Runs until nothing is under way or the time is over.
    fn run(&mut self, max: Duration) {
        let end = self.now_us + max.as_micros() as u64;
        loop {
            let next = self.queue.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            let (timer, i) = (0..self.peers.len())
                .map(|i| (self.peers[i].sync.deadline().0.div_ceil(1000), i))
                .min()
                .expect("peers");
            let at = next.min(timer);
            if at > end {
                self.now_us = end;
                return;
            }
            self.now_us = self.now_us.max(at);
            if next <= timer {
                let (_, (from, to, messages)) = self.queue.pop_first().expect("next");
                for message in messages {
                    self.receive(from, to, message);
                }
                self.drain(to);
            } else {
                let now = self.now();
                let p = &mut self.peers[i];
                let mut both = Both(&mut p.store, &p.roster, &mut p.index);
                p.sync.handle_timeout(now, &mut both, &mut self.rng);
                self.drain(i);
            }
        }
    }

    /// What an ACK tells peer `a` of peer `b`.
    fn compare(&mut self, a: usize, b: usize, quick: bool) -> (Compared, Compared) {
        let (now, settled) = (self.now(), self.settled());
        let mine = |p: &mut Peer| Mine {
            members: p.roster.root(),
            living: p.roster.living(),
            entries: p.store.settled_root(now, settled).filter(|_| !p.store.is_full()),
        };
        let own = mine(&mut self.peers[a]);
        let roots =
            Roots { members: own.members, entries: own.entries.unwrap_or(0), living: own.living as u16 };
        let theirs = mine(&mut self.peers[b]);
        let (members, entries) = compare(Some(&roots), Some(&theirs));
        let comparison =
            Comparison { peer: self.peers[b].id, sent_at: now.mono, roots, settled, members, entries, quick };
        self.peers[a].sync.handle_comparison(now, &comparison, &mut self.rng);
        (members, entries)
    }

    fn put(&mut self, i: usize, entry: &Arc<Entry>) {
        let now = self.now();
        let merged = self.peers[i].store.merge(now, entry);
        assert!(matches!(merged, MergedEntry::Accepted { .. }), "{merged:?}");
    }

    /// N common entries, then d differences: 2/5 here, 2/5 there, 1/5 another version on each side.
    fn differ(&mut self, n: usize, d: usize) {
        for k in 0..n {
            let entry = entry(k, 0);
            for i in 0..self.peers.len() {
                self.put(i, &entry);
            }
        }
        for k in 0..d {
            match k % 5 {
                0 | 1 => self.put(0, &entry(n + k, 0)),
                2 | 3 => self.put(1, &entry(n + k, 0)),
                _ => {
                    let key = k * 7919 % n;
                    self.put(k % 2, &entry(key, 1 + k as u64));
                    self.put((k + 1) % 2, &entry(key, 100_000 + k as u64));
                }
            }
        }
        self.datagrams = 0;
        self.bytes = 0;
    }

    fn is_equal(&mut self) -> bool {
        let sums: Vec<u128> = self.peers.iter().map(|p| p.store.live_sum()).collect();
        sums.iter().all(|s| *s == sums[0])
    }

    fn reset(&mut self) {
        (self.datagrams, self.bytes) = (0, 0);
        self.by_kind.clear();
    }
}

/// 104 B as a record: key 16 B, value 60 B.
fn entry(k: usize, version: u64) -> Arc<Entry> {
    Arc::new(Entry {
        key: format!("key-{k:012}").as_bytes().into(),
        value: vec![b'v'; 60].into(),
        version: Version { stamp: Stamp(Stamp::at(Wall(START_MS)).0 + version), writer: MemberId(1000) },
        tombstone: false,
        ttl_ms: None,
    })
}

/// Rounds of comparison and session until equal: rounds, datagrams, bytes, ms.
fn repair(n: usize, d: usize, loss: f64, seed: u64) -> (usize, u64, u64, u64) {
    let mut net = Net::new(2, loss, seed);
    net.differ(n, d);
    let began = net.now_us;
    for round in 0..40 {
        if net.is_equal() {
            return (round, net.datagrams, net.bytes, (net.now_us - began) / 1000);
        }
        net.compare(round % 2, (round + 1) % 2, true);
        net.run(Duration::from_secs(1));
    }
    panic!("N {n}, d {d}, loss {loss}, seed {seed}: not equal after 40 rounds");
}

#[test]
fn sessions_make_two_replicas_equal() {
    println!("N, d: rounds, datagrams, bytes");
    for n in [100, 10_000] {
        for d in [0, 1, 10, 100, 1000] {
            let (rounds, datagrams, bytes, _) = repair(n, d, 0.0, 1);
            println!("{n}, {d}: {rounds}, {datagrams}, {bytes}");
            assert_eq!(rounds, usize::from(d > 0), "one session repairs everything");
            assert_eq!(d == 0, datagrams == 0);
        }
    }
}

/// Bytes stay within 1.5 times those of the study (dissemination-design.md 3.1, walk; N = 10^5 interpolated).
#[test]
fn what_a_session_costs() {
    println!("N = 10^5, d: datagrams, bytes");
    for (d, most) in [(10, 3_800), (100, 30_000), (1000, 250_000)] {
        let (rounds, datagrams, bytes, ms) = repair(100_000, d, 0.0, 1);
        println!("{d}: {datagrams}, {bytes}, {ms} ms");
        assert_eq!(rounds, 1);
        assert!(bytes < most * 3 / 2, "{d}: {bytes}");
    }
}

#[test]
fn three_members_become_equal_by_pairs() {
    for (seed, loss) in [(1, 0.0), (2, 0.2)] {
        let mut net = Net::new(3, loss, seed);
        net.differ(2_000, 100);
        for k in 0..40 {
            net.put(2, &entry(900_000 + k, 0));
        }
        let mut rounds = 0;
        while !net.is_equal() {
            rounds += 1;
            assert!(rounds <= 12, "loss {loss}: {rounds} rounds");
            for (a, b) in [(0, 1), (1, 2), (2, 0)] {
                net.compare(a, b, true);
            }
            net.run(Duration::from_secs(1));
        }
        println!("three members, loss {loss}: {rounds} rounds, {} datagrams, {} B", net.datagrams, net.bytes);
        assert_eq!(net.peers[0].store.len(), net.peers[2].store.len());
    }
}

#[test]
fn an_empty_member_gets_everything() {
    let mut net = Net::new(2, 0.05, 4);
    for k in 0..20_000 {
        net.put(1, &entry(k, 0));
    }
    net.reset();
    for _ in 0..10 {
        net.compare(0, 1, true);
        net.run(Duration::from_secs(2));
    }
    assert!(net.is_equal());
    println!("20,000 records to an empty member: {} datagrams, {} B", net.datagrams, net.bytes);
    assert!(net.bytes < 20_000 * 170, "{}", net.bytes);
}

#[test]
fn a_small_budget_only_slows_it_down() {
    let mut config = Config::lan();
    config.bytes_per_second_max = 100_000;
    let mut net = Net::with(config, 2, 0.0, 5);
    net.differ(1_000, 2_000);
    let began = net.now_us;
    while !net.is_equal() {
        net.compare(0, 1, true);
        net.run(Duration::from_secs(1));
        let seconds = (net.now_us - began) / 1_000_000;
        assert!(seconds < 60, "not equal after {seconds} s");
        // Each side has a quarter of its second for repair, what others leave, and the depth.
        assert!(net.bytes < (seconds + 1) * 250_000, "{} B in {seconds} s", net.bytes);
    }
    println!("2,000 differences at 100 kB/s: {} s, {} B", (net.now_us - began) / 1_000_000, net.bytes);
}

#[test]
fn what_is_not_settled_is_left_alone() {
    let mut net = Net::new(2, 0.0, 6);
    net.differ(1_000, 0);
    let now = net.now();
    for k in 0..50u8 {
        // New keys and new versions of old ones, at one side only: rumors are bringing them.
        let key = if k < 25 { vec![b'x', k] } else { entry(usize::from(k), 0).key.to_vec() };
        net.peers[0].store.set(now, &key, Arc::from(&b"young"[..]), None, MemberId(1000)).unwrap();
    }
    net.put(1, &entry(5_000, 0));
    net.reset();
    assert_eq!(net.compare(0, 1, true).1, Compared::Differ);
    net.run(Duration::from_secs(1));
    assert_eq!(net.by_kind["record"].0, 1, "{:?}", net.by_kind);
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 1, true)]);
    assert_eq!(net.compare(0, 1, true).1, Compared::Equal);
    net.run(Duration::from_secs(4));
    net.compare(0, 1, true);
    net.run(Duration::from_secs(1));
    let ended = net.peers[0].ended.clone();
    let left = net.peers[0].store.len() - net.peers[1].store.len();
    assert!(
        net.is_equal(),
        "settled now: {ended:?} {left} {:?} {:?}",
        net.by_kind,
        net.peers[0].sync.metrics()
    );
}

#[test]
fn a_difference_is_confirmed_before_a_session() {
    let mut net = Net::new(2, 0.0, 7);
    net.differ(500, 1);
    let began = net.now_us;
    net.compare(0, 1, false);
    net.run(Duration::from_millis(950));
    assert_eq!((net.peers[0].beats.len(), net.datagrams), (0, 0));
    net.compare(0, 1, false);
    net.run(Duration::from_millis(60));
    assert_eq!(net.peers[0].beats.len(), 0, "the second difference confirmed the first");
    net.run(Duration::from_millis(500));
    assert!(net.is_equal());
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 1, true)]);
    // One second after a useful session the peer gets a BEAT.
    net.run(Duration::from_secs(1));
    assert_eq!(net.peers[0].beats, [MemberId(1001)]);
    assert!(net.now_us - began < 3_000_000);

    // Without a second comparison: a BEAT after 1 s, and equality clears the doubt.
    let mut net = Net::new(2, 0.0, 8);
    net.differ(500, 1);
    net.compare(0, 1, false);
    net.run(Duration::from_millis(1_010));
    assert_eq!(net.peers[0].beats, [MemberId(1001)]);
    let missing = entry(500, 0);
    net.put(1, &missing);
    net.compare(0, 1, false);
    net.run(Duration::from_secs(5));
    assert_eq!((net.datagrams, net.peers[0].beats.len()), (0, 1));
}

/// A full store takes no part in comparisons: its sessions could not end.
#[test]
fn a_full_store_is_not_compared() {
    let mut config = Config::lan();
    config.limits.entries_max = 100;
    let mut net = Net::with(config, 2, 0.0, 9);
    for k in 0..100 {
        net.put(0, &entry(k, 0));
        net.put(1, &entry(k + 50, 0));
    }
    assert_eq!(net.compare(0, 1, true), (Compared::Equal, Compared::Not));
    net.run(Duration::from_secs(1));
    assert_eq!(net.datagrams, 0);
}

#[test]
fn useless_sessions_are_held_off_longer_and_longer() {
    let mut holds = Schedule::new(Config::lan().anti_entropy);
    let mut rng = Rng::from_number(1);
    let mut at = Mono(1_000_000_000_000);
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let ended = at;
        holds.ended(at, Tree::Entries, MemberId(1), 0, true, false);
        let plan = loop {
            at = at + Duration::from_millis(100);
            let roots = Roots { members: 0, entries: 1, living: 2 };
            let comparison = Comparison {
                peer: MemberId(1),
                sent_at: at,
                roots,
                settled: Second(9),
                members: Compared::Equal,
                entries: Compared::Differ,
                quick: false,
            };
            holds.handle_comparison(at, &comparison, None, &mut rng);
            if let Some(plan) = holds.take_due(at) {
                break plan;
            }
        };
        assert_eq!((plan.tree, plan.root), (Tree::Entries, 1));
        gaps.push(at.since(ended).as_secs());
    }
    for (gap, hold) in gaps.iter().zip([10, 20, 40, 60, 60, 60]) {
        assert!((hold..=hold + 2).contains(gap), "{gaps:?}");
    }
    holds.ended(at, Tree::Entries, MemberId(1), 3, true, false);
    assert_eq!(holds.due_beats(at + Duration::from_secs(1)), [MemberId(1)], "useful: a BEAT 1 s later");
}

#[test]
fn members_cross_by_claim_and_record() {
    for loss in [0.0, 0.2] {
        let mut net = Net::new(2, loss, 10);
        let now = net.now();
        // 300 members on both sides; 20 known to one side only; 10 newer on one side; 5 dead in one view.
        for i in 2..302 {
            for p in net.peers.iter_mut() {
                p.roster.merge(now, &member(i));
            }
        }
        for i in 302..322 {
            net.peers[i % 2].roster.merge(now, &member(i));
        }
        for i in 2..12u64 {
            let id = MemberId(1000 + i);
            net.peers[i as usize % 2]
                .roster
                .merge_live(now.mono, id, Incarnation(3), Liveness::Alive)
                .unwrap();
        }
        for i in 20..25u64 {
            net.peers[0].roster.set_liveness(now.mono, MemberId(1000 + i), Liveness::Dead);
            net.peers[1]
                .roster
                .merge_live(now.mono, MemberId(1000 + i), Incarnation(1), Liveness::Alive)
                .unwrap();
        }
        net.reset();
        let mut rounds = 0;
        while net.peers[0].roster.root() != net.peers[1].roster.root() {
            net.compare(rounds % 2, 1 - rounds % 2, true);
            net.run(Duration::from_millis(500));
            rounds += 1;
            assert!(rounds < 8);
        }
        println!("members, loss {loss}: {rounds} rounds, {} datagrams, {} B", net.datagrams, net.bytes);
        assert_eq!(net.peers[0].roster.living(), 322);
        if loss == 0.0 {
            assert_eq!(rounds, 1);
            assert!(net.peers[0].ended.iter().any(|(tree, moved, _)| *tree == Tree::Members && *moved > 20));
        }
    }
}

#[test]
fn far_apart_members_are_listed_at_once() {
    let mut net = Net::new(2, 0.0, 11);
    let now = net.now();
    for i in 2..1_000 {
        net.peers[1].roster.merge(now, &member(i));
        if i < 500 {
            net.peers[0].roster.merge(now, &member(i));
        }
    }
    net.reset();
    assert_eq!(net.compare(0, 1, false).0, Compared::Far);
    net.run(Duration::from_secs(1));
    assert_eq!(net.peers[0].roster.root(), net.peers[1].roster.root());
    assert!(!net.by_kind.contains_key("walk"));
    println!("500 of 1000 members missing: {} datagrams, {} B, {:?}", net.datagrams, net.bytes, net.by_kind);
}

#[test]
fn a_silent_peer_ends_the_session_and_a_flood_is_dropped() {
    let mut net = Net::new(2, 1.0, 12);
    net.differ(1_000, 10);
    net.compare(0, 1, true);
    net.run(Duration::from_secs(10));
    assert_eq!(net.peers[0].ended, [(Tree::Entries, 0, false)]);
    assert_eq!(net.datagrams, 4, "one request, three repeats");
    let metrics = net.peers[0].sync.metrics();
    assert_eq!((metrics.sessions, metrics.sessions_failed, metrics.sessions_useless), (1, 1, 0));

    let settled = net.settled();
    for seq in 0..100 {
        let items = vec![WalkItem { level: 0, index: 0, children: [0; 16] }];
        net.receive(0, 1, Message::Walk { seq, tree: Tree::Entries, settled, salt: 1, items });
        net.drain(1);
    }
    assert_eq!(net.peers[1].sync.metrics().requests_dropped, 36);

    // A request for a view that the log no longer reaches.
    net.now_us += 2_000_000;
    net.loss = 0.0;
    let old = net.settled().minus(30);
    net.receive(0, 1, Message::List { seq: 1, tree: Tree::Entries, settled: old, ranges: Vec::new() });
    assert_eq!(
        net.peers[1].sync.poll_action(),
        Some(Action::Send {
            to: MemberId(1000),
            messages: vec![Message::Busy { tree: Some(Tree::Entries), id: None }],
            class: Class::Repair
        })
    );
}

#[test]
fn any_answer_is_survived() {
    let mut rng = Rng::from_number(13);
    for seed in 0..30 {
        let mut net = Net::new(2, 0.1, seed);
        net.differ(3_000, 60);
        net.compare(0, 1, true);
        for _ in 0..40 {
            net.run(Duration::from_millis(3));
            let seq = net.peers[0].sync.seq.wrapping_sub(1 + rng.below(3) as u32);
            let items = (0..rng.below(4))
                .map(|_| {
                    let level = rng.below(4) as u8;
                    DiffItem {
                        level,
                        index: rng.below(1 << (4 * level)) as u16,
                        bitmap: rng.u32() as u16,
                        children: vec![[rng.u32(); 16]; rng.below(3)],
                    }
                })
                .collect();
            let settled = net.settled();
            net.receive(1, 0, Message::Diff { seq, tree: Tree::Entries, settled, items });
            net.drain(0);
        }
        net.run(Duration::from_secs(5));
        for round in 0..12 {
            net.compare(round % 2, 1 - round % 2, true);
            net.run(Duration::from_secs(2));
        }
        assert!(net.is_equal(), "seed {seed}");
        assert!(net.peers[0].sync.session.is_none());
    }
}

#[test]
fn a_peer_that_goes_takes_its_session_along() {
    let mut net = Net::new(2, 0.0, 14);
    net.differ(1_000, 100);
    net.compare(0, 1, true);
    net.run(Duration::from_millis(25));
    let now = net.now();
    net.peers[0].sync.handle_gone(now, MemberId(1001));
    assert!(net.peers[0].sync.session.is_none() && net.peers[0].sync.needs.is_empty());
    net.queue.clear();
    net.peers[1].sync.handle_gone(now, MemberId(1000));
    net.run(Duration::from_secs(5));
    assert_eq!(net.peers[0].sync.deadline(), Mono::FAR);
}

#[test]
fn loss_of_a_fifth_only_slows_it_down() {
    println!("N, d: mean rounds, datagrams, bytes over 10 seeds at 20 %");
    for n in [100, 10_000] {
        for d in [1, 10, 100, 1000] {
            let mut sum = (0, 0, 0);
            for seed in 0..10 {
                let (rounds, datagrams, bytes, _) = repair(n, d, 0.2, seed);
                assert!(rounds <= 8, "N {n}, d {d}, seed {seed}: {rounds} rounds");
                sum = (sum.0 + rounds, sum.1 + datagrams, sum.2 + bytes);
            }
            println!("{n}, {d}: {}, {}, {}", sum.0 as f64 / 10.0, sum.1 / 10, sum.2 / 10);
        }
    }
}

#[test]
fn one_difference_in_a_hundred_thousand_keys_costs_a_kilobyte() {
    for kind in [0, 2, 4] {
        let mut net = Net::new(2, 0.0, 3);
        net.differ(100_000, 0);
        match kind {
            0 => net.put(0, &entry(100_001, 0)),
            2 => net.put(1, &entry(100_001, 0)),
            _ => net.put(1, &entry(77, 5)),
        }
        net.reset();
        net.compare(0, 1, true);
        net.run(Duration::from_secs(1));
        println!("10^5, 1 ({kind}): {} datagrams, {} B, {:?}", net.datagrams, net.bytes, net.by_kind);
        assert!(net.is_equal());
        assert!(net.datagrams <= 8, "{}", net.datagrams);
        assert!(net.bytes <= 1000, "{}", net.bytes);
    }
}
