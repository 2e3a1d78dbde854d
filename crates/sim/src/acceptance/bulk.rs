//! A full replica to newcomers: how long it takes, what it costs beside the records, and whether anybody's heartbeat stops.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use hearsay_proto::config::Config;
use hearsay_proto::time::Mono;
use hearsay_proto::wire::{self, Framing, Message};

use super::detector::{cell, with};
use super::{Cell, Scale, Task};
use crate::world::{News, World};

const MEMBERS: usize = 5;
const VALUE_BYTES: usize = 88;
const KEY_BYTES: usize = 12;
/// Of each entry beside key and value: two lengths, stamp, writer, flags.
const ENTRY_BYTES: usize = 2 + 8 + 8 + 1;
/// Bytes sent beside those of the records, at most (a bound of our own).
const OVER_FLOOR_MAX: f64 = 1.02;
const IDLE: Duration = Duration::from_secs(20);
const WITHIN: Duration = Duration::from_secs(1_800);

/// The longest time between two regular BEATs of each host, to whomever. Who is beaten by all others sends none.
struct Beats(Rc<RefCell<BTreeMap<usize, (Mono, Duration)>>>);

impl Beats {
    fn watch(world: &mut World) -> Beats {
        let seen: Rc<RefCell<BTreeMap<usize, (Mono, Duration)>>> = Rc::default();
        let sink = seen.clone();
        let limits = wire::Limits { value_bytes_max: 1 << 20 };
        world.tap = Some(Box::new(move |at, from, _, plain| {
            let Ok(decoded) = wire::decode(plain, &limits, Framing::Datagram) else { return };
            if decoded.messages.iter().any(|m| matches!(m, Message::Beat(beat) if !beat.once)) {
                let mut seen = sink.borrow_mut();
                let (last, gap) = seen.entry(from).or_insert((at, Duration::ZERO));
                *gap = at.since(*last).max(*gap);
                *last = at;
            }
        }));
        Beats(seen)
    }

    fn longest(&self, hosts: std::ops::Range<usize>) -> Duration {
        self.0.borrow().range(hosts).map(|(_, (_, gap))| *gap).max().unwrap_or(Duration::MAX)
    }
}

/// What bringing a replica to some newcomers came to.
struct Filled {
    seconds: f64,
    over_floor: f64,
    source_gap: Duration,
    joiner_gap: Duration,
}

fn fill(world: &mut World, newcomers: std::ops::Range<usize>, keys: usize) -> Filled {
    let beats = Beats::watch(world);
    let (from, bytes) = (world.now, world.bytes_sent());
    for host in newcomers.clone() {
        world.start(host, &[0]);
    }
    let full = |w: &World| newcomers.clone().all(|h| w.gossip(h).is_some_and(|g| g.len() >= keys));
    let done = world.run_until(WITHIN, Duration::from_millis(50), full);
    let floor = newcomers.len() * keys * (KEY_BYTES + VALUE_BYTES + ENTRY_BYTES);
    let seconds = done.map_or(f64::INFINITY, |_| world.now.since(from).as_secs_f64());
    let over_floor = (world.bytes_sent() - bytes) as f64 / floor as f64;
    // Long enough for every beat that a gap would have put off.
    world.run(IDLE);
    Filled { seconds, over_floor, source_gap: beats.longest(0..1), joiner_gap: beats.longest(newcomers) }
}

fn row(what: &str, world: &mut World, keys: usize, seed: u64, filled: &Filled, idle: Duration) -> Cell {
    let period = Config::lan().detector.beat_period;
    let accused = world.log.iter().filter(|t| matches!(t.news, News::Suspected | News::Died)).count();
    let c = cell(
        format!("{what}: s; bytes / floor; gap of beats, source, joiner, s; accused"),
        MEMBERS,
        seed,
        format!("-; <= {OVER_FLOOR_MAX} (own); {0}; {0}; 0", period.as_secs_f64()),
        format!(
            "{:.1}; {:.3}; {:.2}; {:.2}; {accused}",
            filled.seconds,
            filled.over_floor,
            filled.source_gap.as_secs_f64(),
            filled.joiner_gap.as_secs_f64()
        ),
        format!("{keys} keys of 100 B; idle gap {:.2}", idle.as_secs_f64()),
    );
    let beats = filled.source_gap.max(filled.joiner_gap) <= period.mul_f64(1.05);
    let pass = filled.seconds.is_finite() && filled.over_floor <= OVER_FLOOR_MAX && beats && accused == 0;
    with(c, pass, &std::mem::take(&mut world.checker.failures))
}

/// One member has all records; four join at once, then a sixth.
fn cells_of(keys: usize, seed: u64) -> Vec<Cell> {
    let mut world = World::new(seed, MEMBERS + 1, Config::lan());
    world.start(0, &[]);
    world.run(Duration::from_secs(1));
    for number in 0..keys {
        let key = format!("key/{number:08}");
        let written =
            world.command(0, |g, now| g.set(now, key.as_bytes(), [7; VALUE_BYTES][..].into(), None).is_ok());
        if written != Some(true) {
            world.checker.fail(format!("write {number} was refused"));
        }
        if number % 1_000 == 999 {
            world.run(Duration::from_millis(10));
        }
    }
    world.run(Duration::from_secs(20));
    let four = fill(&mut world, 1..MEMBERS, keys);
    let beats = Beats::watch(&mut world);
    world.run(IDLE);
    let idle = beats.longest(0..1);
    let mut cells = vec![row("four join one", &mut world, keys, seed, &four, idle)];
    let sixth = fill(&mut world, MEMBERS..MEMBERS + 1, keys);
    world.run(Duration::from_secs(10));
    if !world.roots_equal() {
        world.checker.fail("roots differ ten seconds later".into());
    }
    cells.push(row("a sixth joins", &mut world, keys, seed, &sixth, idle));
    cells
}

/// The rows, with the scale's number of keys.
pub fn cells(scale: &Scale) -> Vec<Task> {
    let (keys, seed) = (scale.keys, scale.seed);
    let run = move || cells_of(keys, seed);
    vec![Task { name: "bulk", cost: keys as f64, run: Box::new(run) }]
}
