//! Members with a store, a roster and anti-entropy over a lossy queue.

mod bounds;
mod costs;
mod rules;

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
    /// The next datagram like this is lost: who sends it, and what is in it.
    lose_next: Option<fn(usize, &[Message]) -> bool>,
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
            lose_next: None,
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
        if self.lose_next.take_if(|like| like(from, &messages)).is_some() {
            return;
        }
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
            Message::Busy { id: Some(id), .. } => p.sync.handle_missing(now, from_id, id),
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
