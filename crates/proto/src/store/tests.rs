//! Calls, limits, lifetimes, order, pages, heap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;
use crate::time::Wall;

const START_MS: u64 = 1_700_000_000_000;
const ME: MemberId = MemberId(1);

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(START_MS + ms) }
}

fn store_with(edit: impl FnOnce(&mut Config)) -> Store {
    let mut config = Config::lan();
    edit(&mut config);
    Store::new(&config, RecordHasher::new("store"))
}

fn store() -> Store {
    store_with(|_| {})
}

fn value(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

fn entry(key: &[u8], ms: u64, value: &str) -> Arc<Entry> {
    let version = Version { stamp: Stamp::at(Wall(START_MS + ms)), writer: MemberId(9) };
    Arc::new(Entry { key: key.into(), value: self::value(value), version, tombstone: false, ttl_ms: None })
}

fn tombstone(key: &[u8], ms: u64) -> Arc<Entry> {
    Arc::new(Entry { value: Arc::default(), tombstone: true, ..(*entry(key, ms, "")).clone() })
}

#[test]
fn set_get_delete() {
    let mut s = store();
    let first = s.set(at(1), b"a", value("1"), None, ME).unwrap();
    assert_eq!(s.get(at(1), b"a"), Some(first.clone()));
    let second = s.set(at(1), b"a", value("2"), None, ME).unwrap();
    assert!(second.version > first.version);
    assert_eq!((s.len(), s.bytes(), s.tombstones()), (1, 2, 0));
    let gone = s.delete(at(2), b"a", ME).unwrap().unwrap();
    assert!(gone.tombstone && gone.version > second.version);
    assert_eq!(s.get(at(2), b"a"), None);
    assert_eq!(s.delete(at(2), b"a", ME), Ok(None));
    assert_eq!(s.delete(at(2), b"never", ME), Ok(None));
    assert_eq!((s.len(), s.bytes(), s.tombstones()), (0, 1, 1));
    // The delete wins over the older value from elsewhere, and is not overtaken by it.
    assert!(matches!(s.merge(at(3), &second), MergedEntry::Stale { .. }));
    assert!(matches!(s.merge(at(3), &gone), MergedEntry::Known));
    assert_eq!(s.get(at(3), b"a"), None);
}

#[test]
fn limits_are_refused_with_their_figures() {
    let mut s = store_with(|c| {
        c.limits.key_bytes_max = 8;
        c.limits.value_bytes_max = 10;
        c.limits.entries_max = 3;
        c.limits.store_bytes_max = 20;
    });
    assert_eq!(s.set(at(0), b"", value(""), None, ME), Err(CallError::Key { bytes: 0, bytes_max: 8 }));
    let long = s.set(at(0), b"123456789", value(""), None, ME);
    assert_eq!(long, Err(CallError::Key { bytes: 9, bytes_max: 8 }));
    assert_eq!(s.set(at(0), b"\0b", value(""), None, ME), Err(CallError::ReservedKey));
    assert_eq!(s.delete(at(0), b"\0b", ME), Err(CallError::ReservedKey));
    let big = s.set(at(0), b"k", value("12345678901"), None, ME);
    assert_eq!(big, Err(CallError::Value { bytes: 11, bytes_max: 10 }));
    assert!(!s.is_full());
    s.set(at(0), b"a", value("123456789"), None, ME).unwrap();
    assert_eq!(s.set(at(0), b"bb", value("123456789"), None, ME), Err(CallError::StoreFull));
    assert!(s.is_full(), "something was refused");
    s.delete(at(1), b"a", ME).unwrap();
    assert!(!s.is_full(), "room was made");
    s.set(at(1), b"b", value("1"), None, ME).unwrap();
    s.set(at(1), b"c", value("1"), None, ME).unwrap();
    assert!(s.is_full());
    assert_eq!(s.set(at(1), b"d", value("1"), None, ME), Err(CallError::StoreFull));
    let refused = s.merge(at(1), &entry(b"d", 0, "1"));
    assert_eq!(refused, MergedEntry::Refused(RefusedEntry::Full));
    // What is there can still be written and deleted.
    s.set(at(2), b"b", value("22"), None, ME).unwrap();
    assert!(s.delete(at(2), b"b", ME).unwrap().is_some());
    let size = |e: &Arc<Entry>| store().merge(at(1), e) == MergedEntry::Refused(RefusedEntry::Size);
    assert!(size(&entry(&[1; 513], 0, "")) && size(&entry(b"", 0, "")));
    assert!(!size(&entry(&[1; 512], 0, "")));
    let mut small = store_with(|c| c.limits.value_bytes_max = 3);
    assert_eq!(small.merge(at(1), &entry(b"k", 0, "1234")), MergedEntry::Refused(RefusedEntry::Size));
}

#[test]
fn a_stamp_too_far_ahead_is_refused_before_it_touches_the_clock() {
    let mut s = store();
    assert_eq!(s.merge(at(0), &entry(b"k", 10_001, "")), MergedEntry::Refused(RefusedEntry::Ahead));
    assert_eq!(s.clock(at(0)), Stamp::at(at(0).wall));
    assert!(matches!(s.merge(at(0), &entry(b"k", 10_000, "")), MergedEntry::Accepted { .. }));
    assert_eq!(s.clock(at(0)), Stamp::at(at(10_000).wall));
    let own = s.set(at(0), b"k", value("own"), None, ME).unwrap();
    assert!(own.version.stamp > Stamp::at(at(10_000).wall), "the write wins over what it has seen");
    // A tombstone cannot claim a lifetime that ends far ahead.
    let odd = Arc::new(Entry { ttl_ms: Some(60_000), ..(*tombstone(b"k", 0)).clone() });
    assert_eq!(s.merge(at(0), &odd), MergedEntry::Refused(RefusedEntry::Ahead));
}

#[test]
fn lifetimes_end_with_an_event_and_a_tombstone_of_the_same_version() {
    let mut s = store();
    let e = s.set(at(100), b"k", value("v"), Some(2_000), ME).unwrap();
    assert_eq!(s.deadline(), at(2_100).mono);
    assert!(s.get(at(2_099), b"k").is_some());
    assert!(s.handle_timeout(at(2_099)).is_empty());
    assert!(s.get(at(2_100), b"k").is_none(), "not before its timer either");
    assert!(s.scan(at(2_100), b"", None, 9).is_empty());
    let ended = s.handle_timeout(at(2_100));
    assert_eq!(ended.len(), 1);
    assert!(ended[0].tombstone && ended[0].version == e.version && ended[0].value.is_empty());
    assert_eq!((s.len(), s.tombstones()), (0, 1));
    // An older value without a lifetime cannot return; a newer one can.
    assert!(matches!(s.merge(at(2_200), &entry(b"k", 50, "old")), MergedEntry::Stale { .. }));
    assert_eq!(s.merge(at(2_200), &e), MergedEntry::Known);
    let MergedEntry::Accepted { before, .. } = s.merge(at(2_200), &entry(b"k", 1_000, "new")) else {
        panic!("newer");
    };
    assert_eq!(before, Some(Before { version: e.version, live: false }));
    // One whose lifetime is over when it arrives is taken as its tombstone.
    let late = Arc::new(Entry { ttl_ms: Some(10), ..(*entry(b"late", 0, "v")).clone() });
    let MergedEntry::Accepted { entry, before } = s.merge(at(3_000), &late) else { panic!("late") };
    assert!(entry.tombstone && before.is_none());
    assert_eq!(s.get(at(3_000), b"late"), None);
    // Ended by a root before its timer: the event still comes.
    s.set(at(3_000), b"soon", value("v"), Some(500), ME).unwrap();
    s.settled_root(at(3_400), at(3_400).wall.second());
    assert_eq!(s.deadline(), at(3_400).mono);
    assert_eq!(s.handle_timeout(at(3_400)).len(), 1);
}

#[test]
fn tombstones_live_their_time_and_are_refused_when_older() {
    let mut s = store_with(|c| c.tombstone_lifetime = Duration::from_secs(100));
    let empty = s.live_sum();
    s.set(at(0), b"k", value("v"), None, ME).unwrap();
    let gone = s.delete(at(0), b"k", ME).unwrap().unwrap();
    s.handle_timeout(at(99_999));
    assert_eq!(s.tombstones(), 1);
    s.handle_timeout(at(100_000));
    assert_eq!((s.tombstones(), s.live_sum(), s.bytes()), (0, empty, 0));
    assert_eq!(s.merge(at(100_001), &gone), MergedEntry::Refused(RefusedEntry::Old));
    assert_eq!(s.merge(at(200_000), &tombstone(b"other", 0)), MergedEntry::Refused(RefusedEntry::Old));
    // A lifetime longer than that of tombstones keeps its tombstone to its end.
    s.set(at(200_000), b"ttl", value("v"), Some(150_000), ME).unwrap();
    assert_eq!(s.handle_timeout(at(350_000)).len(), 1);
    assert_eq!((s.tombstones(), s.deadline()), (0, Mono::FAR));
}

#[test]
fn reserved_keys_are_hidden_and_go_by_themselves() {
    let mut s = store();
    s.set(at(0), b"k", value("v"), None, ME).unwrap();
    let empty = s.live_sum();
    assert!(s.set_reserved(at(0), b"k", value(""), ME).is_err());
    let b = s.set_reserved(at(0), b"\0b123", value("news"), ME).unwrap();
    assert_eq!(s.len(), 1);
    assert_eq!(s.scan(at(0), b"", None, 9).len(), 1);
    assert!(s.scan(at(0), b"\0", None, 9).is_empty());
    assert_eq!(s.get(at(0), b"\0b123"), Some(b.clone()));
    assert_eq!(s.page(0, usize::MAX).entries.len(), 2, "joiners get them");
    assert_ne!(s.live_sum(), empty, "they count in the root");
    assert!(s.handle_timeout(at(60_000)).is_empty(), "no event");
    assert_eq!((s.get(at(60_000), b"\0b123"), s.live_sum()), (None, empty));
    assert_eq!(s.merge(at(60_001), &b), MergedEntry::Refused(RefusedEntry::Old));
    assert_eq!(store().merge(at(60_001), &b), MergedEntry::Refused(RefusedEntry::Old));
}

#[test]
fn a_full_change_log_makes_views_busy_for_a_while() {
    let mut s = store_with(|c| c.limits.change_log_max = 10);
    for k in 0..10u8 {
        s.set(at(0), &[1, k], value("v"), None, ME).unwrap();
    }
    assert!(
        s.busy(at(0)) && s.view(at(0), at(0).wall.second().minus(3)).is_some(),
        "full, but nothing lost yet"
    );
    s.set(at(900), &[2], value("v"), None, ME).unwrap();
    assert!(s.view(at(900), at(0).wall.second().minus(3)).is_none());
    let mut other = store();
    for e in s.page(0, usize::MAX).entries {
        other.merge(at(900), &e);
    }
    for back in 0..5 {
        let settled = at(900).wall.second().minus(back);
        assert_eq!(s.settled_root(at(900), settled), other.settled_root(at(900), settled), "roots stand");
    }
    assert!(s.busy(at(2_900)), "what was lost is not settled yet");
    assert!(s.view(at(20_000), at(17_000).wall.second()).is_some() && !s.busy(at(20_000)));
}

#[test]
fn views_and_roots_end_where_the_past_is_gone() {
    let mut s = store();
    let now = at(200_000);
    s.set(at(100_000), b"k", value("v"), None, ME).unwrap();
    let second = |back: u32| now.wall.second().minus(back);
    assert!(s.settled_root(now, second(75)).is_some() && s.settled_root(now, second(76)).is_none());
    assert!(s.settled_root(now, now.wall.second().plus(11)).is_none());
    assert!(s.view(now, second(14)).is_some() && s.view(now, second(15)).is_none());
}

#[test]
fn versions_are_known_and_found_by_id_also_just_after_they_were_replaced() {
    let mut s = store();
    let hasher = RecordHasher::new("store");
    let a = s.set(at(0), b"k", value("a"), None, ME).unwrap();
    let b = s.set(at(500), b"k", value("b"), None, ME).unwrap();
    let (old, new) = (hasher.entry_rumor(&a), hasher.entry_rumor(&b));
    assert_eq!(s.known(new), Known::Yes);
    assert_eq!(s.find(old), Some(b.clone()));
    assert!(s.knows(old));
    let other = RumorId { tag: old.tag ^ new.tag ^ 1, ..old };
    assert_eq!((s.known(other), s.find(other)), (Known::No, None));
    let c = s.set(at(2_500), b"k", value("c"), None, ME).unwrap();
    assert_eq!(s.known(new), Known::Replaced { newer: hasher.entry_rumor(&c) });
    s.handle_timeout(at(60_000));
    assert_eq!(s.known(new), Known::No);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Order of keys, order of places, pages and counts, against a plain map.
    #[test]
    fn it_behaves_like_a_map(seed: u64, keys in 1usize..3_000) {
        let mut rng = Rng::from_number(seed);
        let mut s = store();
        let hasher = RecordHasher::new("store");
        let mut map: BTreeMap<Vec<u8>, Arc<Entry>> = BTreeMap::new();
        let ascending = rng.chance(0.3);
        for step in 0..4_000usize {
            let number = if ascending { step.min(keys) } else { rng.below(keys) };
            let mut key = format!("{}{:04}/{}", ["", "users/of/"][number % 2], number, number % 7).into_bytes();
            key.truncate(1 + rng.below(17));
            let now = at(step as u64);
            if rng.chance(if step > 2_500 { 0.7 } else { 0.2 }) {
                prop_assert_eq!(s.delete(now, &key, ME).unwrap().is_some(), map.remove(&key).is_some());
            } else {
                let length = if rng.chance(0.05) { 900 + rng.below(3_000) } else { rng.below(200) };
                let entry = s.set(now, &key, vec![7u8; length].into(), None, ME).unwrap();
                map.insert(key, entry);
            }
        }
        let now = at(5_000);
        prop_assert_eq!(s.len(), map.len());
        prop_assert_eq!(&s.scan(now, b"", None, usize::MAX), &map.values().cloned().collect::<Vec<_>>());
        for _ in 0..20 {
            let deep = ["", "users/of/"][rng.below(2)];
            let prefix = format!("{deep}{:04}", rng.below(keys)).into_bytes();
            let prefix = &prefix[..rng.below(prefix.len())];
            let after = format!("{deep}{:04}", rng.below(keys)).into_bytes();
            let after = rng.chance(0.5).then_some(&after[..]);
            let count = rng.below(50);
            let want: Vec<_> = map
                .range(prefix.to_vec()..)
                .filter(|(k, _)| k.starts_with(prefix) && after.is_none_or(|a| &k[..] > a))
                .take(count)
                .map(|(_, e)| e.clone())
                .collect();
            prop_assert_eq!(s.scan(now, prefix, after, count), want);
        }
        for (key, entry) in &map {
            prop_assert_eq!(s.get(now, key), Some(entry.clone()));
        }
        let (mut from, mut paged) = (0, Vec::new());
        loop {
            let page = s.page(from, 1_000);
            paged.extend(page.entries);
            from = page.next;
            if page.last {
                break;
            }
        }
        prop_assert!(paged.is_sorted_by_key(|e| hasher.place(&e.key)));
        prop_assert_eq!(paged.len(), map.len() + s.tombstones());
        prop_assert_eq!(s.bytes(), paged.iter().map(|e| e.key.len() + e.value.len()).sum::<usize>());
        let sum = paged.iter().fold(0u128, |sum, e| sum.wrapping_add(hasher.entry_element(e)));
        prop_assert_eq!(s.live_sum(), sum);
        // After the tombstones' time everything of them is given back.
        let later = at(86_400_000 + 10_000);
        s.handle_timeout(later);
        while s.deadline() <= later.mono {
            s.handle_timeout(later);
        }
        prop_assert_eq!(s.tombstones(), 0);
        prop_assert_eq!(s.page(0, usize::MAX).entries.len(), map.len());
    }
}

#[test]
fn the_heap_is_sixty_bytes_a_key() {
    let mut s = store();
    let mut rng = Rng::from_number(1);
    let n = 200_000;
    for _ in 0..n {
        let key = format!("{:016x}", rng.u64()).into_bytes();
        s.merge(at(100_000), &entry(&key, 0, "0123456789012345678901234567890123456789"));
    }
    let over = (s.heap_bytes() - s.bytes()) as f64 / n as f64;
    println!("{over:.1} B a key beside {} B stored, at {n} keys", s.bytes() / n);
    assert_eq!(s.len(), n);
    assert!(over <= 60.0, "{over}");
}

#[test]
fn the_audit_finds_what_is_out_of_step_with_the_entries() {
    let filled = || {
        let mut s = store();
        for i in 0..40u8 {
            s.set(at(1), &[b'k', i], value("value"), (i % 3 == 0).then_some(5_000), ME).unwrap();
        }
        s.delete(at(2), &[b'k', 7], ME).unwrap();
        s.audit().unwrap();
        s
    };
    let mut s = filled();
    s.handle_timeout(at(6_000));
    assert_eq!(s.tombstones(), 15, "a third expired, one deleted");
    s.audit().unwrap();
    let breaks: [fn(&mut Store); 5] = [
        |s| s.bytes += 1,
        |s| s.tombstones -= 1,
        |s| s.tree.add(3, 99),
        |s| s.tree.replace(3, 0, 99),
        |s| s.due.clear(),
    ];
    for break_it in breaks {
        let mut s = filled();
        break_it(&mut s);
        assert!(s.audit().is_err());
    }
}

#[test]
fn what_an_absence_drops_goes_from_the_disk_too() {
    let mut s = store();
    s.keep();
    for (key, ms) in [("old", 1), ("older", 0), ("young", 9)] {
        assert!(matches!(s.merge(at(10), &entry(key.as_bytes(), ms, "v")), MergedEntry::Accepted { .. }));
    }
    assert!(matches!(s.merge(at(10), &tombstone(b"deleted", 2)), MergedEntry::Accepted { .. }));
    let mut writes = Vec::new();
    s.take_unsaved(&mut writes, 100, 1 << 20);
    assert_eq!(writes.len(), 4);
    let dropped = s.drop_until(at(20), Stamp::at(Wall(START_MS + 5)));
    let mut keys: Vec<_> = dropped.iter().map(|(key, _)| key.to_vec()).collect();
    keys.sort();
    assert_eq!(keys, [b"old".to_vec(), b"older".to_vec()]);
    assert_eq!((s.len(), s.tombstones(), s.rows()), (1, 0, 1));
    writes.clear();
    s.take_unsaved(&mut writes, 100, 1 << 20);
    assert_eq!(writes.len(), 3);
    assert!(writes.iter().all(|w| matches!(w, crate::image::Write::NoEntry { .. })));
    // And what comes later is still noted.
    s.set(at(30), b"new", value("n"), None, ME).unwrap();
    writes.clear();
    s.take_unsaved(&mut writes, 100, 1 << 20);
    assert_eq!(writes.len(), 1);
}

#[test]
fn a_clock_that_was_ahead_for_a_moment_costs_no_more_than_a_moment() {
    let mut s = store();
    s.set(at(0), b"k", value("v"), None, ME).unwrap();
    // An hour ahead, then right again.
    s.handle_timeout(at(3_600_000));
    s.set(at(1_000), b"l", value("v"), None, ME).unwrap();
    let now = at(30_000);
    s.set(now, b"m", value("v"), None, ME).unwrap();
    let settled = now.wall.second().minus(3);
    let mut other = store();
    for e in s.page(0, usize::MAX).entries {
        other.merge(now, &e);
    }
    assert_eq!(s.settled_root(now, settled), other.settled_root(now, settled));
    assert_eq!(s.view(now, settled).map(|view| view.count()), Some(2));
}

#[test]
fn a_page_is_no_longer_than_asked_for_however_small_its_entries() {
    let mut s = store();
    for i in 0..5_000u16 {
        s.set(at(0), &i.to_be_bytes().map(|b| b | 1), value(""), None, ME).ok();
        s.set(at(0), format!("{i:x}").as_bytes(), value(""), Some(1 << 40), ME).unwrap();
    }
    let (mut from, mut pages) = (0, 0);
    loop {
        let EntryPage { entries, next, last } = s.page(from, 8_192);
        let records = entries.into_iter().map(crate::record::Record::Entry).collect();
        let tree = crate::record::Tree::Entries;
        let page = crate::wire::Page { tree, from, next, last, records, claims: Vec::new() };
        let bytes = crate::wire::message_bytes(&crate::wire::Message::Page(page));
        assert!(bytes <= 8_192, "{bytes}");
        pages += 1;
        if last {
            break;
        }
        from = next;
    }
    assert!(pages > 10);
}

#[test]
fn many_lifetimes_that_end_at_once_end_some_at_a_time() {
    let n = 3_000;
    let mut s = store();
    for i in 0..n {
        s.set(at(0), format!("k{i}").as_bytes(), value("v"), Some(1_000), ME).unwrap();
    }
    let now = at(1_000);
    let first = s.handle_timeout(now).len();
    assert!(first < n, "{first} at once");
    assert_eq!(s.scan(now, b"", None, n), [], "none is shown though");
    let mut ended = first;
    while s.deadline() <= now.mono {
        ended += s.handle_timeout(now).len();
    }
    assert_eq!((ended, s.len(), s.tombstones()), (n, 0, n));
}

#[test]
fn what_an_absence_drops_goes_from_the_disk_however_much_waits_for_it() {
    let mut s = store_with(|c| c.limits.entries_max = 2);
    s.keep();
    assert!(matches!(s.merge(at(10), &entry(b"old", 1, "v")), MergedEntry::Accepted { .. }));
    let mut writes = Vec::new();
    s.take_unsaved(&mut writes, 100, 1 << 20);
    // As many as there may be entries wait for a slow disk, all but one of them ended.
    for key in [b"x", b"y"] {
        let passing = Arc::new(Entry { ttl_ms: Some(20), ..(*entry(key, 10, "v")).clone() });
        assert!(matches!(s.merge(at(11), &passing), MergedEntry::Accepted { .. }));
        s.handle_timeout(at(86_400_010));
    }
    assert_eq!(s.unsaved(), (3, 1));
    assert_eq!(s.drop_until(at(86_400_020), Stamp::at(Wall(START_MS + 5))).len(), 1);
    writes.clear();
    s.take_unsaved(&mut writes, 100, 1 << 20);
    assert_eq!(writes.len(), 3);
}
