//! The store: what comes back, what is refused, what survives a disk that fails.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearsay_proto::entry::{Entry, Version};
use hearsay_proto::image::{Acquaintance, Own, Write};
use hearsay_proto::member::{Generation, Incarnation, Liveness, MemberId};
use hearsay_proto::time::{Second, Stamp, Wall};

use super::disk::Disk;
use super::*;
use crate::handle::{Listener, Options};

/// Long enough for any disk.
const SOON: Duration = Duration::from_secs(30);

/// A folder of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("hearsay-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        Folder(path)
    }
    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn own(generation: u64) -> Write {
    Write::Own(Own {
        name: "a".into(),
        generation: Generation(generation),
        id: MemberId(7),
        incarnation: Incarnation(3),
        clock: Stamp(5),
        seen: Wall(9),
    })
}

fn member(name: &str, address: &str) -> Write {
    Write::Member(Acquaintance {
        name: name.into(),
        generation: Generation(1),
        id: MemberId(2),
        incarnation: Incarnation(0),
        liveness: Liveness::Dead,
        address: address.parse().unwrap(),
    })
}

pub(super) fn entry(place: u64, value: &[u8], ttl_ms: Option<u64>) -> Write {
    let entry = Entry {
        key: Arc::from(format!("key{place}").as_bytes()),
        value: Arc::from(value),
        version: Version { stamp: Stamp(place << 16), writer: MemberId(1) },
        tombstone: value.is_empty(),
        ttl_ms,
    };
    Write::Entry { place, entry: Arc::new(entry) }
}

pub(super) fn rows(store: &mut Store) -> Vec<Write> {
    let mut rows = Vec::new();
    store.read(|chunk| rows.extend_from_slice(chunk)).unwrap();
    rows
}

fn refusal(folder: &Folder, label: &str) -> String {
    let error = Store::open(&folder.0, label).err().unwrap();
    assert_eq!(error.code(), "ERR_HEARSAY_STORAGE");
    error.to_string()
}

#[test]
fn rows_come_back_as_they_were() {
    let folder = Folder::new("rows");
    let mut store = Store::open(&folder.0, "test").unwrap();
    assert_eq!((store.own().unwrap(), rows(&mut store)), (None, vec![]));
    let kept = [
        own(4),
        Write::Heard(vec![(MemberId(1), Second(2)), (MemberId(u64::MAX), Second(u32::MAX))]),
        member("b", "10.0.0.1:7"),
        member("c", "[fe80::1]:65535"),
        entry(1, b"value", None),
        entry(2, b"", Some(10)),
        entry(u64::MAX, &[7; 70_000], Some(u64::MAX)),
    ];
    store.write(&kept).unwrap();
    store.write(&[entry(3, b"x", None), member("d", "1.2.3.4:5")]).unwrap();
    store.write(&[Write::NoEntry { place: 3 }, Write::NoMember("d".into())]).unwrap();
    assert_eq!(rows(&mut store), kept);
    assert_eq!(store.own().unwrap().map(Write::Own), Some(own(4)));
    store.write(&[own(5)]).unwrap();
    assert_eq!(store.own().unwrap().map(Write::Own), Some(own(5)));
    store.write(&[own(4)]).unwrap();
    drop(store);
    assert_eq!(rows(&mut Store::open(&folder.0, "test").unwrap()), kept);
}

#[test]
fn many_rows_come_in_chunks() {
    let folder = Folder::new("chunks");
    let mut store = Store::open(&folder.0, "test").unwrap();
    let all: Vec<Write> = (0..2_500).map(|place| entry(place, b"v", None)).collect();
    store.write(&all).unwrap();
    let mut chunks = Vec::new();
    store.read(|chunk| chunks.push(chunk.len())).unwrap();
    assert!(chunks.iter().all(|&n| n <= CHUNK) && chunks.iter().sum::<usize>() == 2_500, "{chunks:?}");
}

#[test]
fn a_file_in_use_is_refused_until_it_is_closed() {
    let folder = Folder::new("lock");
    let store = Store::open(&folder.0, "test").unwrap();
    assert!(refusal(&folder, "test").contains("in use by another member or process"));
    drop(store);
    Store::open(&folder.0, "test").unwrap();
}

#[test]
fn what_is_no_store_of_this_version_and_cluster_is_refused_and_left_alone() {
    let folder = Folder::new("foreign");
    let mut store = Store::open(&folder.0, "test").unwrap();
    store.write(&[own(4), entry(1, b"v", None)]).unwrap();
    drop(store);
    assert!(refusal(&folder, "other").contains("belongs to cluster 'test', not 'other'"));
    let bytes = fs::read(folder.file()).unwrap();

    let mut newer = bytes.clone();
    newer[8] = 2;
    fs::write(folder.file(), newer).unwrap();
    let text = refusal(&folder, "test");
    assert!(text.contains("written by another version (format 2, this one has 1)"), "{text}");

    for garbage in [&b"no database at all"[..], &[0; 100_000], &bytes[..bytes.len() / 2], &bytes[..4_096]] {
        fs::write(folder.file(), garbage).unwrap();
        let text = refusal(&folder, "test");
        assert!(text.contains("damaged") && text.contains(FILE), "{text}");
        assert_eq!(fs::read(folder.file()).unwrap(), garbage, "{text}");
    }
}

#[test]
fn damage_anywhere_is_found_or_harmless() {
    let folder = Folder::new("damage");
    let mut store = Store::open(&folder.0, "test").unwrap();
    let kept: Vec<Write> = (0..500).map(|place| entry(place, &[place as u8; 100], None)).collect();
    store.write(&kept).unwrap();
    drop(store);
    let whole = fs::read(folder.file()).unwrap();
    let mut found = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at..(at + 64).min(whole.len())].iter_mut().for_each(|b| *b ^= 0x5a);
        fs::write(folder.file(), bytes).unwrap();
        match Store::open(&folder.0, "test") {
            Err(error) => {
                assert_eq!(error.code(), "ERR_HEARSAY_STORAGE");
                found += 1;
            }
            // Pages that nothing refers to.
            Ok(mut store) => {
                let mut held = Vec::new();
                match store.read(|chunk| held.extend_from_slice(chunk)) {
                    Ok(()) => assert_eq!(held, kept, "damage at {at} changed what is read"),
                    Err(_) => found += 1,
                }
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn a_batch_holds_only_where_it_was_written() {
    let folder = Folder::new("moved");
    let mut store = Store::open(&folder.0, "test").unwrap();
    for turn in 0..3 {
        store.write(&[own(turn)]).unwrap();
    }
    drop(store);
    let mut bytes = fs::read(folder.file()).unwrap();
    let batch = (bytes.len() - 4_096) / 3;
    bytes[4_096..].rotate_left(batch);
    fs::write(folder.file(), bytes).unwrap();
    assert!(refusal(&folder, "test").contains("the batch at byte 4096"));
}

#[test]
fn a_folder_that_cannot_be_made_is_refused() {
    let folder = Folder::new("blocked");
    fs::write(&folder.0, b"a file").unwrap();
    let error = Store::open(&folder.0.join("below"), "test").err().unwrap();
    assert!(matches!(&error, Error::Storage { .. }), "{error}");
    assert_eq!(error.path(), Some("storage.path"));
    fs::remove_file(&folder.0).unwrap();
}

fn on(disk: &Disk) -> Store {
    Store::with(PathBuf::from("disk"), "test", Box::new(disk.clone())).unwrap()
}

#[test]
fn a_full_disk_loses_nothing_and_works_again_when_there_is_room() {
    let disk = Disk::default();
    let mut store = on(&disk);
    store.write(&[entry(1, b"old", None)]).unwrap();
    disk.fill(true);
    let failure = store.write(&[entry(1, b"new", None), entry(2, b"new", None)]).unwrap_err();
    assert!(
        failure.clone().at(store.path()).to_string().contains("cannot be read or written"),
        "{failure:?}"
    );
    assert!(store.write(&[entry(3, b"new", None)]).is_err());
    disk.fill(false);
    assert_eq!(rows(&mut store), [entry(1, b"old", None)]);
    store.write(&[entry(1, b"new", None), entry(2, b"new", None)]).unwrap();
    assert_eq!(rows(&mut store), [entry(1, b"new", None), entry(2, b"new", None)]);
}

/// What a listener was told of the disk.
#[derive(Default)]
struct Told(Mutex<Vec<Option<String>>>);

impl Listener for Told {
    fn event(&self, _: hearsay_proto::Event) {}
    fn storage(&self, failure: Option<String>) {
        self.0.lock().unwrap().push(failure);
    }
}

#[tokio::test]
async fn a_member_whose_disk_fails_lives_on_and_saves_again_when_it_can() {
    let disk = Disk::default();
    let store = on(&disk);
    let told = Arc::new(Told::default());
    let handle = crate::start::start_on(Options::new("a"), told.clone(), Some(store)).await.unwrap();
    handle.set(b"k", Arc::from(&b"1"[..]), None).unwrap();
    assert!(handle.flush(SOON).await.unwrap());
    disk.fill(true);
    handle.set(b"k", Arc::from(&b"2"[..]), None).unwrap();
    let error = handle.flush(SOON).await.unwrap_err();
    assert_eq!(error.code(), "ERR_HEARSAY_STORAGE", "{error}");
    handle.set(b"l", Arc::from(&b"1"[..]), None).unwrap();
    assert_eq!(handle.flush(SOON).await.unwrap_err().code(), "ERR_HEARSAY_STORAGE");
    assert_eq!(&*handle.get(b"k").unwrap().unwrap().value, b"2", "the member lives on");
    disk.fill(false);
    for _ in 0..100 {
        if told.0.lock().unwrap().len() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(handle.flush(SOON).await.unwrap());
    handle.stop().await;
    let told = told.0.lock().unwrap();
    assert!(matches!(&told[..], [Some(_), None]), "once as it begins, once as it ends: {told:?}");
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
    // No last word of the store's.
    std::mem::forget(store);
    let whole = disk.len(FILE).unwrap();
    let batch = (whole - 4_096) / 3;
    disk.cut(FILE, whole - 1);
    let mut store = on(&disk);
    assert_eq!(rows(&mut store), [own(1)], "the last one was cut short");
    std::mem::forget(store);
    disk.cut(FILE, whole - batch - 1);
    let refused = Store::with(PathBuf::from("disk"), "test", Box::new(disk)).err().unwrap().to_string();
    assert!(
        refused.contains(&format!("damaged, or no store of hearsay: the batch at byte {}", 4_096 + batch)),
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
    std::mem::forget(store);
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
