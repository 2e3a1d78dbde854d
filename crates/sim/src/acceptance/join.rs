//! Joins: many at once, restarts, a join across a split, taken names, sleep.

use std::time::Duration;

use hearsay_proto::member::{TAGS_BYTES_MAX, Tags};
use hearsay_proto::rng::Rng;

use super::detector::{by_size, cell, push, with};
use super::heal::SECOND_BYTES_MAX;
use super::measure::{FULL_WITHIN, bed};
use super::{Cell, Scale, Task};
use crate::network::Loss;
use crate::scenario::Settings;
use crate::stats::Quantiles;
use crate::world::{News, World};

/// Bytes of a member record but for its name and tags.
const RECORD_BYTES: usize = 6 + 8 + 1 + 7 + 1 + 1 + 1 + 1;
const LOOK: Duration = Duration::from_millis(50);

/// Tags and a name length that make a member record this long.
fn padding(record_bytes: usize) -> (Tags, usize) {
    const NAME: usize = 6;
    let rest = record_bytes.saturating_sub(RECORD_BYTES + NAME);
    // What tags cannot hold the name does.
    let tagged = rest.min(TAGS_BYTES_MAX);
    let mut tags = Tags::new();
    let (mut left, mut number) = (tagged, 0);
    while left > 6 {
        // Two lengths, two letters of the key, the value.
        let value = left.min(200);
        tags.insert(format!("t{number}"), "v".repeat(value - 4));
        left -= value;
        number += 1;
    }
    (tags, NAME + rest - tagged)
}

/// What a mass join came to.
#[derive(Clone, Debug, Default)]
pub struct MassJoin {
    /// From the first start to full views, s; infinite if not within two minutes.
    pub full_s: f64,
    /// Bytes the seed sent until then, datagrams and frames.
    pub seed: u64,
    /// Mean member's.
    pub mean: u64,
    /// Most bytes of any member in any second, datagrams with their headers.
    pub second: u64,
    /// The same with frames.
    pub second_with_streams: u64,
    /// Deaths told of living members, up to half a minute later.
    pub deaths: usize,
    /// Violated invariants.
    pub failures: Vec<String>,
}

/// Everybody joins through one seed within 2 s.
pub fn mass_join(members: usize, record_bytes: usize, loss: f64, seed: u64) -> MassJoin {
    let settings = Settings { loss, ..Settings::lan(members, seed) };
    let mut world = settings.world();
    let (tags, name_bytes) = padding(record_bytes);
    world.name_bytes = name_bytes;
    let gap = Duration::from_secs(2) / members as u32;
    for host in 0..members {
        let seeds: &[usize] = if host == 0 { &[] } else { &[0] };
        world.start_with(host, seeds, tags.clone());
        world.run(gap);
    }
    let full = world.run_until(FULL_WITHIN, LOOK, World::views_full);
    let bytes: Vec<u64> = world.hosts.iter().map(|h| h.payload_bytes + h.stream_bytes).collect();
    let full_s = full.map_or(f64::INFINITY, |_| world.now.0 as f64 / 1e9);
    world.run(Duration::from_secs(30));
    if !world.views_full() || !world.roots_equal() {
        world.checker.fail("views or roots differ half a minute later".into());
    }
    let died = world.log.iter().filter(|t| t.news == News::Died).count();
    MassJoin {
        full_s,
        seed: bytes.first().copied().unwrap_or(0),
        mean: bytes.iter().sum::<u64>() / members as u64,
        second: world.hosts.iter().map(|h| h.busiest_second).max().unwrap_or(0),
        second_with_streams: world.hosts.iter().map(|h| h.busiest_with_streams).max().unwrap_or(0),
        deaths: died,
        failures: std::mem::take(&mut world.checker.failures),
    }
}

fn mass_row(
    members: usize,
    record_bytes: usize,
    loss: f64,
    required: (f64, f64),
    seeds: std::ops::Range<u64>,
) -> Cell {
    let (count, first) = (seeds.end - seeds.start, seeds.start);
    let runs: Vec<MassJoin> = seeds.map(|seed| mass_join(members, record_bytes, loss, seed)).collect();
    let failures: Vec<String> = runs.iter().flat_map(|r| r.failures.clone()).collect();
    let most = |of: fn(&MassJoin) -> f64| runs.iter().map(of).fold(0.0, f64::max);
    let (full, seed_mb) = (most(|r| r.full_s), most(|r| r.seed as f64 / 1e6));
    let second = most(|r| r.second as f64);
    let deaths: usize = runs.iter().map(|r| r.deaths).sum();
    let limit = |x: f64| if x.is_finite() { format!("{x}") } else { "-".into() };
    let c = cell(
        format!(
            "mass join, records {record_bytes} B, loss {} %: s; seed MB; best s kB; deaths",
            loss * 100.0
        ),
        members,
        first,
        format!("<= {}; {}; {:.0}; 0", limit(required.0), limit(required.1), SECOND_BYTES_MAX as f64 / 1e3),
        format!("{full:.2}; {seed_mb:.2}; {:.0}; {deaths}", second / 1e3),
        format!(
            "{count} joins; mean {:.0} kB; with streams {:.0}",
            most(|r| r.mean as f64) / 1e3,
            most(|r| r.second_with_streams as f64) / 1e3
        ),
    );
    let pass =
        full <= required.0 && seed_mb <= required.1 && second <= SECOND_BYTES_MAX as f64 && deaths == 0;
    with(c, pass, &failures)
}

/// Deaths told of a process that had been up for three seconds.
fn false_deaths(world: &World, started: &[hearsay_proto::time::Mono]) -> usize {
    let young = Duration::from_secs(3);
    let of_living = |t: &&crate::world::Told| {
        let since = started.get(t.subject as usize).copied().unwrap_or_default();
        t.news == News::Died && world.is_up(t.subject as usize) && t.at > since + young
    };
    world.log.iter().filter(of_living).count()
}

fn whole(world: &World) -> bool {
    world.views_full() && world.roots_equal()
}

/// All processes end within a second and start again under their names; time to full views and equal roots.
fn restart_all(members: usize, loss: f64, seed: u64) -> (f64, f64, Vec<String>) {
    let mut world = bed(members, 0, seed);
    world.network.loss = Loss::Independent(loss);
    let before: u64 = world.bytes_sent();
    let mut rng = Rng::from_number(seed ^ 0x7265_7374);
    let mut order: Vec<usize> = rng.distinct(members, members);
    let first = world.now;
    let gap = Duration::from_secs(1) / members as u32;
    while let Some(host) = order.pop() {
        world.crash(host);
        world.run(gap / 2);
        let seeds = world.usual_seeds(host);
        world.start(host, &seeds);
        world.run(gap / 2);
    }
    // Stays whole, too: an old run's record may come back from a member that has not heard.
    let full = world.run_until(FULL_WITHIN, LOOK, whole);
    let time = full.map_or(f64::INFINITY, |_| world.now.since(first).as_secs_f64());
    let bytes = (world.bytes_sent() - before) as f64 / members as f64;
    world.run(Duration::from_secs(20));
    if !whole(&world) {
        world.checker.fail("not whole 20 s later".into());
    }
    (time, bytes, std::mem::take(&mut world.checker.failures))
}

fn restart_row(members: usize, loss: f64, seeds: std::ops::Range<u64>) -> Cell {
    let (count, first) = (seeds.end - seeds.start, seeds.start);
    let runs: Vec<_> = seeds.map(|seed| restart_all(members, loss, seed)).collect();
    let failures: Vec<String> = runs.iter().flat_map(|r| r.2.clone()).collect();
    let slowest = runs.iter().map(|r| r.0).fold(0.0, f64::max);
    let bytes = runs.iter().map(|r| r.1).fold(0.0, f64::max);
    let required = if loss > 0.0 { 7.0 } else { 4.0 };
    let c = cell(
        format!("all restarted within 1 s, loss {} %: whole again s", loss * 100.0),
        members,
        first,
        format!("<= {required}"),
        format!("{slowest:.2}"),
        format!("{count} times; {:.0} kB per member", bytes / 1e3),
    );
    with(c, slowest <= required, &failures)
}

/// One after the other restarts: each `every`, down for `down`.
fn rolling_row(members: usize, rounds: usize, every: Duration, down: Duration, seed: u64) -> Cell {
    let mut world = bed(members, 0, seed);
    world.log.clear();
    let mut started = vec![hearsay_proto::time::Mono(0); members];
    for host in (0..members).take(rounds) {
        world.crash(host);
        world.run(down);
        let seeds = world.usual_seeds(host);
        started[host] = world.now;
        world.start(host, &seeds);
        world.run(every.saturating_sub(down));
    }
    let end = world.run_until(FULL_WITHIN, LOOK, whole);
    let end = end.map_or(f64::INFINITY, |t| t.as_secs_f64());
    // Deaths of runs that did end are none of a later run.
    let deaths = false_deaths(&world, &started);
    world.run(Duration::from_secs(20));
    if !whole(&world) {
        world.checker.fail("not whole 20 s later".into());
    }
    let c = cell(
        format!(
            "rolling restart each {} s (down {} s): false deaths; whole after the last s",
            every.as_secs(),
            down.as_secs()
        ),
        members,
        seed,
        "0; <= 4".into(),
        format!("{deaths}; {end:.2}"),
        format!("{} restarts", rounds.min(members)),
    );
    with(c, deaths == 0 && end <= 4.0, &world.checker.failures)
}

/// One member joins a cluster at rest: until all know it, and it knows all.
fn one_join_row(members: usize, count: usize, seed: u64, required: f64) -> Cell {
    let mut world = bed(members, count, seed);
    let mut times = Vec::new();
    for host in members..members + count {
        let seeds = world.usual_seeds(host);
        let at = world.now;
        world.start(host, &seeds);
        let known = world.run_until(FULL_WITHIN, Duration::from_millis(10), World::views_full);
        times.push(known.map_or(f64::INFINITY, |_| world.now.since(at).as_secs_f64()));
        world.run(Duration::from_secs(5));
    }
    let q = Quantiles::of(times);
    let c = cell(
        "one join known to all, slowest s".into(),
        members,
        seed,
        format!("<= {required}"),
        format!("{:.2} (median {:.2})", q.max, q.median),
        format!("{count} joins"),
    );
    with(c, q.max <= required, &world.checker.failures)
}

/// A member joins one side of a split; after the heal all know it. Its name may live on the other side: then the run that is
/// older stops, with a conflict, and nobody is declared dead by mistake.
fn split_join_row(members: usize, taken: bool, seed: u64, required: (f64, f64)) -> Cell {
    let mut world = bed(members, 1, seed);
    let half = members / 2;
    world.network.partition(|h| u32::from(h >= half && h < members));
    world.run(Duration::from_secs(30));
    let at = world.now;
    let owner = members - 1;
    let seeds = world.usual_seeds(members);
    let named = if taken { owner } else { members };
    world.start_as(members, named, &seeds, Tags::new());
    let side = world.run_until(Duration::from_secs(10), LOOK, |w| {
        (0..half).chain([members]).all(|h| w.gossip(h).is_some_and(|g| g.living() == half + 1))
    });
    if side.is_none() {
        world.checker.fail("its own side did not know it within 10 s".into());
    }
    world.run(Duration::from_secs(20).saturating_sub(world.now.since(at)));
    world.network.heal();
    let healed = world.now;
    // The one that stops tells nobody any more; its process ends like any that has lost its name.
    let expected = if taken { members } else { members + 1 };
    let stopped = |w: &World| {
        w.log.iter().filter(|t| t.news == News::Conflict).map(|t| t.host as usize).collect::<Vec<_>>()
    };
    let full = |w: &World| {
        let out = stopped(w);
        (0..=members)
            .filter(|h| !out.contains(h))
            .all(|h| w.gossip(h).is_some_and(|g| g.living() == expected))
    };
    let views = world.run_until(FULL_WITHIN, LOOK, full);
    let views = views.map_or(f64::INFINITY, |t| t.as_secs_f64());
    let out = stopped(&world);
    out.iter().for_each(|&h| world.crash(h));
    let roots = world.run_until(FULL_WITHIN, LOOK, World::roots_equal);
    let roots = roots.map_or(f64::INFINITY, |_| world.now.since(healed).as_secs_f64());
    let conflicts = if taken { vec![owner] } else { Vec::new() };
    if out != conflicts {
        world.checker.fail(format!("name conflicts told at {out:?}, expected {conflicts:?}"));
    }
    let what =
        if taken { "join during a split under a name of the other side" } else { "join during a split" };
    let c = cell(
        format!("{what}: heal, views, roots s"),
        members,
        seed,
        format!("<= {}, {}", required.0, required.1),
        format!("{views:.2}, {roots:.2}"),
        "1 time".into(),
    );
    with(c, views <= required.0 && roots <= required.1, &world.checker.failures)
}

/// A newcomer with the name of a living member stops; of a dead one it takes over; nobody else notices.
fn name_row(members: usize, seed: u64) -> Cell {
    let mut world = bed(members, 2, seed);
    let (first, second, owner) = (members, members + 1, members / 2);
    let seeds = world.usual_seeds(first);
    let at = world.now;
    world.start_as(first, owner, &seeds, Tags::new());
    let told = |w: &World| w.log.iter().any(|t| t.news == News::Conflict && t.host as usize == first);
    let refused = world.run_until(Duration::from_secs(20), LOOK, told);
    let refused = refused.map_or(f64::INFINITY, |_| world.now.since(at).as_secs_f64());
    world.run(Duration::from_secs(10));
    world.crash(first);
    let unmoved = world.log.iter().all(|t| !matches!(t.news, News::Died | News::Suspected));
    if !unmoved || !whole(&world) {
        world.checker.fail("the owner of the name was hurt".into());
    }
    world.crash(owner);
    let taken_from = world.now;
    world.start_as(second, owner, &seeds, Tags::new());
    // Nobody answers for the old run any more.
    let whole_at = world.run_until(FULL_WITHIN, LOOK, whole);
    let taken = whole_at.map_or(f64::INFINITY, |_| world.now.since(taken_from).as_secs_f64());
    let c = cell(
        "name of a living member: refused s; of a crashed one: taken over s".into(),
        members,
        seed,
        "<= 5; 5".into(),
        format!("{refused:.2}; {taken:.2}"),
        "1 time".into(),
    );
    with(c, refused <= 5.0 && taken <= 5.0, &world.checker.failures)
}

/// A computer sleeps: its monotonic clock stands, the wall clock goes on. Afterwards all is whole again.
fn sleep_row(members: usize, asleep: Duration, seed: u64, required: (f64, f64)) -> Cell {
    let mut world = bed(members, 0, seed);
    let host = members / 2;
    world.sleep(host);
    world.run(asleep);
    world.wake(host);
    let woken = world.now;
    let views = world.run_until(FULL_WITHIN, LOOK, World::views_full);
    let roots = world.run_until(FULL_WITHIN, LOOK, whole);
    let views = views.map_or(f64::INFINITY, |t| t.as_secs_f64());
    let roots = roots.map_or(f64::INFINITY, |_| world.now.since(woken).as_secs_f64());
    let others = world.log.iter().filter(|t| t.news == News::Died && t.subject as usize != host).count();
    let c = cell(
        format!("a computer sleeps {} s: views, roots s; others declared dead", asleep.as_secs()),
        members,
        seed,
        format!("<= {}, {}; 0", required.0, required.1),
        format!("{views:.2}, {roots:.2}; {others}"),
        "1 time".into(),
    );
    with(c, views <= required.0 && roots <= required.1 && others == 0, &world.checker.failures)
}

/// All join rows at this scale.
pub fn cells(scale: &Scale) -> Vec<Task> {
    let mut tasks = Vec::new();
    let none = f64::INFINITY;
    for &members in scale.sizes.iter().filter(|&&n| n <= 1_000) {
        let (thousand, seed) = (members >= 1_000, scale.seed);
        let times = scale.splits as u64;
        let n = members as f64;
        if members >= 100 {
            let mut rows = vec![(64, 0.0, by_size(members, [(none, none), (3.0, 0.15), (4.0, 0.7)]))];
            rows.push((300, 0.0, by_size(members, [(none, none), (4.0, none), (10.0, none)])));
            rows.push((580, 0.0, by_size(members, [(none, none), (4.0, none), (20.0, none)])));
            if thousand {
                rows.push((64, 0.05, (7.0, 1.5)));
                rows.push((300, 0.05, (10.0, none)));
                rows.push((580, 0.05, (20.0, none)));
            }
            for (bytes, loss, required) in rows {
                let name = match bytes {
                    0..300 => "mass-64",
                    300..500 => "mass-300",
                    _ => "mass-580",
                };
                push(&mut tasks, name, n * times as f64 * bytes as f64, move || {
                    vec![mass_row(members, bytes, loss, required, seed..seed + times)]
                });
            }
        }
        for loss in [0.0, 0.05] {
            push(&mut tasks, "restart", n * times as f64 * 40.0, move || {
                vec![restart_row(members, loss, seed..seed + times)]
            });
        }
        let rounds = if scale.few { 5 } else { by_size(members, [10, 60, 20]) };
        for (every, down) in [(3, 1), (10, 8)] {
            let [every, down] = [every, down].map(Duration::from_secs);
            push(&mut tasks, "rolling", n * rounds as f64 * every.as_secs_f64(), move || {
                vec![rolling_row(members, rounds, every, down, seed)]
            });
        }
        let joins = if scale.few { 5 } else { by_size(members, [20, 20, 5]) };
        let required = by_size(members, [0.6, 0.6, 0.8]);
        push(&mut tasks, "one", n * joins as f64 * 6.0, move || {
            vec![one_join_row(members, joins, seed, required)]
        });
        let healed = by_size(members, [(6.0, 8.0), (6.0, 6.0), (10.0, 10.0)]);
        for taken in [false, true] {
            push(&mut tasks, "split", n * 90.0, move || vec![split_join_row(members, taken, seed, healed)]);
        }
        push(&mut tasks, "name", n * 60.0, move || vec![name_row(members, seed)]);
        for asleep in [60, 600] {
            if asleep > 60 && (scale.few || thousand) {
                continue;
            }
            push(&mut tasks, "sleep", n * asleep as f64, move || {
                vec![sleep_row(members, Duration::from_secs(asleep), seed, healed)]
            });
        }
    }
    tasks
}
