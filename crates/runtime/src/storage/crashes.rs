//! What is on the disk after kills, losses of power and errors at any moment.

use std::collections::BTreeMap;

use hearsay_proto::member::MemberId;
use hearsay_proto::time::Second;

use super::disk::Disk;
use super::tests::{FIRST, entry, member, on, own, rows};
use super::*;

/// The store is gone without a last word.
fn kill(mut store: Store) {
    store.log = None;
}

/// Numbers that depend on nothing but the seed (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A batch over a few places, of which some are emptied, and some rows are long.
fn batch(dice: &mut Dice, turn: u64) -> Vec<Write> {
    let first = dice.below(8) as u64;
    let rows = (0..1 + dice.below(3) as u64).map(|i| {
        let (place, bytes) = (first + i, [3, 30, 60_000][dice.below(3)]);
        if dice.below(4) == 0 {
            Write::NoEntry { place }
        } else {
            let mut value = vec![i as u8; bytes];
            value.extend_from_slice(&turn.to_le_bytes());
            entry(place, &value, None)
        }
    });
    let mut rows: Vec<Write> = rows.collect();
    rows.push(own(turn));
    rows
}

type Held = BTreeMap<Option<u64>, Write>;

fn apply(held: &mut Held, rows: &[Write]) {
    for row in rows {
        match row {
            Write::Entry { place, .. } => drop(held.insert(Some(*place), row.clone())),
            Write::NoEntry { place } => drop(held.remove(&Some(*place))),
            row => drop(held.insert(None, row.clone())),
        }
    }
}

fn held(store: &mut Store) -> Held {
    let (mut held, found) = (Held::new(), rows(store));
    apply(&mut held, &found);
    assert_eq!(held.len(), found.len(), "a row came twice");
    held
}

#[test]
fn a_kill_or_loss_of_power_at_any_moment_takes_nothing_that_was_written_and_leaves_no_half() {
    let (mut cuts, mut unwritten, mut rewritten) = (0, 0, 0);
    for seed in 1..=60 {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        let mut expected = Held::new();
        let mut turn = 0;
        for _ in 0..8 {
            // A store that could not even be made left nothing.
            disk.fail_after(dice.below(400) as u64, true);
            let opened = Store::with(PathBuf::from("disk"), "test", Box::new(disk.clone()));
            let mut tried = None;
            if let Ok(mut store) = opened {
                assert!(held(&mut store) == expected, "seed {seed}, turn {turn}");
                loop {
                    turn += 1;
                    let (rows, bytes) = (batch(&mut dice, turn), disk.len(FILE));
                    if store.write(&rows).is_err() {
                        tried = Some(rows);
                        break;
                    }
                    apply(&mut expected, &rows);
                    rewritten += usize::from(disk.len(FILE) < bytes);
                }
            }
            cuts += 1;
            if dice.below(3) == 0 {
                disk.kill();
            } else {
                disk.lose_power(|end| dice.below(end));
            }
            let mut store = on(&disk);
            let found = held(&mut store);
            if found != expected {
                // All of what nobody was told of, then.
                apply(&mut expected, &tried.unwrap_or_default());
                assert!(found == expected, "seed {seed}, turn {turn}");
            } else {
                unwritten += usize::from(tried.is_some());
            }
        }
    }
    assert!(cuts == 480 && unwritten > 100 && unwritten < 470 && rewritten > 200, "{unwritten} {rewritten}");
}

#[test]
fn errors_of_the_disk_now_and_then_cost_nothing() {
    let mut failed = 0;
    for seed in 1..=40 {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        let (mut store, mut expected) = (on(&disk), Held::new());
        for turn in 0..150 {
            let rows = batch(&mut dice, turn);
            disk.fail_after(dice.below(40) as u64, false);
            while store.write(&rows).is_err() {
                failed += 1;
                // The operator sees an unhealthy member, and starts it again.
                if dice.below(3) == 0 {
                    drop(store);
                    store = on(&disk);
                }
            }
            assert_eq!(disk.len(NEXT), None);
            apply(&mut expected, &rows);
            // What was acknowledged is on the disk, whatever an error before it left there.
            if dice.below(20) == 0 {
                drop(store);
                disk.lose_power(|end| dice.below(end));
                store = on(&disk);
                assert!(held(&mut store) == expected, "seed {seed}, turn {turn}");
            }
        }
    }
    assert!(failed > 200, "{failed}");
}

#[test]
fn a_file_does_not_grow_for_ever_and_needs_no_room_for_a_second_one() {
    let disk = Disk::default();
    let mut store = on(&disk);
    store.write(&(0..100).map(|place| entry(place, &[1; 1_000], None)).collect::<Vec<_>>()).unwrap();
    let mut longest = 0;
    for turn in 0..1_000_u32 {
        store.write(&[entry(7, &turn.to_le_bytes().repeat(2_500), None)]).unwrap();
        longest = longest.max(disk.len(FILE).unwrap());
    }
    // Twice what holds, 1 MiB, and the one batch that tips it over.
    assert!((1 << 20..(1 << 20) + 2 * 130_000 + 20_000).contains(&longest), "{longest}");
    assert_eq!(rows(&mut store).len(), 100);
    assert_eq!(disk.len(NEXT), None);
}

#[test]
fn damage_before_the_last_batch_is_found_also_after_a_kill() {
    let disk = Disk::default();
    let mut store = on(&disk);
    for turn in 0..3 {
        store.write(&[own(turn)]).unwrap();
    }
    kill(store);
    let whole = disk.len(FILE).unwrap();
    let batch = (whole - FIRST) / 3;
    disk.cut(FILE, whole - 1);
    let mut store = on(&disk);
    assert_eq!(rows(&mut store), [own(1)], "the last one was cut short");
    kill(store);
    disk.cut(FILE, whole - batch - 1);
    let refused = Store::with(PathBuf::from("disk"), "test", Box::new(disk)).err().unwrap().to_string();
    assert!(
        refused.contains(&format!("damaged, or no store of hearsay: the batch at byte {}", FIRST + batch)),
        "{refused}"
    );
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_a_mark_covers_it() {
    let disk = Disk::default();
    let mut store = on(&disk);
    store.write(&[own(0)]).unwrap();
    // Mark and batch are written, the sync does not come.
    disk.fail_after(2, true);
    store.write(&[own(1)]).unwrap_err();
    kill(store);
    disk.kill();
    let mut store = on(&disk);
    assert_eq!(rows(&mut store), [own(1)]);
    disk.fail_after(2, true);
    store.write(&[own(2)]).unwrap_err();
    drop(store);
    // Of all that waits the first is kept, then the next is not.
    let mut fates = [0, 2, 0, 2, 2].into_iter();
    disk.lose_power(|_| fates.next().unwrap_or_default());
    assert_eq!(rows(&mut on(&disk)), [own(1)]);
}

#[test]
fn a_batch_whose_sync_failed_is_not_trusted_after_a_restart() {
    let disk = Disk::default();
    let mut store = on(&disk);
    store.write(&[own(0)]).unwrap();
    // Mark and batch are written, the sync fails and forgets them.
    disk.fail_after(2, false);
    store.write(&[own(1)]).unwrap_err();
    drop(store);
    let mut store = on(&disk);
    assert_eq!(rows(&mut store), [own(1)]);
    store.write(&[own(2)]).unwrap();
    drop(store);
    disk.lose_power(|_| 0);
    assert_eq!(rows(&mut on(&disk)), [own(2)]);
}

#[test]
fn a_kill_before_a_name_is_synced_costs_nothing_later() {
    let disk = Disk::default();
    kill(on(&disk));
    disk.kill();
    on(&disk).write(&[own(1)]).unwrap();
    disk.lose_power(|_| 0);
    assert_eq!(rows(&mut on(&disk)), [own(1)]);
    for moment in 0..20 {
        let disk = Disk::default();
        let mut store = on(&disk);
        (0..2).for_each(|turn| store.write(&[entry(1, &[turn; 600_000], None)]).unwrap());
        disk.fail_after(moment, true);
        drop(store.write(&[own(1)]));
        kill(store);
        disk.kill();
        let mut store = on(&disk);
        store.write(&[own(2)]).unwrap();
        kill(store);
        disk.lose_power(|_| 0);
        assert!(rows(&mut on(&disk)).contains(&own(2)), "moment {moment}");
    }
}

/// One row of each kind, and more bytes than are copied at a time.
fn some_of_all() -> Vec<Write> {
    let heard = Write::Heard(vec![(MemberId(1), Second(2))]);
    let mut rows = vec![own(1), heard, member("b", "10.0.0.1:7")];
    rows.extend((0..12).map(|place| entry(place, &[place as u8 + 1; 100_000], None)));
    rows
}

#[test]
fn a_rewriting_that_fails_at_any_moment_costs_no_row() {
    for moment in 0..25 {
        let (disk, kept) = (Disk::default(), some_of_all());
        let mut store = on(&disk);
        store.write(&kept).unwrap();
        store.rewrite_at = 0;
        disk.fail_after(moment, false);
        while store.write(&[own(2)]).is_err() {}
        disk.kill();
        store.write(&[own(1)]).unwrap();
        assert!(rows(&mut store) == kept, "moment {moment}");
        store.rewrite_at = 0;
        store.write(&[own(1)]).unwrap();
        assert!(rows(&mut store) == kept, "moment {moment}");
        let end = disk.len(FILE).unwrap() as u64;
        assert!(end < 1_300_000, "{end}");
    }
}

#[test]
fn without_room_the_next_try_comes_a_quarter_later() {
    for moment in 0..8 {
        let disk = Disk::default();
        let mut store = on(&disk);
        store.write(&some_of_all()).unwrap();
        let end = store.log().unwrap().end();
        store.rewrite_at = 0;
        disk.fail_after(moment, false);
        drop(store.write(&[own(2)]));
        assert_eq!(store.rewrite_at, end + end / 4, "moment {moment}");
    }
}

/// A kill, or an error, at one moment; loss of power at a second, after the next start.
#[test]
fn a_start_after_a_kill_trusts_nothing_that_is_not_on_the_disk() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..4_000 {
        let (first, second, is_cut) = (dice.below(4) as u64, dice.below(9) as u64, dice.below(2) == 0);
        let disk = Disk::default();
        let mut store = on(&disk);
        store.write(&[own(0)]).unwrap();
        store.write(&[own(1)]).unwrap();
        disk.fail_after(first, is_cut);
        let mut saved = if store.write(&[own(2)]).is_ok() { 2 } else { 1 };
        kill(store);
        disk.kill();
        disk.fail_after(second, true);
        if let Ok(mut store) = Store::with(PathBuf::from("disk"), "test", Box::new(disk.clone())) {
            for run in 3..5 {
                if store.write(&[own(run)]).is_ok() {
                    saved = run;
                }
            }
            kill(store);
        }
        disk.lose_power(|end| dice.below(end));
        let found = Store::with(PathBuf::from("disk"), "test", Box::new(disk.clone()));
        let found = found.map(|mut store| store.own().unwrap());
        let held = matches!(&found, Ok(Some(own)) if own.generation.0 >= saved);
        assert!(held, "round {round}: {first}, {second}, {is_cut}: {found:?}, not {saved}");
    }
}
