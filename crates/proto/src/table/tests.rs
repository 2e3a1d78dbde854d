use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::rng::Rng;

/// Every slot once in the order, runs within their length and none of them empty, room in proportion.
fn check<K: Ord + Clone + fmt::Debug>(index: &Index<K>) {
    let runs = &index.order.runs;
    assert!(runs.iter().all(|run| run.len() <= RUN_MAX));
    assert!(runs.len() < 2 || runs.iter().all(|run| !run.is_empty()));
    let mut slots: Vec<u32> = runs.iter().flatten().copied().collect();
    assert!(slots.is_sorted_by(|a, b| index.keys[*a as usize] < index.keys[*b as usize]));
    slots.sort_unstable();
    assert!(slots.iter().copied().eq(0..index.keys.len() as u32));
}

fn same(table: &Table<u32, u64>, model: &BTreeMap<u32, u64>) {
    check(&table.index);
    assert_eq!(table.len(), model.len());
    assert_eq!(table.is_empty(), model.is_empty());
    assert!(table.iter().eq(model));
    assert!(table.keys().eq(model.keys()));
    assert!(table.values().eq(model.values()));
    assert_eq!(table.first_key_value(), model.first_key_value());
}

/// One change of both, of a kind that `growth` favours.
fn step(
    rng: &mut Rng,
    keys: usize,
    growth: usize,
    table: &mut Table<u32, u64>,
    model: &mut BTreeMap<u32, u64>,
) {
    let (key, row) = (rng.below(keys) as u32, rng.below(1 << 30) as u64);
    match rng.below(10) {
        n if n < growth => assert_eq!(table.insert(key, row), model.insert(key, row)),
        0..=4 => assert_eq!(table.remove(&key), model.remove(&key)),
        5 => assert_eq!(table.pop_first(), model.pop_first()),
        6 => assert_eq!(table.or_insert_with(key, || row), model.entry(key).or_insert(row)),
        7 => {
            let (own, known) = (table.get_mut(&key), model.get_mut(&key));
            assert_eq!(own, known);
            if let (Some(own), Some(known)) = (own, known) {
                (*own, *known) = (row, row);
            }
        }
        8 => {
            let next = table.range(key..).next().map(|(key, _)| *key);
            assert_eq!(next, model.range(key..).next().map(|(key, _)| *key));
            if let Some(next) = next {
                assert_eq!(table.remove(&next), model.remove(&next));
            }
        }
        _ => {
            assert_eq!(table.get(&key), model.get(&key));
            assert_eq!(table.contains_key(&key), model.contains_key(&key));
        }
    }
}

#[test]
fn a_table_does_what_a_btree_map_does() {
    for seed in 0..8 {
        let mut rng = Rng::from_number(seed);
        // Few keys: always nearly full or empty. Many: a dozen runs that are cut, joined and dropped.
        for keys in [1, 5, 40, 6_000] {
            let (mut table, mut model) = (Table::new(), BTreeMap::new());
            for growth in [9, 1, 7, 0, 9, 3, 0] {
                for turn in 0..1_500 {
                    step(&mut rng, keys, growth, &mut table, &mut model);
                    if turn % 100 == 0 {
                        same(&table, &model);
                    }
                }
                same(&table, &model);
            }
        }
    }
}

#[test]
fn keys_that_come_in_order_fill_their_runs() {
    let mut up: Table<u32, u64> = Table::new();
    up.extend((0..10_000).map(|key| (key, 0)));
    check(&up.index);
    assert_eq!(up.index.order.runs.len(), 10_000usize.div_ceil(RUN_MAX));
    let down: Table<u32, u64> = (0..10_000).rev().map(|key| (key, 0)).collect();
    check(&down.index);
    assert_eq!(up, down);
    assert_ne!(up, (1..10_001).map(|key| (key, 0)).collect());
    assert_ne!(up, (0..10_000).map(|key| (key, 1)).collect());
}

#[test]
fn ranges_are_those_of_a_btree_map() {
    let mut rng = Rng::from_number(1);
    for rows in [0, 1, 7, 256, 257, 3_000] {
        let model: BTreeMap<u32, u64> = (0..rows).map(|row| (rng.below(8_000) as u32, row)).collect();
        let table: Table<u32, u64> = model.iter().map(|(key, row)| (*key, *row)).collect();
        let set: Set<u32> = model.keys().copied().collect();
        for _ in 0..300 {
            let (a, b) = (rng.below(8_000) as u32, rng.below(8_000) as u32);
            let (a, b) = (a.min(b), a.max(b) + 1);
            for from in [Bound::Unbounded, Bound::Included(a), Bound::Excluded(a)] {
                for to in [Bound::Unbounded, Bound::Included(b), Bound::Excluded(b)] {
                    assert!(table.range((from, to)).eq(model.range((from, to))), "{from:?} {to:?} of {rows}");
                    assert!(set.range((from, to)).eq(model.range((from, to)).map(|(key, _)| key)));
                }
            }
        }
    }
}

#[test]
fn all_rows_are_met_in_order_and_those_refused_go() {
    let mut rng = Rng::from_number(2);
    for rows in [0, 1, 300, 5_000] {
        let mut model: BTreeMap<u32, u64> = (0..rows).map(|row| (rng.below(50_000) as u32, row)).collect();
        let mut table: Table<u32, u64> = model.clone().into_iter().collect();
        let mut met = Vec::new();
        table.for_each_mut(|key, row| {
            met.push(*key);
            *row += 1;
        });
        model.values_mut().for_each(|row| *row += 1);
        assert!(met.iter().eq(model.keys()));
        table.values_mut().for_each(|row| *row += 1);
        model.values_mut().for_each(|row| *row += 1);
        same(&table, &model);
        for odd in [2, 3, 1] {
            let mut met = Vec::new();
            let keep = |row: u64| !row.is_multiple_of(odd);
            table.retain(|key, row| {
                met.push(*key);
                keep(*row)
            });
            assert!(met.iter().eq(model.keys()));
            model.retain(|_, row| keep(*row));
            same(&table, &model);
        }
    }
}

#[test]
fn a_table_taken_apart_gives_rows_in_order() {
    let mut rng = Rng::from_number(3);
    let model: BTreeMap<u32, u64> = (0..1_000).map(|row| (rng.below(9_000) as u32, row)).collect();
    let rows: Vec<(u32, u64)> = model.clone().into_iter().collect();
    let mixed = rng.distinct(rows.len(), rows.len()).into_iter().map(|at| rows[at]);
    assert!(mixed.collect::<Table<u32, u64>>().into_iter().eq(model));
}

#[test]
fn a_set_does_what_a_btree_set_does() {
    let mut rng = Rng::from_number(4);
    let (mut set, mut model) = (Set::new(), BTreeSet::new());
    for growth in [8, 2, 7, 1] {
        for _ in 0..2_000 {
            let key = (rng.below(40) as u64, rng.below(40) as u32);
            match rng.below(10) {
                n if n < growth => assert_eq!(set.insert(key), model.insert(key)),
                9 => assert_eq!(set.pop_first(), model.pop_first()),
                _ => assert_eq!(set.remove(&key), model.remove(&key)),
            }
            assert_eq!(set.contains(&key), model.contains(&key));
            assert_eq!((set.first(), set.len()), (model.first(), model.len()));
        }
        check(&set.0);
        assert!(set.iter().eq(&model));
    }
    let mut other: Set<(u64, u32)> = [(7, 7), (99, 0), (0, 99)].into_iter().collect();
    model.extend(&[(7, 7), (99, 0), (0, 99)]);
    set.append(&mut other);
    assert!(set.iter().eq(&model) && other.is_empty());
}

#[test]
fn rows_are_found_by_what_their_keys_borrow() {
    let mut table: Table<Arc<str>, u8> = Table::new();
    *table.or_default("b".into()) += 2;
    *table.or_default("b".into()) += 1;
    table.insert("a".into(), 1);
    assert_eq!((table.get("b"), table.get("c")), (Some(&3), None));
    assert_eq!(format!("{table:?}"), r#"{"a": 1, "b": 3}"#);
    assert_eq!(table.first_mut().map(|(key, row)| (key.clone(), *row)), Some(("a".into(), 1)));
    assert_eq!(table.remove("a"), Some(1));
    let set: Set<Arc<str>> = ["x".into()].into_iter().collect();
    assert!(set.contains("x") && set.get("y").is_none());
    assert_eq!(set.get("x").map(|x| &**x), Some("x"));
}

/// Rows that a table, and the parts of its order, hold memory for.
fn room<V>(table: &Table<u32, V>) -> [usize; 3] {
    let order = table.index.order.runs.iter().map(Vec::capacity).sum();
    [table.index.keys.capacity(), table.rows.capacity(), order]
}

#[test]
fn rows_that_come_and_go_take_the_room_of_those_before() {
    let mut table: Table<u32, u64> = Table::new();
    for key in 0..10_000 {
        table.insert(key, 0);
        if key >= 8 {
            table.remove(&(key - 8));
        }
        assert!(room(&table).iter().all(|room| *room <= ROOM_KEPT), "{:?}", room(&table));
    }
}

#[test]
fn what_a_burst_took_is_given_back() {
    let mut rng = Rng::from_number(5);
    let keys: Vec<u32> = rng.distinct(20_000, 20_000).into_iter().map(|key| key as u32).collect();
    let mut table: Table<u32, u64> = keys.iter().map(|key| (*key, 0)).collect();
    for (gone, key) in keys.iter().enumerate() {
        let left = keys.len() - gone;
        let [keys, rows, order] = room(&table);
        assert!(
            keys <= ROOM_KEPT.max(4 * left) && rows <= ROOM_KEPT.max(4 * left),
            "{keys} {rows} for {left}"
        );
        assert!(order <= 8 * left + RUN_MAX, "{order} for {left}");
        assert_eq!(table.remove(key), Some(0));
    }
    assert!(room(&table).iter().all(|room| *room <= ROOM_KEPT), "{:?}", room(&table));
    table.extend(keys.iter().map(|key| (*key, 0)));
    table.clear();
    assert_eq!(room(&table), [0, 0, 0]);
}
