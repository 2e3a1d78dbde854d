use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key() -> HashKey {
    HashKey::new("test")
}

fn element(key: &HashKey, number: u64) -> (u16, u128) {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&number.to_le_bytes());
    (key.bucket(&number.to_le_bytes()), key.element(&block))
}

/// Every sum of a tree, taken anew from the elements alone.
fn check<'a>(tree: &MerkleTree, elements: impl Iterator<Item = &'a (u16, u128)>) {
    let mut sums: Vec<Vec<u128>> = (0..=LEVEL_MAX).map(|level| vec![0; 1 << (4 * level)]).collect();
    for (bucket, element) in elements {
        for (level, sums) in sums.iter_mut().enumerate() {
            let sum = &mut sums[usize::from(*bucket) >> (16 - 4 * level)];
            *sum = sum.wrapping_add(*element);
        }
    }
    for (level, sums) in (0..).zip(&sums) {
        for (index, sum) in (0..=u16::MAX).zip(sums) {
            assert_eq!(
                tree.sum(level, index),
                *sum,
                "level {level}, node {index} of {} elements",
                tree.len()
            );
        }
    }
}

#[test]
fn hashes_depend_on_label_use_and_input() {
    let (a, b) = (key(), HashKey::new("other"));
    assert_eq!(a.element(&[7; 64]), key().element(&[7; 64]));
    assert_ne!(a.element(&[7; 64]), b.element(&[7; 64]));
    assert_ne!(a.element(&[7; 64]), a.element(&[8; 64]));
    assert_ne!(a.element(&[7; 64]) as u64, a.name(&[7; 64]));
    assert_ne!(a.name(&[7; 64]) as u32, a.tag(&[7; 64]));
    assert_eq!(a.bucket(b"x"), (a.name(b"x") >> 48) as u16);
    assert_ne!(a.long(b"x"), a.long(b"y"));
    let root = a.root(1, 5);
    assert_eq!(root, a.node(1, 0, 0, 5));
    for other in [a.root(2, 5), a.root(1, 6), a.node(1, 1, 0, 5), a.node(1, 0, 1, 5), b.root(1, 5)] {
        assert_ne!(root, other);
    }
    // The hash of the protocol: BLAKE3 keyed, first bytes little-endian.
    let derived = blake3::derive_key("hearsay 2026 element v1", b"test");
    let hash = blake3::keyed_hash(&derived, &[7; 64]);
    assert_eq!(a.element(&[7; 64]).to_le_bytes(), hash.as_bytes()[..16]);
    assert_eq!(format!("{a:?}"), "HashKey");
}

#[test]
fn ranges_tile_the_buckets() {
    for level in 0..=LEVEL_MAX {
        let mut next = 0u32;
        for index in 0..16u32.pow(u32::from(level)) {
            assert!(node_exists(level, index as u16));
            let range = bucket_range(level, index as u16);
            assert_eq!(u32::from(*range.start()), next);
            next = u32::from(*range.end()) + 1;
        }
        assert_eq!(next, 65_536);
    }
    assert!(!node_exists(0, 1) && !node_exists(1, 16) && !node_exists(3, 4096) && !node_exists(5, 0));
    assert!(node_exists(4, u16::MAX));
    // Out of range it wraps and never panics.
    assert_eq!(bucket_range(1, 16), bucket_range(1, 0));
    assert_eq!(bucket_range(255, 7), 7..=7);
}

#[test]
fn list_level_is_the_rule_of_s4() {
    for (n, level) in [
        (0, 0),
        (16, 0),
        (220, 0),
        (221, 1),
        (256, 1),
        (257, 2),
        (4096, 2),
        (4097, 3),
        (65_536, 3),
        (65_537, 4),
        (1_000_000, 4),
        (usize::MAX, 4),
    ] {
        assert_eq!(list_level(n), level, "n = {n}");
    }
}

#[test]
fn levels_follow_the_number_of_elements_and_sums_do_not_change() {
    let key = key();
    let elements: Vec<_> = (0..70_000).map(|n| element(&key, n)).collect();
    let mut tree = MerkleTree::new();
    assert_eq!((tree.levels(), tree.total(), tree.heap_bytes()), (0, 0, 0));
    let expect = [(16, 0), (17, 1), (256, 1), (257, 2), (4096, 2), (4097, 3), (65_536, 3), (65_537, 4)];
    for (count, (bucket, element)) in elements.iter().enumerate() {
        tree.add(*bucket, *element);
        if let Some((n, levels)) = expect.iter().find(|(n, _)| *n == count + 1) {
            assert_eq!(tree.levels(), *levels, "at {n}");
            check(&tree, elements[..*n].iter());
        }
    }
    let mut bulk = MerkleTree::new();
    bulk.bulk(elements.iter().copied());
    // Without a size hint, and on top of what is there.
    let mut parts = MerkleTree::new();
    parts.bulk(elements[..100].iter().copied().filter(|_| true));
    parts.bulk(elements[100..].iter().copied().filter(|_| true));
    for other in [&bulk, &parts] {
        assert_eq!((other.len(), other.levels(), other.total()), (70_000, 4, tree.total()));
        for level in 1..=LEVEL_MAX {
            for index in (0..=u16::MAX).filter(|index| node_exists(level, *index)) {
                assert_eq!(other.sum(level, index), tree.sum(level, index));
            }
        }
    }
    // Down again: a level goes below a quarter of its nodes, and a tree at the seam does not flap.
    let mut seen = vec![];
    for (count, (bucket, element)) in elements.iter().enumerate().rev() {
        tree.remove(*bucket, *element);
        assert_eq!(tree.len(), count);
        if seen.last() != Some(&tree.levels()) {
            seen.push(tree.levels());
            check(&tree, elements[..count].iter());
        }
    }
    assert_eq!(seen, [4, 3, 2, 1, 0]);
    assert!(tree.is_empty() && tree.total() == 0);
    assert!(tree.heap_bytes() < 1024, "{}", tree.heap_bytes());
}

#[test]
fn a_million_elements_take_little_memory() {
    let mut tree = MerkleTree::new();
    tree.bulk(
        (0..1_000_000u64).map(|n| ((n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16, u128::from(n))),
    );
    assert_eq!(tree.levels(), 4);
    assert!(tree.heap_bytes() < 1_200_000, "{}", tree.heap_bytes());
    assert!(tree.heap_bytes() <= 60 * tree.len());
    tree.clear();
    assert_eq!((tree.len(), tree.heap_bytes()), (0, 0));
}

#[test]
fn a_walk_finds_every_difference() {
    let key = key();
    for n in [300u64, 5000, 70_000] {
        let (mut ours, mut theirs) = (MerkleTree::new(), MerkleTree::new());
        ours.bulk((0..n).map(|i| element(&key, i)));
        theirs.bulk((0..n).map(|i| element(&key, i)));
        assert_eq!(key.root(3, ours.total()), key.root(3, theirs.total()));
        let changed: Vec<_> = (0..5).map(|i| element(&key, i * n / 5)).collect();
        for (bucket, old) in &changed {
            theirs.replace(*bucket, *old, !*old);
        }
        assert_ne!(key.root(3, ours.total()), key.root(3, theirs.total()));
        let none = |_: u8, _: u16| 0;
        let (mut open, mut asked) = (vec![0u16], 0);
        for level in 0..list_level(n as usize) {
            let mut next = vec![];
            for index in open {
                let a = ours.digests(&key, 99, level, index, &none).unwrap();
                let b = theirs.digests(&key, 99, level, index, &none).unwrap();
                asked += 1;
                next.extend((0..16u16).filter(|i| differing(&a, &b) & (1 << i) != 0).map(|i| index * 16 + i));
            }
            open = next;
        }
        let level = list_level(n as usize);
        for (bucket, _) in &changed {
            assert!(open.iter().any(|index| bucket_range(level, *index).contains(bucket)));
        }
        assert!(open.len() <= 5 && asked <= 5 * usize::from(level), "{asked} nodes asked");
    }
    assert_eq!(MerkleTree::new().digests(&key, 0, 4, 0, &|_, _| 0), None);
    assert_eq!(MerkleTree::new().digests(&key, 0, 1, 16, &|_, _| 0), None);
    assert!(MerkleTree::new().digests(&key, 0, 3, 4095, &|_, _| 0).is_some());
    assert_eq!(differing(&[0; 16], &[0; 16]), 0);
    assert_eq!(differing(&core::array::from_fn(|i| i as u32), &[0; 16]), 0xFFFE);
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u64),
    Delete(u8),
    Bulk(Vec<u16>),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (any::<u8>(), 0..4u64).prop_map(|(name, version)| Step::Set(name, version)),
        6 => any::<u8>().prop_map(Step::Delete),
        1 => proptest::collection::vec(256..2000u16, 0..600).prop_map(Step::Bulk),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The oracle is a map of what is there, from which every sum is taken anew.
    #[test]
    fn the_tree_agrees_with_a_recount(steps in steps(), probe in any::<u16>()) {
        let key = key();
        let mut held: BTreeMap<(u16, u32), (u16, u128)> = BTreeMap::new();
        let mut tree = MerkleTree::new();
        let mut serial = 0;
        for step in steps {
            match step {
                Step::Set(name, version) => {
                    let bucket = element(&key, u64::from(name)).0;
                    let new = (bucket, element(&key, u64::from(name) << 8 | version).1);
                    match held.insert((u16::from(name), 0), new) {
                        Some(old) if version % 2 == 0 => tree.replace(bucket, old.1, new.1),
                        Some(old) => {
                            tree.remove(bucket, old.1);
                            tree.add(bucket, new.1);
                        }
                        None => tree.add(bucket, new.1),
                    }
                }
                Step::Delete(name) => {
                    if let Some((bucket, element)) = held.remove(&(u16::from(name), 0)) {
                        tree.remove(bucket, element);
                    }
                }
                Step::Bulk(names) => {
                    let new: Vec<_> = names.iter().map(|name| element(&key, u64::from(*name))).collect();
                    for (name, pair) in names.iter().zip(&new) {
                        serial += 1;
                        held.insert((*name, serial), *pair);
                    }
                    tree.bulk(new);
                }
                Step::Clear => {
                    held.clear();
                    tree.clear();
                }
            }
            prop_assert_eq!(tree.len(), held.len());
            check(&tree, held.values());
        }
        let mut fresh = MerkleTree::new();
        held.values().for_each(|(bucket, element)| fresh.add(*bucket, *element));
        for level in 0..LEVEL_MAX {
            let index = if level == 0 { 0 } else { probe >> (4 * (4 - level)) };
            prop_assert_eq!(
                fresh.digests(&key, 5, level, index, &|_, _| 0),
                tree.digests(&key, 5, level, index, &|_, _| 0)
            );
        }
    }

    /// A tree less its late changes is the tree before them, at every node.
    #[test]
    fn undoing_late_changes_gives_the_earlier_tree(
        early in proptest::collection::vec(any::<u16>(), 0..400),
        late in proptest::collection::vec((any::<u16>(), 0..3u8), 0..60),
        probe in any::<u16>()
    ) {
        let key = key();
        let mut tree = MerkleTree::new();
        let mut held: BTreeMap<u16, (u16, u128)> = BTreeMap::new();
        for name in early {
            let new = element(&key, u64::from(name));
            if held.insert(name, new).is_none() {
                tree.add(new.0, new.1);
            }
        }
        let before = tree.clone();
        let mut changes = vec![];
        for (version, (name, kind)) in late.into_iter().enumerate() {
            let name = held.keys().nth(usize::from(name) % held.len().max(1)).copied().filter(|_| kind > 0).unwrap_or(name);
            let bucket = element(&key, u64::from(name)).0;
            let old = held.get(&name).map(|(_, element)| *element);
            let new = (kind < 2).then(|| element(&key, u64::from(name) | (version as u64 + 1) << 20).1);
            match (old, new) {
                (Some(old), Some(new)) => tree.replace(bucket, old, new),
                (Some(old), None) => tree.remove(bucket, old),
                (None, Some(new)) => tree.add(bucket, new),
                (None, None) => {}
            }
            match new {
                Some(new) => held.insert(name, (bucket, new)),
                None => held.remove(&name),
            };
            changes.push((bucket, old, new));
        }
        let delta = Delta::new(changes);
        prop_assert_eq!(tree.len() as isize - delta.count(), before.len() as isize);
        prop_assert_eq!(tree.total().wrapping_sub(delta.total()), before.total());
        prop_assert_eq!(delta.total(), delta.sum(0, 0));
        for level in 0..LEVEL_MAX {
            let index = if level == 0 { 0 } else { probe >> (4 * (4 - level)) };
            prop_assert_eq!(
                tree.digests(&key, 8, level, index, &|level, index| delta.sum(level, index)),
                before.digests(&key, 8, level, index, &|_, _| 0)
            );
        }
    }

    #[test]
    fn equal_maps_and_only_they_have_equal_roots(
        steps in proptest::collection::vec((0..400u16, 0..4u8), 0..600), swap in any::<u64>()
    ) {
        let mut map = MerkleMap::new();
        let mut oracle: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (name, value) in steps {
            let name = format!("key/{name}").into_bytes();
            if value == 3 {
                prop_assert_eq!(map.delete(&name), oracle.remove(&name).is_some());
            } else {
                let old = oracle.insert(name.clone(), vec![value]);
                prop_assert_eq!(map.set(&name, &[value]), old != Some(vec![value]));
            }
            prop_assert_eq!(map.len(), oracle.len());
        }
        // The same content in another order.
        let mut names: Vec<_> = oracle.iter().collect();
        names.sort_by_key(|(name, _)| blake3::hash(&[name.as_slice(), &swap.to_le_bytes()].concat()).as_bytes()[0]);
        let mut other = MerkleMap::new();
        for (name, value) in &names {
            other.set(name, value);
            prop_assert!(other.contains(name));
        }
        prop_assert_eq!(map.root(), other.root());
        prop_assert_eq!(map.diff(&other), Diff { keys: vec![], compared: 1 });
        if let Some((name, _)) = names.first() {
            other.set(name, b"another");
            prop_assert_ne!(map.root(), other.root());
            prop_assert_eq!(map.diff(&other).keys, vec![name.to_vec()]);
            other.delete(name);
            prop_assert_ne!(map.root(), other.root());
            prop_assert_eq!(map.diff(&other).keys, vec![name.to_vec()]);
        }
    }

    #[test]
    fn the_diff_is_that_of_two_maps(
        ours in proptest::collection::btree_map(0..2000u16, 0..3u8, 0..400),
        theirs in proptest::collection::btree_map(0..2000u16, 0..3u8, 0..400)
    ) {
        let build = |held: &BTreeMap<u16, u8>| {
            let mut map = MerkleMap::new();
            held.iter().for_each(|(name, value)| { map.set(&name.to_be_bytes(), &[*value]); });
            map
        };
        let want: Vec<Vec<u8>> = (0..2000u16)
            .filter(|name| ours.get(name) != theirs.get(name))
            .map(|name| name.to_be_bytes().to_vec())
            .collect();
        prop_assert_eq!(&build(&ours).diff(&build(&theirs)).keys, &want);
        prop_assert_eq!(&build(&theirs).diff(&build(&ours)).keys, &want);
    }
}

#[test]
fn the_diff_is_a_walk() {
    let mut ours = MerkleMap::new();
    for name in 0..100_000u32 {
        ours.set(&name.to_be_bytes(), b"value");
    }
    let mut theirs = ours.clone();
    theirs.set(&77_777u32.to_be_bytes(), b"other");
    let one = ours.diff(&theirs);
    assert_eq!(one.keys, vec![77_777u32.to_be_bytes().to_vec()]);
    // Root and 16 children on each of log16(100,000 / 16) levels, at most one more.
    assert!(one.compared <= 1 + 16 * 5, "{}", one.compared);
    for name in 0..100u32 {
        theirs.delete(&(name * 1000).to_be_bytes());
    }
    let hundred = ours.diff(&theirs);
    assert_eq!(hundred.keys.len(), 101);
    assert!(hundred.compared < 101 * 16 * 4, "{}", hundred.compared);
    assert_eq!(ours.diff(&ours).compared, 1);
    assert_eq!(ours.diff(&MerkleMap::new()).keys.len(), 100_000);
    assert!(!ours.is_empty() && MerkleMap::new().is_empty());
    ours.clear();
    assert_eq!(ours.root(), MerkleMap::new().root());
    // Entries cannot slide between key and value.
    let (mut a, mut b) = (MerkleMap::new(), MerkleMap::new());
    a.set(b"ab", b"c");
    b.set(b"a", b"bc");
    assert_ne!(a.root(), b.root());
}
