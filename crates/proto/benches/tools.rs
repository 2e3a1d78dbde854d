//! The stand-alone tools against the hash of one 64-byte block, the unit in which hash trees are best compared:
//! divide a figure by `hash/64B` to carry it to another machine.

#![allow(clippy::unwrap_used)]

use core::hint::black_box;
use core::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hearsay_proto::merkle::{HashKey, MerkleMap, MerkleTree, list_level};
use hearsay_proto::phi::{ArrivalWindow, Model, phi, timeout};
use hearsay_proto::ring::{HashRing, RingMember, RingOptions, key_hash};

fn block(number: u64) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

fn element(key: &HashKey, number: u64) -> (u16, u128) {
    (key.bucket(&number.to_le_bytes()), key.element(&block(number)))
}

fn tree(key: &HashKey, size: u64) -> MerkleTree {
    let mut tree = MerkleTree::new();
    tree.bulk((0..size).map(|number| element(key, number)));
    tree
}

fn hashes(c: &mut Criterion) {
    let key = HashKey::new("bench");
    let input = block(7);
    c.bench_function("hash/64B", |b| b.iter(|| key.element(black_box(&input))));
    c.bench_function("hash/node", |b| b.iter(|| key.node(1, 2, 3, black_box(4))));
}

fn trees(c: &mut Criterion) {
    let key = HashKey::new("bench");
    for size in [1_000u64, 30_000, 1_000_000] {
        let mut tree = tree(&key, size);
        println!("merkle heap at {size}: {:.1} B/key", tree.heap_bytes() as f64 / size as f64);
        let mut number = 0;
        c.bench_function(&format!("merkle/rehash one key and root/{size}"), |b| {
            b.iter(|| {
                number = (number + 7919) % size;
                let (bucket, old) = (number as u16, u128::from(number));
                let new = key.element(&block(number));
                tree.replace(bucket, old, new);
                tree.replace(bucket, new, old);
                key.root(1, tree.total())
            });
        });
        let mut number = size;
        c.bench_function(&format!("merkle/add and remove with hashes/{size}"), |b| {
            b.iter(|| {
                number += 1;
                let (bucket, element) = element(&key, number);
                tree.add(bucket, element);
                tree.remove(bucket, element);
            });
        });
        let level = list_level(size as usize).saturating_sub(1);
        c.bench_function(&format!("merkle/16 digests of a node/{size}"), |b| {
            b.iter(|| tree.digests(&key, black_box(1), level, 0, &|_, _| 0));
        });
    }
    let mut group = c.benchmark_group("merkle bulk");
    group.sample_size(10);
    for size in [100_000u64, 1_000_000] {
        group.bench_function(format!("with hashes/{size}"), |b| b.iter(|| tree(&key, size).total()));
    }
    let elements: Vec<_> = (0..100_000).map(|number| element(&key, number)).collect();
    group.bench_function("hashed before/100000", |b| {
        b.iter(|| {
            let mut tree = MerkleTree::new();
            tree.bulk(elements.iter().copied());
            tree.total()
        });
    });
    group.bench_function("one by one/100000", |b| {
        b.iter(|| {
            let mut tree = MerkleTree::new();
            elements.iter().for_each(|(bucket, element)| tree.add(*bucket, *element));
            tree.total()
        });
    });
    group.finish();
}

fn maps(c: &mut Criterion) {
    let mut map = MerkleMap::new();
    for number in 0..100_000u64 {
        map.set(&number.to_le_bytes(), b"value");
    }
    let _ = map.root();
    let mut number = 0u64;
    c.bench_function("map/set one and root/100000", |b| {
        b.iter(|| {
            number += 1;
            map.set(&(number * 7919 % 100_000).to_le_bytes(), &number.to_le_bytes());
            map.root()
        });
    });
    let mut other = map.clone();
    other.set(&5u64.to_le_bytes(), b"different");
    let _ = (map.root(), other.root());
    c.bench_function("map/diff of one/100000", |b| b.iter(|| map.diff(&other).keys.len()));
    let mut group = c.benchmark_group("map");
    group.sample_size(10);
    group.bench_function("build and root/100000", |b| {
        b.iter(|| {
            let mut map = MerkleMap::new();
            for number in 0..100_000u64 {
                map.set(&number.to_le_bytes(), b"value");
            }
            map.root()
        });
    });
    group.finish();
}

fn detectors(c: &mut Criterion) {
    for model in [Model::Normal, Model::Exponential, Model::Pekko] {
        c.bench_function(&format!("phi/{model:?}"), |b| {
            b.iter(|| phi(model, black_box(1800.0), 1000.0, 100.0))
        });
        c.bench_function(&format!("phi timeout/{model:?}"), |b| {
            b.iter(|| timeout(model, 1000.0, 100.0, black_box(8.0)));
        });
    }
    let mut window = ArrivalWindow::new(1000);
    let mut interval_us = 0;
    c.bench_function("phi window/push and phi", |b| {
        b.iter(|| {
            interval_us = (interval_us + 7919) % 1_000_000;
            window.push(Duration::from_micros(interval_us));
            window.phi(Duration::from_millis(1800), Model::Normal, Duration::from_millis(100))
        });
    });
}

fn rings(c: &mut Criterion) {
    for size in [10usize, 100, 1000] {
        let mut ring = HashRing::new(RingOptions::default()).unwrap();
        ring.extend((0..size).map(|name| RingMember::new(format!("api-{name}")))).unwrap();
        let mut hash = 0u64;
        c.bench_function(&format!("ring/owner of hash/{size}"), |b| {
            b.iter(|| {
                hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15);
                ring.owner_of_hash(black_box(hash)).map(str::len)
            });
        });
        let mut user = 0u64;
        c.bench_function(&format!("ring/owner/{size}"), |b| {
            b.iter(|| {
                user += 1;
                ring.owner(&user.to_le_bytes()).map(str::len)
            });
        });
        c.bench_function(&format!("ring/3 owners/{size}"), |b| {
            b.iter(|| {
                user += 1;
                ring.owners(&user.to_le_bytes(), 3).len()
            });
        });
        c.bench_function(&format!("ring/add one/{size}"), |b| {
            b.iter_batched(
                || ring.clone(),
                |mut ring| {
                    ring.add(RingMember::new("joiner")).unwrap();
                    ring
                },
                BatchSize::LargeInput,
            );
        });
    }
    c.bench_function("ring/key hash", |b| b.iter(|| key_hash(black_box(b"user:42"))));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(30);
    targets = hashes, trees, maps, detectors, rings
}
criterion_main!(benches);
