use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn ring(virtual_nodes: u32, names: impl IntoIterator<Item = String>) -> HashRing {
    let mut ring = HashRing::new(RingOptions { virtual_nodes, zone_aware: false }).unwrap();
    ring.extend(names.into_iter().map(RingMember::new)).unwrap();
    ring
}

fn zoned(zones: &[(&str, usize)]) -> HashRing {
    let mut ring = HashRing::new(RingOptions { virtual_nodes: 100, zone_aware: true }).unwrap();
    for (zone, count) in zones {
        for number in 0..*count {
            let name = format!("{zone}-{number}");
            let zone = Some((*zone).to_owned()).filter(|zone| !zone.is_empty());
            ring.add(RingMember { zone, ..RingMember::new(name) }).unwrap();
        }
    }
    ring
}

/// The owner as the definition says, point by point.
fn naive_owner(ring: &HashRing, hash: u64) -> Option<String> {
    let all = ring.members().flat_map(|member| {
        let count = (f64::from(ring.options().virtual_nodes) * member.weight).round().max(1.0) as usize;
        points_of(&member.name, count).into_iter().map(|point| (point, member.name.clone()))
    });
    let all: BTreeSet<_> = all.collect();
    all.range((hash, String::new())..).next().or_else(|| all.first()).map(|(_, name)| name.clone())
}

#[test]
fn shares_deviate_by_one_over_the_root_of_the_points() {
    for (virtual_nodes, names, rings) in [(16u32, 100usize, 60), (100, 100, 60), (256, 100, 40)] {
        let mut deviations = vec![];
        for seed in 0..rings {
            let ring = ring(virtual_nodes, (0..names).map(|name| format!("{seed}/{name}")));
            let shares: Vec<f64> =
                ring.members().map(|member| ring.share(&member.name) * names as f64).collect();
            assert!((shares.iter().sum::<f64>() - names as f64).abs() < 1e-9 * names as f64);
            deviations
                .push((shares.iter().map(|share| (share - 1.0).powi(2)).sum::<f64>() / names as f64).sqrt());
        }
        let mean = deviations.iter().sum::<f64>() / deviations.len() as f64;
        let want = 1.0 / f64::from(virtual_nodes).sqrt();
        println!("V = {virtual_nodes}: sd {mean:.4}, 1/sqrt(V) {want:.4}");
        assert!((mean / want - 1.0).abs() < 0.05, "V = {virtual_nodes}: sd {mean}, want {want}");
    }
}

#[test]
fn a_join_moves_its_share_and_nothing_between_others() {
    let keys: Vec<u64> = (0..20_000u32).map(|key| key_hash(&key.to_le_bytes())).collect();
    for names in [10usize, 50] {
        let (mut moved, mut between) = (0usize, 0usize);
        let rings = 40;
        for seed in 0..rings {
            let mut ring = ring(100, (0..names).map(|name| format!("{seed}/{name}")));
            let before: Vec<String> =
                keys.iter().map(|key| ring.owner_of_hash(*key).unwrap().to_owned()).collect();
            ring.add(RingMember::new("joiner")).unwrap();
            for (key, before) in keys.iter().zip(&before) {
                let after = ring.owner_of_hash(*key).unwrap();
                moved += usize::from(after != before);
                between += usize::from(after != before && after != "joiner");
            }
            assert!(ring.remove("joiner"));
            for (key, before) in keys.iter().zip(&before) {
                assert_eq!(ring.owner_of_hash(*key).unwrap(), before);
            }
        }
        let part = moved as f64 / (keys.len() * rings) as f64;
        let want = 1.0 / (names as f64 + 1.0);
        println!("N = {names}: moved {part:.5}, 1/(N+1) {want:.5}");
        assert!((part / want - 1.0).abs() < 0.10, "N = {names}: moved {part}, want {want}");
        assert_eq!(between, 0);
    }
}

#[test]
fn weights_are_shares_and_a_change_moves_little() {
    let mut ring = ring(400, (0..20).map(|name| name.to_string()));
    ring.add(RingMember { weight: 4.0, ..RingMember::new("heavy") }).unwrap();
    ring.add(RingMember { weight: 0.25, ..RingMember::new("light") }).unwrap();
    assert!((ring.share("heavy") / (4.0 / 24.25) - 1.0).abs() < 0.15, "{}", ring.share("heavy"));
    assert!((ring.share("light") / (0.25 / 24.25) - 1.0).abs() < 0.35, "{}", ring.share("light"));
    let keys: Vec<u64> = (0..20_000u32).map(|key| key_hash(&key.to_le_bytes())).collect();
    let before: Vec<String> = keys.iter().map(|key| ring.owner_of_hash(*key).unwrap().to_owned()).collect();
    assert_eq!(ring.add(RingMember { weight: 5.0, ..RingMember::new("heavy") }), Ok(true));
    for (key, before) in keys.iter().zip(&before) {
        let after = ring.owner_of_hash(*key).unwrap();
        assert!(after == before || after == "heavy", "a heavier name only takes");
    }
    // However light, a name has a point.
    ring.add(RingMember { weight: 1e-9, ..RingMember::new("feather") }).unwrap();
    assert!(ring.share("feather") > 0.0);
}

#[test]
fn owners_are_distinct_and_in_ring_order() {
    let ring = ring(100, (0..20).map(|name| name.to_string()));
    for key in 0..500u32 {
        let owners = ring.owners(&key.to_le_bytes(), 5);
        assert_eq!(owners.len(), 5);
        assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 5);
        assert_eq!(Some(owners[0]), ring.owner(&key.to_le_bytes()));
        assert_eq!(ring.owners(&key.to_le_bytes(), 3), owners[..3]);
        // The second is the owner once the first is gone.
        let mut without = ring.clone();
        without.remove(owners[0]);
        assert_eq!(Some(owners[1]), without.owner(&key.to_le_bytes()));
    }
    assert_eq!(ring.owners(b"x", 0), Vec::<&str>::new());
    assert_eq!(ring.owners(b"x", 100).len(), 20);
}

#[test]
fn owners_spread_over_zones() {
    let ring = zoned(&[("a", 10), ("b", 10), ("c", 3), ("", 1)]);
    let zone = |name: &str| name.split('-').next().unwrap().to_owned();
    for key in 0..500u32 {
        let key = key.to_le_bytes();
        for n in 0..=30 {
            let owners = ring.owners(&key, n);
            assert_eq!(owners.len(), n.min(24));
            assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
            let mut used: BTreeMap<String, usize> = BTreeMap::new();
            for owner in &owners {
                *used.entry(zone(owner)).or_default() += 1;
            }
            // No zone is used twice more than one that still has an unused name.
            for (small, size) in [("a", 10), ("b", 10), ("c", 3), ("", 1)] {
                let here = used.get(small).copied().unwrap_or(0);
                assert!(here == size || used.values().all(|there| *there <= here + 1), "{n}: {used:?}");
            }
        }
        let four = ring.owners(&key, 4);
        assert_eq!(Some(four[0]), ring.owner(&key));
        assert_eq!(ring.owners(&key, 10)[..4], four[..], "longer lists begin as shorter ones");
    }
    // One zone, or none named: as if zones did not matter.
    let one = zoned(&[("a", 8)]);
    let mut blind = HashRing::new(RingOptions::default()).unwrap();
    blind.extend(one.members().cloned()).unwrap();
    assert_eq!(one.owners(b"key", 5), blind.owners(b"key", 5));
    // A zone that empties is forgotten.
    let mut ring = zoned(&[("a", 2), ("b", 1)]);
    ring.remove("b-0");
    assert_eq!(ring.owners(b"key", 3).len(), 2);
}

#[test]
fn the_version_is_that_of_the_contents() {
    let forward = ring(100, (0..50).map(|name| name.to_string()));
    let backward = ring(100, (0..50).rev().map(|name| name.to_string()));
    let mut detour = ring(100, (10..60).map(|name| name.to_string()));
    for name in 50..60 {
        assert!(detour.remove(&name.to_string()));
    }
    for name in 0..10 {
        assert_eq!(detour.add(RingMember::new(name.to_string())), Ok(true));
    }
    assert_eq!(forward.version(), backward.version());
    assert_eq!(forward.version(), detour.version());
    let mut other = forward.clone();
    let mut versions = vec![forward.version()];
    other.add(RingMember { weight: 2.0, ..RingMember::new("7") }).unwrap();
    versions.push(other.version());
    other.add(RingMember { zone: Some("z".into()), ..RingMember::new("7") }).unwrap();
    versions.push(other.version());
    other.remove("7");
    versions.push(other.version());
    versions.push(ring(99, (0..50).map(|name| name.to_string())).version());
    versions.push(HashRing::new(RingOptions::default()).unwrap().version());
    assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), versions.len());
    other.add(RingMember::new("7")).unwrap();
    assert_eq!(other.version(), forward.version());
    assert_eq!(other.add(RingMember::new("7")), Ok(false));
    assert!(!other.remove("nobody"));
    // Of a name given twice the last holds, also when it is what the ring has.
    let heavy = RingMember { weight: 3.0, ..RingMember::new("7") };
    assert_eq!(other.extend([heavy.clone(), RingMember::new("7")]), Ok(false));
    assert_eq!(other.extend([RingMember::new("7"), heavy.clone()]), Ok(true));
    assert_eq!((other.get("7"), other.len()), (Some(&heavy), 50));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut ring = ring(100, ["a".to_owned()]);
    let version = ring.version();
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let bad = RingMember { weight, ..RingMember::new("b") };
        assert!(matches!(ring.extend([RingMember::new("c"), bad]), Err(RingError::Weight { .. })));
    }
    assert_eq!(ring.add(RingMember::new("")), Err(RingError::EmptyName));
    assert_eq!(ring.add(RingMember { weight: 1e9, ..RingMember::new("b") }), Err(RingError::TooManyPoints));
    assert_eq!((ring.version(), ring.len()), (version, 1));
    assert!(HashRing::new(RingOptions { virtual_nodes: 0, zone_aware: false }).is_err());
    assert!(RingError::TooManyPoints.to_string().contains("points"));
    // An empty ring owns nothing; a lone point owns all.
    let empty = HashRing::new(RingOptions { virtual_nodes: 1, zone_aware: true }).unwrap();
    assert_eq!((empty.owner(b"x"), empty.owners(b"x", 3), empty.is_empty()), (None, vec![], true));
    let mut lone = empty;
    lone.add(RingMember::new("only")).unwrap();
    assert_eq!((lone.owner(b"x"), lone.share("only"), lone.share("no")), (Some("only"), 1.0, 0.0));
    assert_eq!(lone.get("only"), Some(&RingMember::new("only")));
}

#[test]
fn key_hashes_are_those_of_the_reference() {
    // mmh3 5 for Python, hash_bytes(x64arch=False).
    assert_eq!(key_hash(b""), 0x0000_0000_0000_0000);
    assert_eq!(key_hash(b"a"), 0xa794_933c_5556_b01b);
    assert_eq!(key_hash(b"user:42"), 0x681d_4381_214a_3142);
    assert_eq!(key_hash(b"0123456789abcde"), 0x3c76_c46d_4d08_18c0);
    assert_eq!(key_hash(b"0123456789abcdef"), 0xfb7d_4409_36ae_d30a);
    assert_eq!(key_hash(b"0123456789abcdef0"), 0x1f8a_3855_6092_0c06);
    assert_eq!(key_hash("kéy/漢字/😀".as_bytes()), 0x0be3_dd0d_4dc1_0d73);
    assert_eq!(key_hash(&(0..100u8).collect::<Vec<u8>>()), 0x2a3a_0342_cee0_e2c5);
}

#[test]
fn one_change_adds_and_removes() {
    let mut one = ring(100, (0..20).map(|name| name.to_string()));
    let mut other = one.clone();
    let heavy = RingMember { weight: 2.0, ..RingMember::new("7") };
    assert_eq!(one.change([heavy.clone(), RingMember::new("new")], ["3", "nobody", "new"]), Ok(true));
    other.remove("3");
    other.add(RingMember::new("new")).unwrap();
    other.add(heavy).unwrap();
    assert_eq!((one.version(), one.len(), one.get("3")), (other.version(), 20, None));
    assert_eq!(one.names().flatten().count(), 20);
    for key in 0..200u32 {
        assert_eq!(one.owners(&key.to_le_bytes(), 3), other.owners(&key.to_le_bytes(), 3));
    }
    assert_eq!(one.change([RingMember::new("new")], ["nobody"]), Ok(false));
    assert_eq!(one.change([RingMember::new("")], ["5"]), Err(RingError::EmptyName));
    assert!(one.get("5").is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the order of changes, lookups are those of the definition and equal contents are equal rings.
    #[test]
    fn the_ring_agrees_with_its_definition(
        steps in proptest::collection::vec((0..12u8, 0..4u8), 1..40), hashes in proptest::collection::vec(any::<u64>(), 20)
    ) {
        let options = RingOptions { virtual_nodes: 7, zone_aware: false };
        let mut ring = HashRing::new(options).unwrap();
        let mut held = BTreeMap::new();
        for (name, weight) in steps {
            let name = name.to_string();
            if weight == 0 {
                prop_assert_eq!(ring.remove(&name), held.remove(&name).is_some());
            } else {
                let member = RingMember { weight: f64::from(weight), ..RingMember::new(name.clone()) };
                prop_assert_eq!(ring.add(member.clone()).unwrap(), held.insert(name, member.clone()) != Some(member));
            }
            prop_assert_eq!(ring.len(), held.len());
        }
        prop_assert!(ring.members().eq(held.values()));
        let mut fresh = HashRing::new(options).unwrap();
        fresh.extend(held.into_values()).unwrap();
        prop_assert_eq!(fresh.version(), ring.version());
        for hash in hashes.into_iter().chain([0, u64::MAX]).chain(ring.points.clone()) {
            let want = naive_owner(&ring, hash);
            prop_assert_eq!(ring.owner_of_hash(hash), want.as_deref());
            prop_assert_eq!(fresh.owner_of_hash(hash), want.as_deref());
        }
    }
}
