//! The file: what comes back, what is refused, what survives a disk that fails.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearsay_proto::entry::{Entry, Version};
use hearsay_proto::image::{Acquaintance, Own, Write};
use hearsay_proto::member::{Generation, Incarnation, Liveness, MemberId};
use hearsay_proto::time::{Second, Stamp, Wall};
use redb::backends::InMemoryBackend;
use redb::{BackendError, StorageBackend};

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

fn entry(place: u64, value: &[u8], ttl_ms: Option<u64>) -> Write {
    let entry = Entry {
        key: Arc::from(format!("key{place}").as_bytes()),
        value: Arc::from(value),
        version: Version { stamp: Stamp(place << 16), writer: MemberId(1) },
        tombstone: value.is_empty(),
        ttl_ms,
    };
    Write::Entry { place, entry: Arc::new(entry) }
}

fn rows(store: &Store) -> Vec<Write> {
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
    let store = Store::open(&folder.0, "test").unwrap();
    assert_eq!((store.own().unwrap(), rows(&store)), (None, vec![]));
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
    assert_eq!(rows(&store), kept);
    drop(store);
    assert_eq!(rows(&Store::open(&folder.0, "test").unwrap()), kept);
}

#[test]
fn many_rows_come_in_chunks() {
    let folder = Folder::new("chunks");
    let store = Store::open(&folder.0, "test").unwrap();
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
    let store = Store::open(&folder.0, "test").unwrap();
    store.write(&[own(4), entry(1, b"v", None)]).unwrap();
    drop(store);
    assert!(refusal(&folder, "other").contains("belongs to cluster 'test', not 'other'"));
    let bytes = fs::read(folder.file()).unwrap();

    let database = Builder::new().open(folder.file()).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(META).unwrap().insert(&b"schema"[..], &2u32.to_le_bytes()[..]).unwrap();
    writing.commit().unwrap();
    drop(database);
    let text = refusal(&folder, "test");
    assert!(text.contains("written by another version (schema 2, this one has 1)"), "{text}");

    for garbage in [&b"no database at all"[..], &[0; 100_000], &bytes[..bytes.len() / 2], &bytes[..4_096]] {
        fs::write(folder.file(), garbage).unwrap();
        let text = refusal(&folder, "test");
        assert!(text.contains("damaged") || text.contains("cannot be read"), "{text}");
        assert!(text.contains(FILE), "{text}");
        assert_eq!(fs::read(folder.file()).unwrap().len(), garbage.len(), "{text}");
    }
    // Another program's database.
    fs::remove_file(folder.file()).unwrap();
    let database = Builder::new().create(folder.file()).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(Table::new("theirs")).unwrap();
    writing.commit().unwrap();
    drop(database);
    assert!(refusal(&folder, "test").contains("'theirs'"));
}

#[test]
fn damage_anywhere_is_found_or_harmless() {
    let folder = Folder::new("damage");
    let store = Store::open(&folder.0, "test").unwrap();
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
            Ok(store) => {
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
fn a_folder_that_cannot_be_made_is_refused() {
    let folder = Folder::new("blocked");
    fs::write(&folder.0, b"a file").unwrap();
    let error = Store::open(&folder.0.join("below"), "test").err().unwrap();
    assert!(matches!(&error, Error::Storage { .. }), "{error}");
    assert_eq!(error.path(), Some("storage.path"));
    fs::remove_file(&folder.0).unwrap();
}

/// A disk in memory that can be full. What was on it is there again when it is opened again.
#[derive(Clone, Debug)]
struct Fickle {
    bytes: Arc<InMemoryBackend>,
    is_full: Arc<AtomicBool>,
}

impl Fickle {
    fn try_write(&self) -> Result<(), BackendError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(BackendError::Io(io::Error::from(io::ErrorKind::StorageFull)));
        }
        Ok(())
    }
}

impl StorageBackend for Fickle {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.try_write()?;
        self.bytes.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.try_write()?;
        self.bytes.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.try_write()?;
        self.bytes.write(offset, data)
    }
}

fn fickle() -> (Store, Arc<AtomicBool>) {
    let (bytes, is_full) = (Arc::new(InMemoryBackend::new()), Arc::new(AtomicBool::new(false)));
    let disk = Fickle { bytes, is_full: Arc::clone(&is_full) };
    let opener: Opener = Box::new(move |_| {
        let mut builder = Builder::new();
        builder.set_check_integrity_on_open(true).create_with_backend(disk.clone())
    });
    (Store::with(PathBuf::from("disk"), "test", opener).unwrap(), is_full)
}

#[test]
fn a_full_disk_loses_nothing_and_works_again_when_there_is_room() {
    let (mut store, is_full) = fickle();
    store.write(&[entry(1, b"old", None)]).unwrap();
    is_full.store(true, Ordering::Relaxed);
    let failure = store.write(&[entry(1, b"new", None), entry(2, b"new", None)]).unwrap_err();
    assert!(
        failure.clone().at(store.path()).to_string().contains("cannot be read or written"),
        "{failure:?}"
    );
    assert!(store.write(&[entry(3, b"new", None)]).is_err());
    assert!(store.reopen(false).is_err());
    assert!(store.write(&[entry(3, b"new", None)]).is_err());
    is_full.store(false, Ordering::Relaxed);
    store.reopen(false).unwrap();
    assert_eq!(rows(&store), [entry(1, b"old", None)]);
    store.write(&[entry(1, b"new", None), entry(2, b"new", None)]).unwrap();
    assert_eq!(rows(&store), [entry(1, b"new", None), entry(2, b"new", None)]);
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
    let (store, is_full) = fickle();
    let told = Arc::new(Told::default());
    let handle = crate::start::start_on(Options::new("a"), told.clone(), Some(store)).await.unwrap();
    handle.set(b"k", Arc::from(&b"1"[..]), None).unwrap();
    assert!(handle.flush(SOON).await.unwrap());
    is_full.store(true, Ordering::Relaxed);
    handle.set(b"k", Arc::from(&b"2"[..]), None).unwrap();
    let error = handle.flush(SOON).await.unwrap_err();
    assert_eq!(error.code(), "ERR_HEARSAY_STORAGE", "{error}");
    handle.set(b"l", Arc::from(&b"1"[..]), None).unwrap();
    assert_eq!(handle.flush(SOON).await.unwrap_err().code(), "ERR_HEARSAY_STORAGE");
    assert_eq!(&*handle.get(b"k").unwrap().unwrap().value, b"2", "the member lives on");
    is_full.store(false, Ordering::Relaxed);
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
