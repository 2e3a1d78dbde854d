//! The tree and the store at 10^6 keys, as ratios to a hash of 64 bytes measured in the same run: figures that carry over to
//! another machine. Rows of the tree have limits; `-- --keys 100000` is a smaller store.

#![allow(clippy::unwrap_used)]

use core::hint::black_box;
use core::time::Duration;
use std::process::ExitCode;
use std::sync::Arc;

use hearsay_proto::config::Config;
use hearsay_proto::entry::Entry;
use hearsay_proto::member::MemberId;
use hearsay_proto::merkle::{HashKey, MerkleTree};
use hearsay_proto::record::RecordHasher;
use hearsay_proto::store::Store;
use hearsay_proto::time::{Mono, Now, Wall};

const KEYS: u64 = 1_000_000;
const VALUE: &[u8] = &[b'v'; 100];
const SAMPLES: u64 = 20;
const ME: MemberId = MemberId(7);

/// Order of writes that has nothing to do with the order of keys.
fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn key(number: u64) -> String {
    format!("user/{:08x}", scatter(number) >> 32)
}

fn block(number: u64) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

/// CPU time of this thread, so that what else the machine does counts for nothing.
#[cfg(target_os = "linux")]
fn spent() -> Duration {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanos: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: it writes one `timespec`, which has this layout on every 64-bit Linux.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.seconds as u64, time.nanos as u32)
}

#[cfg(not(target_os = "linux"))]
fn spent() -> Duration {
    use std::{sync::OnceLock, time::Instant};
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// Nanoseconds of one of `count` runs.
fn nanos(count: u64, mut run: impl FnMut(u64)) -> f64 {
    let from = spent();
    (0..count).for_each(&mut run);
    (spent() - from).as_nanos() as f64 / count as f64
}

struct Bench {
    hash: HashKey,
    missed: bool,
}

impl Bench {
    fn hash_nanos(&self) -> f64 {
        nanos(20_000, |n| {
            black_box(self.hash.element(black_box(&block(n))));
        })
    }

    /// Samples of `count` runs, each beside a hash measured just before it. Others on the machine can only add to either, so
    /// the least counts; all of them if the state that is measured grows.
    fn row(&mut self, what: &str, most: Option<f64>, grows: bool, count: u64, mut run: impl FnMut(u64)) {
        let (mut times, mut hashes) = (Vec::new(), Vec::new());
        for sample in 0..SAMPLES {
            hashes.push(self.hash_nanos());
            times.push(nanos(count, |n| run(sample * count + n)));
        }
        let of = |samples: &[f64]| match grows {
            true => samples.iter().sum::<f64>() / samples.len() as f64,
            false => samples.iter().copied().fold(f64::INFINITY, f64::min),
        };
        self.print(what, of(&times) / of(&hashes), "hashes", most, &format!("{:.0} ns", of(&times)));
    }

    fn print(&mut self, what: &str, ours: f64, unit: &str, most: Option<f64>, also: &str) {
        let judged = most.map_or(String::new(), |most| {
            self.missed |= ours > most;
            format!(", required <= {most}{}", if ours > most { "  MISSED" } else { "" })
        });
        println!("{what:<44} {ours:>8.1} {unit} ({also}){judged}");
    }
}

fn trees(bench: &mut Bench, keys: u64) {
    let hash = bench.hash.clone();
    let element = |number: u64| (hash.bucket(&number.to_le_bytes()), hash.element(&block(number)));
    let mut tree = MerkleTree::new();
    bench.row("tree: bulk build, per key", Some(3.0), false, keys, |n| {
        // The samples follow each other without a gap: the first run of each builds the tree.
        if n % keys == 0 {
            tree = MerkleTree::new();
            tree.bulk((0..keys).map(element));
        }
    });
    let heap = tree.heap_bytes() as f64 / keys as f64;
    bench.print("tree: heap, per key", heap, "B", Some(60.0), "records not counted");
    bench.row("tree: insert", Some(3.0), false, keys / 100, |n| {
        let (bucket, element) = element(keys + n);
        tree.add(bucket, element);
    });
    bench.row("tree: one key changed and the root", Some(20.0), false, keys / 100, |n| {
        let number = scatter(n) % keys;
        let bucket = hash.bucket(&number.to_le_bytes());
        let (old, new) = (hash.element(&block(number)), hash.element(&block(number | 1 << 40)));
        tree.replace(bucket, old, new);
        tree.replace(bucket, new, old);
        black_box(hash.root(1, tree.total()));
    });
}

/// A day of writes at this many a millisecond.
fn at(number: u64, per_ms: u64) -> Now {
    let ms = number / per_ms;
    Now { mono: Mono(ms * 1_000_000), wall: Wall(1_700_000_000_000 + ms) }
}

fn stores(bench: &mut Bench, keys: u64) {
    let config = Config::lan();
    let mut store = Store::new(&config, RecordHasher::new("bench"));
    let mut written = 0;
    let mut next = |store: &mut Store, key: &str| {
        written += 1;
        store.set(at(written, 4), key.as_bytes(), Arc::from(VALUE), None, ME).unwrap()
    };
    let names: Vec<String> = (0..keys + keys / 10).map(key).collect();
    bench.row("store: set of a new key, filling up", None, true, keys / SAMPLES, |n| {
        next(&mut store, &names[n as usize]);
    });
    let over = (store.heap_bytes() - store.bytes()) as f64 / keys as f64;
    bench.print("store: heap over keys and values, per key", over, "B", None, "with a full change log");
    bench.row("store: set of a new key", None, true, keys / 10 / SAMPLES, |n| {
        next(&mut store, &names[(keys + n) as usize]);
    });
    bench.row("store: set of a held key", None, false, keys / 100, |n| {
        next(&mut store, &names[(scatter(n) % keys) as usize]);
    });
    let now = at(written, 4);
    bench.row("store: get", None, false, keys / 100, |n| {
        black_box(store.get(now, names[(scatter(n) % keys) as usize].as_bytes()));
    });
    bench.row("store: scan of a prefix with 16 keys", None, false, keys / 1_000, |n| {
        let name = &names[(scatter(n) % keys) as usize];
        black_box(store.scan(now, &name.as_bytes()[..name.len() - 4], None, 1_000));
    });
    bench.row("store: settled root", None, false, 1_000, |_| {
        black_box(store.settled_root(now, now.wall.second().minus(3)));
    });
    let later = Now { mono: Mono(now.mono.0 + 60_000_000_000), wall: Wall(now.wall.0 + 60_000) };
    store.settled_root(later, later.wall.second());
    let settled = (store.heap_bytes() - store.bytes()) as f64 / store.len() as f64;
    bench.print("store: the same, nothing changed lately", settled, "B", Some(60.0), "113 B each");
    let pages: Vec<Arc<Entry>> = store.page(0, usize::MAX).entries;
    let mut copy = Store::new(&config, RecordHasher::new("bench"));
    let share = pages.len() as u64 / SAMPLES;
    bench.row("store: merge of a page's entry, filling up", None, true, share, |n| {
        copy.merge(later, &pages[n as usize]);
    });
    assert_eq!(copy.len() as u64, share * SAMPLES);
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip_while(|arg| arg != "--keys").skip(1);
    let keys = args.next().map_or(KEYS, |keys| keys.parse().unwrap());
    let mut bench = Bench { hash: HashKey::new("bench"), missed: false };
    let hash = Duration::from_nanos(bench.hash_nanos() as u64);
    println!("{keys} keys; one hash of 64 B takes {hash:?}");
    trees(&mut bench, keys);
    stores(&mut bench, keys);
    if bench.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
