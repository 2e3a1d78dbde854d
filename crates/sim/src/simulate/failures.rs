//! Crashes and partitions.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{AT_MOST, Bench, Load, Times};
use crate::world::{News, World};

/// How often it is looked who knows.
const LOOK: Duration = Duration::from_millis(50);
/// Pause between two writes on one side of a cut, at most.
const WRITE_GAP: Duration = Duration::from_millis(20);

/// Figures of crashes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CrashFigures {
    /// From the crash to the first suspicion anywhere.
    first_suspicion_ms: Times,
    /// To the first death anywhere.
    first_death_ms: Times,
    /// To the last member that learns of the death.
    last_death_ms: Times,
    /// Deaths of members that had not crashed, in any view.
    false_deaths: usize,
    /// Crashes that some member had not noticed after a minute.
    unnoticed: usize,
    /// Before the first.
    idle: Load,
}

/// Figures of a partition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartitionFigures {
    /// Members on the smaller side.
    cut: usize,
    /// From the cut until each side had buried the other; null if it never did.
    buried_ms: Option<f64>,
    /// From the heal to full views everywhere.
    full_views_ms: Option<f64>,
    /// From the heal to equal roots everywhere.
    equal_roots_ms: Option<f64>,
    /// Sent by the busiest member from the heal until then.
    busiest_member_bytes: u64,
    /// Most bytes of any member in any second, IP and UDP headers included.
    busiest_second_bytes: u64,
    /// Keys of either side that some member has not in the end.
    keys_lost: usize,
}

impl Bench<'_> {
    pub(super) fn crash(&mut self, crashes: usize) -> CrashFigures {
        let idle = self.idle();
        let (mut suspected, mut died, mut known) = (Vec::new(), Vec::new(), Vec::new());
        let (mut unnoticed, mut false_deaths) = (0, 0);
        let members = self.request.members;
        for _ in 0..crashes {
            let rest = Duration::from_secs(5) + self.rng.up_to(Duration::from_secs(4));
            let world = &mut self.world;
            let victim = self.rng.below(members);
            world.log.clear();
            world.run(rest);
            false_deaths += deaths(world, None);
            world.log.clear();
            world.crash(victim);
            let at = world.now;
            let others = members - 1;
            let gone = |w: &World| w.up().all(|h| w.gossip(h).is_some_and(|g| g.living() == others));
            let noticed = world.run_until(AT_MOST, LOOK, gone).is_some();
            false_deaths += deaths(world, Some(victim));
            if noticed {
                let of = |wanted: News| {
                    let of_victim = world.log.iter().filter(move |t| t.subject as usize == victim);
                    of_victim
                        .filter(move |t| t.news == wanted)
                        .map(move |t| t.at.since(at).as_secs_f64() * 1e3)
                };
                suspected.extend(of(News::Suspected).reduce(f64::min));
                died.extend(of(News::Died).reduce(f64::min));
                known.extend(of(News::Died).reduce(f64::max));
            } else {
                unnoticed += 1;
            }
            let seed = (victim + 1) % members;
            world.start(victim, &[seed]);
            if world.run_until(AT_MOST, LOOK, World::views_full).is_none() {
                world.checker.fail("views are not full a minute after a restart".into());
            }
        }
        CrashFigures {
            first_suspicion_ms: Times::of(suspected),
            first_death_ms: Times::of(died),
            last_death_ms: Times::of(known),
            false_deaths,
            unnoticed,
            idle,
        }
    }

    pub(super) fn partition(&mut self, lasts: Duration, share: f64, keys: usize) -> PartitionFigures {
        let members = self.request.members;
        let cut = ((members as f64 * share).round() as usize).clamp(1, members - 1);
        let world = &mut self.world;
        world.network.partition(|h| u32::from(h < cut));
        let from = world.now;
        let gap = WRITE_GAP.min(lasts / (2 * keys as u32 + 1));
        let name = |side: usize, key: usize| format!("side{side}/{key}");
        for key in 0..2 * keys {
            let (side, key) = (key % 2, key / 2);
            let writer = if side == 0 { self.rng.below(cut) } else { cut + self.rng.below(members - cut) };
            let value: Arc<[u8]> = Arc::from(format!("{side}-{key}").as_bytes());
            let done = world.command(writer, |g, now| g.set(now, name(side, key).as_bytes(), value, None));
            if !matches!(done, Some(Ok(_))) {
                world.checker.fail(format!("write {key} refused: {done:?}"));
            }
            world.run(gap);
        }
        let left = lasts.saturating_sub(world.now.since(from));
        let buried = world.run_until(left, LOOK, |w| {
            w.up().all(|h| {
                let own = if h < cut { cut } else { members - cut };
                w.gossip(h).is_some_and(|g| g.living() == own)
            })
        });
        let buried_ms = buried.map(|_| world.now.since(from).as_secs_f64() * 1e3);
        world.run(lasts.saturating_sub(world.now.since(from)));
        world.network.heal();
        let healed = world.now;
        let sent =
            |w: &World| -> Vec<u64> { w.hosts.iter().map(|h| h.payload_bytes + h.stream_bytes).collect() };
        let before = sent(world);
        let mut until = |done: fn(&World) -> bool| {
            let took = world.run_until(AT_MOST, LOOK, done);
            took.map(|_| world.now.since(healed).as_secs_f64() * 1e3)
        };
        let full_views_ms = until(World::views_full);
        let equal_roots_ms = until(World::roots_equal);
        let after = sent(world);
        let lost = |side: usize, key: usize| {
            let name = name(side, key);
            let holds = |h| world.gossip(h).is_some_and(|g| g.get(world.clock(h), name.as_bytes()).is_some());
            !world.up().all(holds)
        };
        let keys_lost = (0..2 * keys).filter(|key| lost(key % 2, key / 2)).count();
        if full_views_ms.is_none() || equal_roots_ms.is_none() || keys_lost > 0 {
            world.checker.fail(format!(
                "not healed after a minute: views {full_views_ms:?}, roots {equal_roots_ms:?}, {keys_lost} keys lost"
            ));
        }
        PartitionFigures {
            cut,
            buried_ms,
            full_views_ms,
            equal_roots_ms,
            busiest_member_bytes: after.iter().zip(&before).map(|(a, b)| a - b).max().unwrap_or(0),
            busiest_second_bytes: world.hosts.iter().map(|h| h.busiest_second).max().unwrap_or(0),
            keys_lost,
        }
    }
}

/// Deaths told, but those of this host.
fn deaths(world: &World, of: Option<usize>) -> usize {
    let others = |subject: u32| Some(subject as usize) != of;
    world.log.iter().filter(|t| t.news == News::Died && others(t.subject)).count()
}
