//! Members with disks: all restart together and find each other by what they remember; one comes back and asks for what changed.

use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::rng::Rng;
use serde::Serialize;

use super::{Outcome, Settings, ms};
use crate::world::World;

/// Keys of the state; more than a member pulls whole.
const KEYS: usize = 3_000;
/// Keys that change while one member is away.
const CHANGED: usize = 30;
const VALUE_BYTES: usize = 100;
/// Least time a disk takes for a batch.
const LATENCY: Duration = Duration::from_millis(20);

/// Figures of [`restart`].
#[derive(Clone, Debug, Serialize)]
pub struct RestartFigures {
    /// From the first start after the end of all to full views, ms.
    pub full_views_ms: Option<f64>,
    /// From there to equal roots, ms.
    pub equal_roots_ms: Option<f64>,
    /// Keys that some member lacks after that.
    pub keys_lost: usize,
    /// Bytes that all sent per member meanwhile.
    pub bytes_per_member: f64,
    /// From the start of one that was away to equal roots, ms.
    pub return_ms: Option<f64>,
    /// Bytes that all sent meanwhile, in all.
    pub return_bytes: u64,
    /// The same for one with an empty disk, ms.
    pub copy_ms: Option<f64>,
    /// And its bytes.
    pub copy_bytes: u64,
}

fn value(key: usize, round: u32) -> Arc<[u8]> {
    let mut text = format!("{key}.{round}.").into_bytes();
    text.resize(VALUE_BYTES, b'x');
    Arc::from(text)
}

fn name(key: usize) -> String {
    format!("k/{key:05}")
}

fn write(world: &mut World, host: usize, key: usize, round: u32) {
    let wrote = world.command(host, |g, now| g.set(now, name(key).as_bytes(), value(key, round), None));
    if !matches!(wrote, Some(Ok(_))) {
        world.checker.fail(format!("write of {key} refused: {wrote:?}"));
    }
}

/// Crashes a host, lets keys change, starts it again, with its disk or an empty one: the time to equal roots and the bytes sent.
fn return_of(world: &mut World, host: usize, round: u32, empty: bool) -> (Option<f64>, u64) {
    world.crash(host);
    world.run(Duration::from_secs(20));
    for key in 0..CHANGED {
        write(world, (host + 1) % world.hosts.len(), key * (KEYS / CHANGED), round);
        world.run(Duration::from_millis(20));
    }
    world.run(Duration::from_secs(20));
    if empty {
        world.empty_disk(host, LATENCY);
    }
    let before = world.bytes_sent();
    let seed = (host + 1) % world.hosts.len();
    world.start(host, &[seed]);
    let whole = |w: &World| w.views_full() && w.roots_equal();
    let time = world.run_until(Duration::from_secs(60), Duration::from_millis(10), whole);
    if time.is_none() {
        world
            .checker
            .fail(format!("host {host} did not come to the same state within 60 s (empty: {empty})"));
    }
    (time.map(ms), world.bytes_sent() - before)
}

/// A whole cluster ends at once and starts within a second, without seeds; then one member is away for a while.
pub fn restart(settings: &Settings) -> Outcome<RestartFigures> {
    let mut world = settings.world();
    world.add_disks(LATENCY);
    if settings.joined(&mut world, Duration::from_secs(2)).is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    let mut rng = Rng::from_number(settings.seed ^ 0x7265_7374);
    for key in 0..KEYS {
        write(&mut world, rng.below(settings.members), key, 0);
        if key % 4 == 3 {
            world.run(Duration::from_millis(10));
        }
    }
    let equal = world.run_until(Duration::from_secs(120), Duration::from_millis(100), World::roots_equal);
    if equal.is_none() {
        world.checker.fail("roots are not equal 120 s after the writes".into());
    }
    // What was asked to be saved is; members' addresses follow within two seconds.
    for host in 0..settings.members {
        let asked = world.command(host, |g, _| g.flush()).unwrap_or(0);
        let saved = world.run_until(Duration::from_secs(5), Duration::from_millis(10), |w| {
            w.gossip(host).is_some_and(|g| g.persisted() >= asked)
        });
        if saved.is_none() {
            world.checker.fail(format!("host {host} has not saved its state"));
        }
    }
    world.run(Duration::from_secs(3));
    (0..settings.members).for_each(|host| world.crash(host));
    world.run(Duration::from_secs(1));
    let (before, from) = (world.bytes_sent(), world.now);
    for host in 0..settings.members {
        world.start(host, &[]);
        world.run(Duration::from_secs(1) / settings.members as u32);
    }
    let views = world.run_until(Duration::from_secs(60), Duration::from_millis(50), World::views_full);
    let full_views_ms = views.map(|_| ms(world.now.since(from)));
    let equal = world.run_until(Duration::from_secs(60), Duration::from_millis(50), World::roots_equal);
    if views.is_none() || equal.is_none() {
        world.checker.fail(format!("not whole after the restart: views {views:?}, roots {equal:?}"));
    }
    let bytes = world.bytes_sent() - before;
    let held = |w: &World, host: usize, key: usize| {
        w.gossip(host).is_some_and(|g| {
            g.get(w.clock(host), name(key).as_bytes()).is_some_and(|e| e.value == value(key, 0))
        })
    };
    let keys_lost = (0..KEYS).filter(|&key| !world.up().all(|host| held(&world, host, key))).count();
    if keys_lost > 0 {
        world.checker.fail(format!("{keys_lost} keys did not survive the restart of all"));
    }
    world.run(Duration::from_secs(20));
    let last = settings.members - 1;
    let (return_ms, return_bytes) = return_of(&mut world, last, 1, false);
    world.run(Duration::from_secs(20));
    let (copy_ms, copy_bytes) = return_of(&mut world, last, 2, true);
    let figures = RestartFigures {
        full_views_ms,
        equal_roots_ms: equal.map(ms),
        keys_lost,
        bytes_per_member: bytes as f64 / settings.members as f64,
        return_ms,
        return_bytes,
        copy_ms,
        copy_bytes,
    };
    Outcome::of("restart", settings, world, figures)
}
