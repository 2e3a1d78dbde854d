//! The store: what comes back, what is refused, what survives a disk that fails.

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

/// Where the first batch stands.
pub(super) const FIRST: usize = log::FIRST as usize;
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

pub(super) fn own(generation: u64) -> Write {
    Write::Own(Own {
        name: "a".into(),
        generation: Generation(generation),
        id: MemberId(7),
        incarnation: Incarnation(3),
        clock: Stamp(5),
        seen: Wall(9),
    })
}

pub(super) fn member(name: &str, address: &str) -> Write {
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

    for garbage in [&b"no store at all"[..], &[0; 100_000], &bytes[..bytes.len() / 2], &bytes[..FIRST]] {
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
            // Zeros of the head, or the mark that is to be written next.
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
    let batch = (bytes.len() - FIRST) / 3;
    bytes[FIRST..].rotate_left(batch);
    fs::write(folder.file(), bytes).unwrap();
    assert!(refusal(&folder, "test").contains(&format!("the batch at byte {FIRST}")));
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

pub(super) fn on(disk: &Disk) -> Store {
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
    handle.set(b"m", Arc::from(&b"1"[..]), None).unwrap();
    assert!(handle.flush(SOON).await.unwrap());
    handle.stop().await;
    let told = told.0.lock().unwrap();
    assert!(matches!(&told[..], [Some(_), None]), "once as it begins, once as it ends: {told:?}");
}

#[test]
fn damage_found_by_a_rewriting_is_told() {
    let folder = Folder::new("rot");
    let mut store = Store::open(&folder.0, "test").unwrap();
    let write = |store: &mut Store, turn: u64| store.write(&[entry(turn % 20, &[7; 100_000], None)]);
    (0..20).for_each(|turn| write(&mut store, turn).unwrap());
    let mut bytes = fs::read(folder.file()).unwrap();
    bytes[50_000] ^= 1;
    fs::write(folder.file(), bytes).unwrap();
    let failure = (0..200).find_map(|turn| write(&mut store, turn).err()).unwrap();
    assert!(failure.0.contains("damaged"), "{failure:?}");
}

#[test]
fn what_a_crash_left_of_a_rewriting_does_no_harm() {
    let folder = Folder::new("next");
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join(NEXT), vec![7; 100_000]).unwrap();
    let mut store = Store::open(&folder.0, "test").unwrap();
    store.write(&[own(1)]).unwrap();
    assert_eq!(fs::metadata(folder.file()).unwrap().len() as usize, FIRST + 12 + 7 + 40 + 1);
    drop(store);
    fs::write(folder.0.join(NEXT), vec![7; 100_000]).unwrap();
    assert_eq!(rows(&mut Store::open(&folder.0, "test").unwrap()), [own(1)]);
    assert!(!folder.0.join(NEXT).exists());
}

#[test]
fn a_row_that_is_none_is_damage() {
    let row = |tag: u8, key: &[u8], value: &[u8]| {
        let lengths = [&(key.len() as u16).to_le_bytes()[..], &(value.len() as u32).to_le_bytes()].concat();
        [&[tag][..], &lengths, key, value].concat()
    };
    let place = 7_u64.to_le_bytes();
    let entry = |flags: u8, rest: &[u8]| [&[0; 16][..], &[flags], rest].concat();
    let known = |liveness: u8, family: u8, rest: &[u8]| [&[0; 24][..], &[liveness, family], rest].concat();
    let good = [
        row(4, &place, &entry(0, b"\x01\0kv")),
        row(4, &place, &entry(1, b"\x01\0k")),
        row(3, b"b", &known(Liveness::Dead as u8, 4, &[0; 6])),
        row(6, &place, &[]),
    ];
    let bad = [
        ("a tag", row(7, &place, &[])),
        ("a key's length", row(4, &place[..7], &entry(0, b"\x01\0kv"))),
        ("an own row with a key", row(1, b"x", &[0; 41])),
        ("an own row without a name", row(1, &[], &[0; 40])),
        ("flags", row(4, &place, &entry(4, b"\x01\0kv"))),
        ("a tombstone with a value", row(4, &place, &entry(1, b"\x01\0kv"))),
        ("an entry without a key", row(4, &place, &entry(0, b"\0\0v"))),
        ("an entry cut short", row(4, &place, &[0; 16])),
        ("a liveness", row(3, b"b", &known(9, 4, &[0; 6]))),
        ("a family", row(3, b"b", &known(Liveness::Dead as u8, 5, &[0; 6]))),
        ("more than a member", row(3, b"b", &known(Liveness::Dead as u8, 4, &[0; 7]))),
        ("a member without a name", row(3, b"", &known(Liveness::Dead as u8, 4, &[0; 6]))),
        ("half a second", row(2, &[], &[0; 11])),
        ("a removal cut short", row(6, &place[..7], &[])),
        ("more than its body", row(4, &place, &[0; 30])[..20].to_vec()),
    ];
    let read = |body: &[u8]| {
        let disk = Disk::default();
        let mut store = on(&disk);
        store.log().unwrap().append(body).unwrap();
        drop(store);
        let opened = Store::with(PathBuf::from("disk"), "test", Box::new(disk));
        opened.and_then(|mut store| store.read(|_| {})).map_err(|error| error.to_string())
    };
    good.iter().for_each(|row| assert_eq!(read(row), Ok(())));
    for (what, row) in bad {
        let refused = read(&row).unwrap_err();
        assert!(refused.contains("damaged") && refused.contains("a row of the batch"), "{what}: {refused}");
    }
}
