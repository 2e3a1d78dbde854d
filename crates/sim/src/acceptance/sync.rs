//! The anti-entropy rows: how soon a lost entry comes, what a difference costs, sessions that were not needed, a joiner's bulk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::rng::Rng;
use hearsay_proto::wire::{self, Framing, HOP_COLD, Message};

use super::{Cell, Task, measure};
use crate::deletes;
use crate::network::Loss;
use crate::returning::returning;
use crate::world::{News, World};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct SyncScale {
    /// Keys of the large store.
    pub keys: usize,
    /// Lost entries per cell.
    pub losses: usize,
    /// Members of the cluster that writes all the time; its seconds.
    pub load: (usize, u64),
    /// Members of clusters that come and go, each with its rounds of 10 s.
    pub churn: &'static [(usize, usize)],
    /// Histories of deletes.
    pub histories: u64,
    /// First seed.
    pub seed: u64,
}

impl SyncScale {
    /// Seconds of work.
    pub fn small(seed: u64) -> SyncScale {
        SyncScale { keys: 20_000, losses: 5, load: (20, 4), churn: &[(20, 6)], histories: 20, seed }
    }

    /// The whole table.
    pub fn whole(seed: u64) -> SyncScale {
        SyncScale {
            keys: 1_000_000,
            losses: 100,
            load: (100, 12),
            churn: &[(100, 60), (1_000, 12)],
            histories: 10_000,
            seed,
        }
    }
}

fn set(world: &mut World, host: usize, key: &[u8], bytes: usize) -> bool {
    let value: Arc<[u8]> = Arc::from(vec![b'v'; bytes]);
    matches!(world.command(host, |g, now| g.set(now, key, value, None)), Some(Ok(_)))
}

fn has(world: &World, host: usize, key: &[u8]) -> bool {
    world.gossip(host).is_some_and(|g| g.get(world.clock(host), key).is_some())
}

/// Datagrams of sessions since it was set up, and their bytes as sealed.
fn count_repair(world: &mut World) -> Rc<RefCell<(u64, u64)>> {
    let count = Rc::new(RefCell::new((0, 0)));
    let sink = count.clone();
    let limits = wire::Limits { value_bytes_max: 1 << 20 };
    let seal = world.config().seal_bytes;
    world.tap = Some(Box::new(move |_, _, _, plain| {
        let Ok(decoded) = wire::decode(plain, &limits, Framing::Datagram) else { return };
        let repair = decoded.messages.iter().any(|m| {
            matches!(
                m,
                Message::Walk { .. }
                    | Message::Diff { .. }
                    | Message::List { .. }
                    | Message::IHave { repair: true, .. }
                    | Message::Want { repair: true, .. }
                    | Message::Record { hop: HOP_COLD, .. }
            )
        });
        if repair {
            let mut sink = sink.borrow_mut();
            *sink = (sink.0 + 1, sink.1 + (plain.len() + seal) as u64);
        }
    }));
    count
}

/// One member lacks an entry that all others have: seconds from the moment it is 3 s old until it has it.
fn lost_entries(members: usize, loss: f64, count: usize, seed: u64) -> (Vec<f64>, Vec<String>) {
    let mut world = measure::bed_of(members, 0, seed, Config::lan(), false);
    let mut rng = Rng::from_number(seed ^ 0x1057);
    let mut times = Vec::new();
    for n in 0..count {
        world.network.loss = Loss::Independent(0.0);
        let victim = rng.below(members);
        let writer = (victim + 1 + rng.below(members - 1)) % members;
        let key = format!("lost/{n}");
        world.network.deafen(victim);
        set(&mut world, writer, key.as_bytes(), 88);
        // Longer than the rumor lives, shorter than anybody's patience.
        world.run(Duration::from_millis(1_800));
        world.network.open_ears_and_mouth(victim);
        world.network.loss = Loss::Independent(loss);
        if has(&world, victim, key.as_bytes()) {
            world.checker.fail(format!("{key} was not lost"));
        }
        world.run(Duration::from_millis(1_200));
        let time = world.run_until(Duration::from_secs(30), Duration::from_millis(20), |w| {
            has(w, victim, key.as_bytes())
        });
        match time {
            Some(time) => times.push(time.as_secs_f64()),
            None => world.checker.fail(format!("{key} was not repaired in 30 s")),
        }
        world.run(Duration::from_secs(2) + rng.up_to(Duration::from_secs(2)));
    }
    (times, world.checker.failures)
}

fn cell(
    what: String,
    members: usize,
    seed: u64,
    required: String,
    measured: String,
    exposure: String,
) -> Cell {
    Cell { what, members, required, measured, exposure, seed, pass: true }
}

fn with(mut cell: Cell, pass: bool, failures: &[String]) -> Cell {
    cell.pass = pass && failures.is_empty();
    if let Some(first) = failures.first() {
        cell.measured += &format!("; {first}");
    }
    cell
}

fn repairs(scale: SyncScale, loss: f64) -> Vec<Cell> {
    let (times, failures) = lost_entries(100, loss, scale.losses, scale.seed);
    let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
    let max = times.iter().copied().fold(0.0, f64::max);
    let cell = cell(
        format!("lost old entry repaired, mean / max s, loss {} %", loss * 100.0),
        100,
        scale.seed,
        "<= 1.8 / 3".into(),
        format!("{mean:.2} / {max:.2}"),
        format!("{} entries", times.len()),
    );
    vec![with(cell, mean <= 1.8 && max <= 3.0, &failures)]
}

fn useless_of(world: &World, host: usize) -> u64 {
    world.gossip(host).map_or(0, |g| g.metrics(world.clock(host)).sync.sessions_useless)
}

fn useless(world: &World) -> u64 {
    world.up().map(|h| useless_of(world, h)).sum()
}

/// One member joins and another crashes in every 10 s, each at a moment of its own. Who joins while another is suspected buries that
/// one later than the rest (`D9`), and is compared with in vain until then.
fn churn(scale: SyncScale, members: usize, rounds: usize) -> Vec<Cell> {
    let mut world = measure::bed_of(members, rounds, scale.seed, Config::lan(), false);
    let mut rng = Rng::from_number(scale.seed ^ 0xc0);
    let mut living: Vec<usize> = (0..members).collect();
    let before = useless(&world);
    let mut of_the_dead = 0;
    let period = Duration::from_secs(10);
    for newcomer in members..members + rounds {
        let (crash, join) = (rng.up_to(period), rng.up_to(period));
        let mut steps = [(crash, false), (join, true)];
        steps.sort_unstable();
        let mut passed = Duration::ZERO;
        for (at, joins) in steps {
            world.run(at - passed);
            passed = at;
            if joins {
                world.start(newcomer, &[living[rng.below(living.len())]]);
                living.push(newcomer);
            } else {
                let victim = living.swap_remove(rng.below(living.len()));
                of_the_dead += useless_of(&world, victim);
                world.crash(victim);
            }
        }
        world.run(period - passed);
    }
    let per_second = (useless(&world) + of_the_dead - before) as f64 / (10 * rounds) as f64;
    let failures: Vec<String> = std::mem::take(&mut world.checker.failures);
    let required = if members > 100 { 0.2 } else { 0.05 };
    let cell = cell(
        "useless sessions/s, one join and one crash per 10 s".into(),
        members,
        scale.seed,
        format!("<= {required}"),
        format!("{per_second:.3}"),
        format!("{} s", 10 * rounds),
    );
    vec![with(cell, per_second <= required, &failures)]
}

/// 1,000 updates/s over 20,000 keys by all members (10 each a second).
fn load(scale: SyncScale, loss: f64) -> Vec<Cell> {
    let (members, seconds) = scale.load;
    let mut world = measure::bed_of(members, 0, scale.seed, Config::lan(), false);
    world.network.loss = Loss::Independent(loss);
    let mut rng = Rng::from_number(scale.seed ^ 0x10ad);
    let rate = members * 10;
    let before = useless(&world);
    for _ in 0..rate * seconds as usize {
        let key = format!("k/{}", rng.below(20_000));
        set(&mut world, rng.below(members), key.as_bytes(), 88);
        world.run(Duration::from_secs(1) / rate as u32);
    }
    let per_second = (useless(&world) - before) as f64 / seconds as f64;
    let failures: Vec<String> = std::mem::take(&mut world.checker.failures);
    let cell = cell(
        format!("useless sessions/s, {rate} updates/s over 20,000 keys, loss {} %", loss * 100.0),
        members,
        scale.seed,
        "<= 2".into(),
        format!("{per_second:.2}"),
        format!("{seconds} s"),
    );
    vec![with(cell, per_second <= 2.0, &failures)]
}

/// A store of many keys: a member joins and pulls it; then differences of 1, 10 and 1,000 keys.
fn bulk(scale: SyncScale) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut config = Config::lan();
    config.label = "bulk".into();
    let mut world = World::new(scale.seed, 3, config);
    world.start(0, &[]);
    world.run(Duration::from_secs(2));
    for n in 0..scale.keys {
        set(&mut world, 0, format!("key/{n:07}").as_bytes(), 89);
    }
    world.start(1, &[0]);
    world.run_until(Duration::from_secs(300), Duration::from_millis(100), |w| {
        w.gossip(1).is_some_and(|g| g.len() == scale.keys)
    });
    world.run(Duration::from_secs(20));
    // Host 0 and 1 beat each other; host 2 joins and pulls from one of them.
    let beats = Rc::new(RefCell::new(BTreeMap::<usize, Vec<f64>>::new()));
    let sink = beats.clone();
    let limits = wire::Limits { value_bytes_max: 1 << 20 };
    let peers = [world.address(0), world.address(1)];
    world.tap = Some(Box::new(move |at, from, to, plain| {
        let decoded = wire::decode(plain, &limits, Framing::Datagram);
        let beats =
            decoded.is_ok_and(|d| d.messages.iter().any(|m| matches!(m, Message::Beat(b) if !b.once)));
        if beats && peers.contains(&to) && from < 2 {
            sink.borrow_mut().entry(from).or_default().push(at.0 as f64 / 1e9);
        }
    }));
    let aside = Duration::from_secs(10);
    world.run(aside);
    let sent = |w: &World| w.hosts.iter().map(|h| h.stream_bytes + h.payload_bytes).sum::<u64>();
    let (start, before) = (world.now, sent(&world));
    world.start(2, &[0]);
    let joined = world.run_until(Duration::from_secs(300), Duration::from_millis(100), |w| {
        w.gossip(2).is_some_and(|g| g.len() == scale.keys)
    });
    let bytes = sent(&world) - before;
    world.run(aside);
    world.tap = None;
    let news =
        world.log.iter().filter(|t| t.at >= start && matches!(t.news, News::Suspected | News::Died)).count();
    let floor = scale.keys * (89 + 11);
    let seconds = joined.map_or(f64::INFINITY, |t| t.as_secs_f64());
    let failures: Vec<String> = std::mem::take(&mut world.checker.failures);
    let what = format!("join with {} keys of 100 B: s, bytes over key and value, suspicions", scale.keys);
    let exposure = "1 join".to_owned();
    let over = bytes as f64 / floor as f64;
    let measured = format!("{seconds:.1}, {over:.2} x, {news}");
    let c = cell(what, 3, scale.seed, "-, -, 0".into(), measured, exposure);
    cells.push(with(c, joined.is_some() && news == 0, &failures));
    let gaps = |times: &Vec<f64>| times.windows(2).map(|w| w[1] - w[0]).collect::<Vec<f64>>();
    let all: Vec<f64> = beats.borrow().values().flat_map(gaps).collect();
    let (least, most) = all.iter().fold((f64::INFINITY, 0f64), |(a, b), &g| (a.min(g), b.max(g)));
    let c = cell(
        "beat intervals of the members meanwhile, least .. most s (2 partners: 1 s each, 2 s)".into(),
        3,
        scale.seed,
        "<= 2.04".into(),
        format!("{least:.2} .. {most:.2}"),
        format!("{} beats", all.len()),
    );
    // 2 s with a jitter of 2 %.
    cells.push(with(c, most <= 2.045 && all.len() >= 6, &[]));
    world.run(Duration::from_secs(30));
    world.crash(2);
    world.run(Duration::from_secs(30));
    let rows = [
        (1, true, Some(8), "1 repair"),
        // Both hold the key: the older version is announced first, and the newer one in answer to that.
        (1, false, None, "1 repair"),
        (10, true, None, "1 repair; the study's walk in 10^6 keys: 4.5 kB, 8"),
        (1_000, true, None, "1 repair; the study's walk in 10^6 keys: 309 kB, 264"),
    ];
    for (differences, fresh, datagrams_max, exposure) in rows {
        cells.push(difference(&mut world, scale, differences, fresh, datagrams_max, exposure));
    }
    cells
}

/// Keys changed at host 0 while nobody hears it; then what the session between two members costs.
fn difference(
    world: &mut World,
    scale: SyncScale,
    count: usize,
    fresh: bool,
    datagrams_max: Option<u64>,
    exposure: &str,
) -> Cell {
    world.run(Duration::from_secs(30));
    world.network.partition(|h| u32::from(h == 0));
    for n in 0..count {
        let key = if fresh { format!("new/{count}/{n}") } else { format!("key/{n:07}") };
        set(world, 0, key.as_bytes(), 88);
    }
    world.run(Duration::from_millis(1_200));
    let repair = count_repair(world);
    let start = world.now;
    world.network.heal();
    let equal = world.run_until(Duration::from_secs(60), Duration::from_millis(20), World::roots_equal);
    world.tap = None;
    let (datagrams, bytes) = *repair.borrow();
    let mut failures = std::mem::take(&mut world.checker.failures);
    if equal.is_none() {
        failures.push("not equal after 60 s".into());
    }
    let measured = format!("{bytes} B, {datagrams}, {:.1} s", world.now.since(start).as_secs_f64());
    let c = cell(
        format!(
            "{count} of {} keys {}: bytes, datagrams, until equal",
            scale.keys,
            if fresh { "missing" } else { "older" }
        ),
        2,
        scale.seed,
        datagrams_max.map_or("-".into(), |max| format!("-, <= {max}, -")),
        measured,
        exposure.into(),
    );
    with(c, datagrams_max.is_none_or(|max| datagrams <= max), &failures)
}

fn histories(scale: SyncScale, absence: bool) -> Vec<Cell> {
    let count = if absence { scale.histories } else { scale.histories.min(300) };
    let tally = deletes::run(scale.seed, count, deletes::Style { absence, rough: false }, 1, |_, _| {});
    let what = if absence {
        "histories with a deleted value that came back"
    } else {
        "the same with S7 off (canary)"
    };
    let c = cell(
        what.into(),
        7,
        scale.seed,
        if absence { "0" } else { "> 0" }.into(),
        format!("{}; {} broken", tally.resurrections, tally.broken),
        format!("{count} histories"),
    );
    let pass = if absence { tally.resurrections + tally.broken == 0 } else { tally.resurrections > 0 };
    vec![with(c, pass, &[])]
}

/// A member away for 1.5 G, by a split and with its disk; and the same with S7 off.
fn returns(scale: SyncScale) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (disk, absence) in [(false, true), (true, true), (false, false)] {
        let r = returning(scale.seed, 1.5, disk, absence);
        let how = if disk { "from its disk" } else { "after a split" };
        let canary = if absence { "" } else { ", S7 off (canary)" };
        let c = cell(
            format!(
                "member back after 1.5 G {how}{canary}: deleted keys back, kept keys lost, s until equal"
            ),
            5,
            scale.seed,
            if absence { "0, 0, -" } else { "> 0, 0, -" }.into(),
            format!("{}, {}, {:.1}", r.back, r.lost, r.equal_s.unwrap_or(f64::INFINITY)),
            "50 keys deleted, 50 kept".into(),
        );
        let pass = (r.back == 0) == absence && r.lost == 0 && r.equal_s.is_some();
        cells.push(with(c, pass, &[]));
    }
    cells
}

/// All rows of anti-entropy and deletes at this scale.
pub fn sync_cells(scale: SyncScale) -> Vec<Task> {
    let task = |name, cost, run: Box<dyn Fn() -> Vec<Cell> + Send + Sync>| Task { name, cost, run };
    let churns = scale.churn.iter().map(|&(members, rounds)| {
        task("churn", members as f64 / 100.0, Box::new(move || churn(scale, members, rounds)))
    });
    let mut tasks: Vec<Task> = churns.collect();
    tasks.extend([
        task("repair", 3.0, Box::new(move || repairs(scale, 0.0))),
        task("repair", 3.0, Box::new(move || repairs(scale, 0.05))),
        task("load", 5.0, Box::new(move || load(scale, 0.0))),
        task("load", 5.0, Box::new(move || load(scale, 0.05))),
        task("bulk", 8.0, Box::new(move || bulk(scale))),
        task("return", 1.0, Box::new(move || returns(scale))),
        task("deletes", 9.0, Box::new(move || histories(scale, true))),
        task("deletes", 2.0, Box::new(move || histories(scale, false))),
    ]);
    tasks
}

#[cfg(test)]
mod tests {
    use super::super::{run, table};
    use super::*;

    #[test]
    fn anti_entropy_holds_what_small_samples_show() {
        let mut tasks = sync_cells(SyncScale::small(1));
        tasks.retain(|t| t.name != "deletes");
        let cells = run(tasks, 2, |_| {});
        assert!(cells.iter().all(|c| c.pass), "{}", table(&cells));
        assert!(cells.len() >= 9);
    }
}
