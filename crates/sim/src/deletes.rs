//! Random histories of writes and deletes in small clusters with splits, absences beyond the life of tombstones, restarts (half
//! of the histories with disks) and clocks that are off: no member that has seen a delete may see the deleted value again, unless it was told that it rejoined.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearsay_proto::entry::{Key, Version};
use hearsay_proto::output::ChangeKind;
use hearsay_proto::rng::Rng;
use hearsay_proto::{Config, Event};
use serde::Serialize;

use crate::fault::{Fault, Schedule, Timed};
use crate::network::Loss;
use crate::world::{Stall, World};

/// Life of a tombstone in these histories, G.
pub const LIFETIME: Duration = Duration::from_secs(120);
/// Writes and deletes of one history.
const WRITES: usize = 65;
/// Least time a disk takes for a batch.
const DISK_LATENCY: Duration = Duration::from_millis(10);
/// After its end everybody must have the same within this.
const EQUAL_WITHIN: Duration = Duration::from_secs(180);

/// What came of one history, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Histories.
    pub histories: u64,
    /// Histories in which a deleted value came back.
    pub resurrections: u64,
    /// Histories that did not end with equal replicas, or broke an invariant.
    pub broken: u64,
    /// Writes, deletes.
    pub writes: u64,
    /// Of these, deletes.
    pub deletes: u64,
    /// Times a member was told `rejoined`.
    pub rejoined: u64,
    /// Values dropped thereby, all in all.
    pub dropped: u64,
    /// First seed that failed, plus one.
    pub first_failed: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        let first = [self.first_failed, other.first_failed].into_iter().filter(|s| *s > 0).min();
        *self = Tally {
            histories: self.histories + other.histories,
            resurrections: self.resurrections + other.resurrections,
            broken: self.broken + other.broken,
            writes: self.writes + other.writes,
            deletes: self.deletes + other.deletes,
            rejoined: self.rejoined + other.rejoined,
            dropped: self.dropped + other.dropped,
            first_failed: first.unwrap_or(0),
        };
    }
}

/// Newest version that each host's user was told of, by key.
#[derive(Default)]
struct Seen {
    newest: Vec<BTreeMap<Key, (Version, bool)>>,
    /// Every value that anybody was told of. A delete under the version of a value is nobody's: it was dropped at a rejoining.
    values: BTreeSet<(Key, Version)>,
    has_rejoined: Vec<bool>,
    back: Vec<String>,
    rejoined: u64,
    dropped: u64,
}

impl Seen {
    fn told(&mut self, host: usize, at: f64, event: &Event) {
        match event {
            Event::StateChanged(change) => {
                let deleted = change.kind != ChangeKind::Set;
                let version = change.entry.version;
                let named = (change.entry.key.clone(), version);
                if !deleted {
                    self.values.insert(named);
                } else if self.has_rejoined[host] && self.values.contains(&named) {
                    return;
                }
                let known = self.newest[host].insert(change.entry.key.clone(), (version, deleted));
                if let Some((newest, gone)) = known
                    && version < newest
                {
                    let key = String::from_utf8_lossy(&change.entry.key).into_owned();
                    if gone && !deleted {
                        self.back.push(format!("{at:.1} s: {key} came back at host {host}"));
                    }
                    self.newest[host].insert(change.entry.key.clone(), (newest, gone));
                }
            }
            Event::Rejoined { dropped } => {
                self.rejoined += 1;
                self.dropped += dropped;
                self.newest[host].clear();
                self.has_rejoined[host] = true;
            }
            _ => {}
        }
    }
}

/// Everything that decides a history.
#[derive(Clone, Debug)]
pub struct History {
    /// Seed of all.
    pub seed: u64,
    /// 3 to 7.
    pub members: usize,
    /// What happens.
    pub schedule: Schedule,
    /// For how long.
    pub length: Duration,
    /// Clocks are off by this, ms.
    pub offsets_ms: Vec<i64>,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Members keep their state on disks.
    pub disks: bool,
}

fn at(time: Duration, fault: Fault) -> Timed {
    Timed { at_ms: time.as_millis() as u64, fault }
}

/// How histories are drawn and played.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Rule `S7` is on.
    pub absence: bool,
    /// Larger clusters, three times as many suspensions and crashes, shorter splits.
    pub rough: bool,
}

impl Style {
    /// The usual one.
    pub const USUAL: Style = Style { absence: true, rough: false };
}

/// The history of a seed.
pub fn draw(seed: u64, rough: bool) -> History {
    let (sizes, faults, longest) = if rough { (7, 12, 2) } else { (5, 4, 3) };
    let mut rng = Rng::from_number(seed ^ 0x00de_1e7e);
    let members = 3 + rng.below(sizes);
    let keys = 1 + rng.below(6);
    let length = LIFETIME * 6;
    let mut schedule = Schedule::new();
    for value in 0..WRITES {
        let (host, key) = (rng.below(members), rng.below(keys) as u32);
        let write = Fault::Write { host, key, value: value as u32, bytes: 20 };
        let fault = if rng.chance(0.5) { Fault::Delete { host, key } } else { write };
        schedule.push(at(rng.up_to(length), fault));
    }
    // Cuts end each other: one after the other. Pauses and restarts fall where they fall.
    let mut time = rng.up_to(LIFETIME);
    while time < length {
        let hosts: Vec<usize> = (0..members).filter(|_| rng.chance(0.5)).collect();
        schedule.push(at(time, Fault::Partition { hosts }));
        time += rng.up_to(LIFETIME * longest);
        schedule.push(at(time.min(length), Fault::Heal));
        time += rng.up_to(LIFETIME);
    }
    for _ in 0..rng.below(faults) {
        let host = rng.below(members);
        let from = rng.up_to(length);
        let until = (from + rng.up_to(LIFETIME * longest)).min(length);
        if rng.chance(0.6) {
            schedule.push(at(from, Fault::Stall { host, kind: Stall::Cpu }));
            schedule.push(at(until, Fault::Resume { host }));
        } else {
            schedule.push(at(from, Fault::Crash { host }));
            schedule.push(at(until, Fault::Start { host }));
        }
    }
    let off = (LIFETIME.as_millis() / 33) as usize;
    let offsets_ms = (0..members).map(|_| rng.below(2 * off + 1) as i64 - off as i64).collect();
    for _ in 0..rng.below(3) {
        let offset_ms = rng.below(2 * off + 1) as i64 - off as i64;
        schedule.push(at(rng.up_to(length), Fault::Clock { host: rng.below(members), offset_ms }));
    }
    schedule.sort_by_key(|timed| timed.at_ms);
    let loss = [0.0, 0.0, 0.05, 0.2, 0.3][rng.below(5)];
    History { seed, members, schedule, length, offsets_ms, loss, disks: seed.is_multiple_of(2) }
}

impl History {
    /// Plays it; without `absence` rule `S7` is off. The tally, and what went wrong in words.
    pub fn run(&self, absence: bool) -> (Tally, Vec<String>) {
        let mut config = Config::local();
        config.tombstone_lifetime = LIFETIME;
        config.anti_entropy.absence = absence;
        let mut world = World::new(self.seed, self.members, config);
        let seen = Rc::new(RefCell::new(Seen::default()));
        seen.borrow_mut().newest.resize_with(self.members, BTreeMap::new);
        seen.borrow_mut().has_rejoined.resize(self.members, false);
        let sink = seen.clone();
        world.ear = Some(Box::new(move |now, host, event| {
            sink.borrow_mut().told(host, now.0 as f64 / 1e9, event);
        }));
        for host in 0..self.members {
            world.hosts[host].clock_offset_ms = self.offsets_ms[host];
        }
        if self.disks {
            world.add_disks(DISK_LATENCY);
        }
        world.start_whole(self.members);
        world.run(Duration::from_secs(5));
        world.network.loss = Loss::Independent(self.loss);
        let mut tally = Tally { histories: 1, ..Tally::default() };
        let start = world.now;
        for timed in &self.schedule {
            world.run((start + Duration::from_millis(timed.at_ms)).since(world.now));
            match timed.fault {
                Fault::Crash { host } | Fault::Start { host } => seen.borrow_mut().newest[host].clear(),
                Fault::Write { .. } => tally.writes += 1,
                Fault::Delete { .. } => {
                    tally.writes += 1;
                    tally.deletes += 1;
                }
                _ => {}
            }
            world.apply(&timed.fault);
        }
        world.calm();
        for host in 0..self.members {
            if !world.is_up(host) {
                seen.borrow_mut().newest[host].clear();
                world.apply(&Fault::Start { host });
            }
        }
        let whole = |w: &World| w.views_full() && w.roots_equal();
        let equal = world.run_until(EQUAL_WITHIN, Duration::from_millis(500), whole);
        world.run(Duration::from_secs(10));
        // Tombstones go at the same second of clocks that are off: for a moment some still have them.
        let still = world.run_until(Duration::from_secs(20), Duration::from_millis(500), whole);
        let mut faults = std::mem::take(&mut world.checker.failures);
        if equal.is_none() || still.is_none() {
            faults.push(format!("replicas differ {} s after the end", EQUAL_WITHIN.as_secs()));
        }
        let seen = seen.borrow();
        tally.rejoined = seen.rejoined;
        tally.dropped = seen.dropped;
        tally.broken = u64::from(!faults.is_empty());
        tally.resurrections = u64::from(!seen.back.is_empty());
        if tally.broken + tally.resurrections > 0 {
            tally.first_failed = self.seed + 1;
        }
        faults.extend(seen.back.iter().cloned());
        (tally, faults)
    }
}

/// Histories of these seeds on so many threads; `told` gets each failure.
pub fn run(
    seed: u64,
    histories: u64,
    style: Style,
    threads: usize,
    told: impl Fn(u64, &[String]) + Sync,
) -> Tally {
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= histories {
                        return;
                    }
                    let (tally, faults) = draw(seed + n, style.rough).run(style.absence);
                    if !faults.is_empty() {
                        told(seed + n, &faults);
                    }
                    if let Ok(mut sum) = sum.lock() {
                        sum.add(tally);
                    }
                }
            });
        }
    });
    sum.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deleted_value_comes_back_to_who_saw_the_delete() {
        let faults = Mutex::new(Vec::new());
        let tally =
            run(1, 40, Style::USUAL, 2, |seed, what| faults.lock().unwrap().push((seed, what.to_vec())));
        assert_eq!((tally.resurrections, tally.broken), (0, 0), "{:?}", faults.lock().unwrap());
        assert!(tally.rejoined > 0, "histories must reach beyond G: {tally:?}");
    }

    /// Each once brought a value back.
    #[test]
    fn histories_that_once_failed() {
        let usual = [324, 4060, 5388, 8593, 28_064, 29_230, 68_938].map(|seed| (seed, false));
        for (seed, rough) in usual.into_iter().chain([2918, 302_308, 302_672].map(|seed| (seed, true))) {
            let tally = run(seed, 1, Style { rough, ..Style::USUAL }, 1, |_, _| {});
            assert_eq!((tally.resurrections, tally.broken), (0, 0), "{seed}");
        }
    }

    #[test]
    fn without_s7_deleted_values_come_back() {
        let tally = run(1, 40, Style { absence: false, ..Style::USUAL }, 2, |_, _| {});
        assert!(tally.resurrections > 0, "{tally:?}");
    }
}
