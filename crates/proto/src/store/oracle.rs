//! Roots against a naive rebuild from the whole history, and merge laws.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{MergedEntry, Store};
use crate::config::Config;
use crate::entry::{Entry, Version};
use crate::member::MemberId;
use crate::merkle::MerkleTree;
use crate::record::RecordHasher;
use crate::rng::Rng;
use crate::time::{Mono, Now, Second, Stamp, Wall};
use crate::wire::ListTag;

const START_MS: u64 = 1_700_000_000_000;
const RETENTION_MS: u64 = 4_000;

fn config() -> Config {
    let mut config = Config::lan();
    config.broadcast_retention = Duration::from_millis(RETENTION_MS);
    config
}

fn store() -> Store {
    Store::new(&config(), RecordHasher::new("oracle"))
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(START_MS + ms) }
}

/// One entry of everything ever delivered; phases by the rules, by whole seconds.
fn shown(entry: &Entry, settled: Second) -> Option<Entry> {
    let stamp = entry.version.stamp.wall().0;
    let passed = |ms: u64| Wall(ms).second() <= settled;
    if entry.key[0] == 0 {
        return (!passed(stamp + RETENTION_MS)).then(|| entry.clone());
    }
    let ttl_over = entry.ttl_ms.is_some_and(|ttl| passed(stamp + ttl));
    let tombstone = if entry.ttl_ms.is_some() { ttl_over } else { entry.tombstone };
    if tombstone && passed(stamp + (86_400_000).max(entry.ttl_ms.unwrap_or(0))) {
        return None;
    }
    Some(Entry { tombstone, ..entry.clone() })
}

fn naive(history: &[Arc<Entry>], settled: Second) -> Vec<Entry> {
    let mut newest: BTreeMap<&[u8], &Entry> = BTreeMap::new();
    for entry in history.iter().filter(|e| e.version.stamp.second() <= settled) {
        let slot = newest.entry(&entry.key).or_insert(entry);
        if entry.version > slot.version {
            *slot = entry;
        }
    }
    newest.values().filter_map(|e| shown(e, settled)).collect()
}

fn naive_root(history: &[Arc<Entry>], settled: Second) -> u32 {
    let hasher = RecordHasher::new("oracle");
    let total =
        naive(history, settled).iter().fold(0u128, |sum, e| sum.wrapping_add(hasher.entry_element(e)));
    hasher.key().root(settled.0, total)
}

/// The view at T lists what the history showed, and its digests are those of a tree of it.
fn check_view(replica: &mut Replica, now: Now, settled: Second) {
    let hasher = RecordHasher::new("oracle");
    let entries = naive(&replica.had, settled);
    let mut tree = MerkleTree::new();
    let mut tags: Vec<ListTag> = Vec::new();
    for entry in &entries {
        let place = hasher.place(&entry.key);
        let bucket = RecordHasher::bucket(place);
        tree.add(bucket, hasher.entry_element(entry));
        tags.push(ListTag { bucket, tag: RecordHasher::tag(place), version: hasher.entry_rumor(entry).tag });
    }
    tags.sort_unstable();
    let view = replica.store.view(now, settled).expect("the log reaches back");
    assert_eq!(view.list(0, u16::MAX), tags);
    assert_eq!(view.count(), entries.len());
    for level in 0..4 {
        let index = tags.first().map_or(0, |t| t.bucket >> (16 - 4 * u32::from(level)).min(15));
        let index = if level == 0 { 0 } else { index };
        assert_eq!(
            view.digests(7, level, index),
            tree.digests(hasher.key(), 7, level, index, &|_, _| 0),
            "level {level}"
        );
    }
}

/// A random write of a random writer whose clock is off by up to two seconds.
fn write(rng: &mut Rng, ms: u64, number: u64) -> Arc<Entry> {
    let kind = rng.below(10);
    let key: Vec<u8> = if kind == 0 {
        [&b"\0b"[..], &number.to_le_bytes()].concat()
    } else {
        vec![b'k', rng.below(6) as u8]
    };
    let wall = Wall(START_MS + ms + 2_000 - rng.below(4_000) as u64);
    let tombstone = kind == 1;
    let ttl_ms = (kind == 2 || kind == 3).then(|| 300 + rng.below(6_000) as u64);
    let value: &[u8] = if tombstone { &[] } else { b"value" };
    Arc::new(Entry {
        key: key.into(),
        value: value.into(),
        version: Version { stamp: Stamp(Stamp::at(wall).0 + number % 7), writer: MemberId(number + 1) },
        tombstone,
        ttl_ms,
    })
}

struct Replica {
    store: Store,
    waiting: BTreeMap<(u64, u64), Arc<Entry>>,
    had: Vec<Arc<Entry>>,
}

impl Replica {
    fn new() -> Replica {
        Replica { store: store(), waiting: BTreeMap::new(), had: Vec::new() }
    }

    fn deliver(&mut self, ms: u64) {
        while let Some((&due, _)) = self.waiting.first_key_value().filter(|((at, _), _)| *at <= ms) {
            let entry = self.waiting.remove(&due).unwrap();
            self.store.merge(at(ms), &entry);
            self.had.push(entry);
        }
    }
}

fn run(seed: u64, steps: u64) {
    let mut rng = Rng::from_number(seed);
    let mut replicas = [Replica::new(), Replica::new(), Replica::new()];
    let mut ms = 20_000;
    let mut number = 0;
    for _ in 0..steps {
        ms += rng.below(700) as u64;
        for _ in 0..rng.below(4) {
            number += 1;
            let entry = write(&mut rng, ms, number);
            for replica in &mut replicas {
                let mut form = entry.clone();
                let late = rng.below(6_000) as u64;
                // Somebody else may have ended its lifetime before it arrives.
                let over = entry.ttl_ms.map(|ttl| entry.version.stamp.wall().0 + ttl);
                if over.is_some_and(|over| over <= START_MS + ms + late + 500) && rng.chance(0.5) {
                    form = super::buried(&entry);
                }
                replica.waiting.insert((ms + late, number), form);
            }
        }
        for replica in &mut replicas {
            replica.deliver(ms);
            if rng.chance(0.3) {
                replica.store.handle_timeout(at(ms));
            }
            let settled = at(ms + 2_000 - rng.below(9_000) as u64).wall.second();
            assert_eq!(
                replica.store.settled_root(at(ms), settled),
                Some(naive_root(&replica.had, settled)),
                "seed {seed}, now {ms}, T {settled:?}"
            );
            check_view(replica, at(ms), settled);
        }
    }
    ms += 6_000;
    for replica in &mut replicas {
        replica.deliver(ms);
    }
    for back in 0..8 {
        let settled = at(ms).wall.second().minus(back);
        let roots: Vec<_> =
            replicas.iter_mut().map(|r| r.store.settled_root(at(ms), settled).unwrap()).collect();
        assert!(roots.iter().all(|r| *r == roots[0]), "seed {seed}, {back} s ago: {roots:x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn settled_roots_are_those_of_the_whole_history(seed: u64) {
        run(seed, 60);
    }

    #[test]
    fn merging_commutes_associates_and_is_idempotent(seed: u64) {
        let mut rng = Rng::from_number(seed);
        let mut entries: Vec<Arc<Entry>> = (0..3).map(|n| {
            let entry = write(&mut rng, 5_000, n);
            Arc::new(Entry { key: (&b"one"[..]).into(), ..(*entry).clone() })
        }).collect();
        // Of one version there are two forms when it has a lifetime.
        if let Some(entry) = entries.iter().find(|e| e.ttl_ms.is_some()).cloned() {
            entries.push(super::buried(&entry));
        }
        let now = at(7_100);
        let dump = |store: &mut Store| {
            store.handle_timeout(now);
            let page = store.page(0, usize::MAX).entries;
            (page, store.live_sum(), store.bytes(), store.tombstones(), store.len())
        };
        let mut first = None;
        for order in orders(entries.len()) {
            let mut store = store();
            for (n, &i) in order.iter().enumerate() {
                store.merge(now, &entries[i]);
                if rng.chance(0.5) {
                    store.merge(now, &entries[order[rng.below(n + 1)]]);
                }
            }
            let state = dump(&mut store);
            let held = state.0.first().cloned().unwrap();
            prop_assert!(matches!(store.merge(now, &held), MergedEntry::Known | MergedEntry::Refused(_)));
            prop_assert_eq!(first.get_or_insert_with(|| state.clone()), &state);
            // Merging the outcomes of two parts is merging the parts.
            let (mut left, mut right) = (self::store(), self::store());
            let cut = rng.below(order.len() + 1);
            for &i in &order[..cut] { left.merge(now, &entries[i]); }
            for &i in &order[cut..] { right.merge(now, &entries[i]); }
            for entry in right.page(0, usize::MAX).entries { left.merge(now, &entry); }
            let joined = dump(&mut left);
            prop_assert_eq!(&joined, &state);
        }
    }
}

fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(n - 1) {
        for at in 0..n {
            let mut order = shorter.clone();
            order.insert(at, n - 1);
            all.push(order);
        }
    }
    all
}
