//! Scenarios with their figures. Each runs from a seed and ends with the list of violated invariants.

mod restart;
mod talk;

use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::Config;
use serde::Serialize;

use crate::network::{Loss, Network};
use crate::world::{News, World};

pub use restart::{RestartFigures, restart};
pub use talk::{BroadcastFigures, QueryFigures, broadcast, query};

/// Settings shared by all scenarios.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Members.
    pub members: usize,
    /// Seed of everything.
    pub seed: u64,
    /// Share of datagrams lost, independently.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams held back by up to 50 ms.
    pub reorder: f64,
    /// 40 ms one way instead of 0.3 ms.
    pub wan: bool,
    /// Configuration of every member.
    pub config: Config,
}

impl Settings {
    /// A clean local network and the `lan` presets.
    pub fn lan(members: usize, seed: u64) -> Settings {
        Settings { members, seed, loss: 0.0, duplicate: 0.0, reorder: 0.0, wan: false, config: Config::lan() }
    }

    /// A world of members that are down.
    pub fn world(&self) -> World {
        let mut world = World::new(self.seed, self.members, self.config.clone());
        if self.wan {
            world.network = Network::wan(self.members);
        }
        world.network.loss = Loss::Independent(self.loss);
        world.network.duplicate = self.duplicate;
        world.network.reorder = self.reorder;
        world
    }

    /// The command that repeats a run of this scenario.
    pub fn command(&self, scenario: &str) -> String {
        format!(
            "cargo run --release -p hearsay-sim -- {scenario} --members {} --seed {} --loss {} --duplicate {} --reorder {}{}",
            self.members,
            self.seed,
            self.loss,
            self.duplicate,
            self.reorder,
            if self.wan { " --wan" } else { "" }
        )
    }

    /// Starts everybody through host 0 within `within` and waits for full views; the time from the first start.
    pub fn joined(&self, world: &mut World, within: Duration) -> Option<Duration> {
        let start = world.now;
        let gap = within / self.members.max(1) as u32;
        for host in 0..self.members {
            world.start(host, if host == 0 { &[] } else { &[0] });
            world.run(gap);
        }
        world.run_until(Duration::from_secs(60), Duration::from_millis(50), World::views_full)?;
        Some(world.now.since(start))
    }
}

/// Figures of one run, and what was violated.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome<F> {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Members.
    pub members: usize,
    /// Seed.
    pub seed: u64,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Its figures.
    pub figures: F,
    /// Violated invariants and missed ends; empty when all is well.
    pub failures: Vec<String>,
    /// Steps simulated.
    pub steps: u64,
    /// The command that repeats it.
    pub command: String,
}

impl<F> Outcome<F> {
    fn of(name: &'static str, settings: &Settings, world: World, figures: F) -> Outcome<F> {
        Outcome {
            scenario: name,
            members: settings.members,
            seed: settings.seed,
            loss: settings.loss,
            figures,
            failures: world.checker.failures,
            steps: world.steps,
            command: settings.command(name),
        }
    }
}

fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

/// Figures of [`join`].
#[derive(Clone, Debug, Serialize)]
pub struct JoinFigures {
    /// From the first start to full views everywhere, ms.
    pub full_views_ms: Option<f64>,
    /// From there to equal roots everywhere, ms.
    pub equal_roots_ms: Option<f64>,
    /// Bytes the seed sent, datagrams and streams.
    pub seed_bytes: u64,
    /// Mean bytes per member.
    pub mean_bytes: f64,
    /// Idle payload bytes per member and second afterwards, over 60 s.
    pub idle_bytes_per_second: f64,
    /// Idle datagrams per member and second.
    pub idle_datagrams_per_second: f64,
}

/// All members join through one seed within 2 s; then 60 s of silence.
pub fn join(settings: &Settings) -> Outcome<JoinFigures> {
    let mut world = settings.world();
    let full = settings.joined(&mut world, Duration::from_secs(2));
    if full.is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    let equal = world.run_until(Duration::from_secs(30), Duration::from_millis(50), World::roots_equal);
    if equal.is_none() {
        world.checker.fail("roots are not equal after 30 s".into());
    }
    let bytes: Vec<u64> = world.hosts.iter().map(|h| h.payload_bytes + h.stream_bytes).collect();
    world.run(Duration::from_secs(30));
    let before: (u64, u64) =
        world.hosts.iter().fold((0, 0), |a, h| (a.0 + h.payload_bytes + h.stream_bytes, a.1 + h.datagrams));
    world.run(Duration::from_secs(60));
    let after: (u64, u64) =
        world.hosts.iter().fold((0, 0), |a, h| (a.0 + h.payload_bytes + h.stream_bytes, a.1 + h.datagrams));
    let per = settings.members as f64 * 60.0;
    if !world.views_full() {
        world.checker.fail("views did not stay full".into());
    }
    let figures = JoinFigures {
        full_views_ms: full.map(ms),
        equal_roots_ms: equal.map(ms),
        seed_bytes: bytes.first().copied().unwrap_or(0),
        mean_bytes: bytes.iter().sum::<u64>() as f64 / settings.members as f64,
        idle_bytes_per_second: (after.0 - before.0) as f64 / per,
        idle_datagrams_per_second: (after.1 - before.1) as f64 / per,
    };
    Outcome::of("join", settings, world, figures)
}

/// Figures of [`rumor`].
#[derive(Clone, Debug, Serialize)]
pub struct RumorFigures {
    /// Mean time until every member has a write, ms.
    pub all_ms_mean: Option<f64>,
    /// Worst of them.
    pub all_ms_max: Option<f64>,
    /// Payload copies sent per member and write.
    pub copies: f64,
    /// Writes that needed anti-entropy (not complete within 2 s).
    pub late: usize,
    /// Bytes per member and write beyond the idle load.
    pub bytes_per_write: f64,
}

/// Twenty writes by random members, one each 2 s, of 64-byte values.
pub fn rumor(settings: &Settings) -> Outcome<RumorFigures> {
    const WRITES: usize = 20;
    let mut world = settings.world();
    if settings.joined(&mut world, Duration::from_secs(2)).is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    world.run(Duration::from_secs(20));
    let idle_from = world.bytes_sent();
    world.run(Duration::from_secs(20));
    let idle = (world.bytes_sent() - idle_from) as f64 / 20.0;
    let sent = |w: &World| -> u64 {
        w.up().filter_map(|h| w.gossip(h)).map(|g| g.metrics(w.clock(0)).rumors.records_sent).sum()
    };
    let (records_from, bytes_from, from) = (sent(&world), world.bytes_sent(), world.now);
    let mut rng = hearsay_proto::rng::Rng::from_number(settings.seed ^ 0x77);
    let mut times = Vec::new();
    let mut late = 0;
    for write in 0..WRITES {
        let writer = rng.below(settings.members);
        let key = format!("key/{write}");
        let value: Arc<[u8]> = Arc::from(&[write as u8; 64][..]);
        let wrote = world.command(writer, |g, now| g.set(now, key.as_bytes(), value.clone(), None));
        if !matches!(wrote, Some(Ok(_))) {
            world.checker.fail(format!("write {write} refused: {wrote:?}"));
        }
        let start = world.now;
        let all = world.run_until(Duration::from_secs(2), Duration::from_millis(1), |w| {
            w.up().all(|h| {
                w.gossip(h)
                    .is_some_and(|g| g.get(w.clock(h), key.as_bytes()).is_some_and(|e| e.value == value))
            })
        });
        match all {
            Some(time) => times.push(ms(time)),
            None => late += 1,
        }
        world.run(Duration::from_secs(2).saturating_sub(world.now.since(start)));
    }
    let elapsed = world.now.since(from).as_secs_f64();
    let spread_bytes = (world.bytes_sent() - bytes_from) as f64 - idle * elapsed;
    let copies = (sent(&world) - records_from) as f64;
    let equal = world.run_until(Duration::from_secs(60), Duration::from_millis(100), World::roots_equal);
    if equal.is_none() {
        world.checker.fail("roots are not equal 60 s after the last write".into());
    }
    let per = (settings.members * WRITES) as f64;
    let figures = RumorFigures {
        all_ms_mean: (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64),
        all_ms_max: times.iter().copied().reduce(f64::max),
        copies: copies / per,
        late,
        bytes_per_write: spread_bytes / per,
    };
    Outcome::of("rumor", settings, world, figures)
}

/// Figures of [`crash`].
#[derive(Clone, Debug, Serialize)]
pub struct CrashFigures {
    /// From the crash to the first suspicion anywhere, s.
    pub first_suspicion_s: Option<f64>,
    /// To the first death.
    pub first_death_s: Option<f64>,
    /// To the last member that learns of the death.
    pub last_death_s: Option<f64>,
    /// Members that never crashed and were declared dead somewhere.
    pub false_deaths: usize,
}

/// One random member crashes.
pub fn crash(settings: &Settings) -> Outcome<CrashFigures> {
    let mut world = settings.world();
    if settings.joined(&mut world, Duration::from_secs(2)).is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    let mut rng = hearsay_proto::rng::Rng::from_number(settings.seed ^ 0xc0);
    world.run(Duration::from_secs(30) + rng.up_to(Duration::from_secs(4)));
    let victim = rng.below(settings.members);
    world.crash(victim);
    let at = world.now;
    let name = World::name(victim);
    let all = world.run_until(Duration::from_secs(60), Duration::from_millis(100), World::views_full);
    if all.is_none() {
        world.checker.fail(format!("{name} is not dead everywhere after 60 s"));
    }
    world.run(Duration::from_secs(2));
    let times = |wanted: News| {
        let of_victim = world.log.iter().filter(move |t| t.subject as usize == victim && t.at >= at);
        of_victim.filter(move |t| t.news == wanted).map(move |t| t.at.since(at).as_secs_f64())
    };
    let false_deaths = world
        .log
        .iter()
        .filter(|t| t.news == News::Died && (t.subject as usize != victim || t.at < at))
        .count();
    let figures = CrashFigures {
        first_suspicion_s: times(News::Suspected).reduce(f64::min),
        first_death_s: times(News::Died).reduce(f64::min),
        last_death_s: times(News::Died).reduce(f64::max),
        false_deaths,
    };
    if false_deaths > 0 {
        world.checker.fail(format!("{false_deaths} false deaths"));
    }
    Outcome::of("crash", settings, world, figures)
}

/// Figures of [`partition_heal`].
#[derive(Clone, Debug, Serialize)]
pub struct HealFigures {
    /// From the cut until each side has buried the other, s.
    pub buried_s: Option<f64>,
    /// From the heal to full views, s.
    pub views_s: Option<f64>,
    /// From the heal to equal roots, s.
    pub roots_s: Option<f64>,
    /// Busiest member's bytes from the heal to equal roots.
    pub busiest_bytes: u64,
    /// Most bytes of any member in any second, headers included.
    pub busiest_second: u64,
}

/// The cluster is cut in halves for 60 s; each side writes 50 keys and both write 10 common ones; the cut heals.
pub fn partition_heal(settings: &Settings) -> Outcome<HealFigures> {
    let mut world = settings.world();
    if settings.joined(&mut world, Duration::from_secs(2)).is_none() {
        world.checker.fail("views are not full after 60 s".into());
    }
    world.run(Duration::from_secs(20));
    let half = settings.members / 2;
    world.network.partition(|h| u32::from(h >= half));
    let cut = world.now;
    let mut rng = hearsay_proto::rng::Rng::from_number(settings.seed ^ 0x9a);
    for side in 0..2 {
        for key in 0..60 {
            let own = if key < 50 { format!("side{side}/{key}") } else { format!("both/{key}") };
            let writer =
                if side == 0 { rng.below(half.max(1)) } else { half + rng.below(settings.members - half) };
            let value: Arc<[u8]> = Arc::from(format!("{side}-{key}").as_bytes());
            world.command(writer, |g, now| g.set(now, own.as_bytes(), value, None).is_ok());
            world.run(Duration::from_millis(20));
        }
    }
    let buried = world.run_until(Duration::from_secs(40), Duration::from_millis(100), |w| {
        w.up().all(|h| {
            let own = if h < half { half } else { w.hosts.len() - half };
            w.gossip(h).is_some_and(|g| g.living() == own)
        })
    });
    let buried = buried.map(|_| world.now.since(cut).as_secs_f64());
    if buried.is_none() {
        world.checker.fail("the sides did not bury each other in 40 s".into());
    }
    world.run(Duration::from_secs(60).saturating_sub(world.now.since(cut)));
    world.network.heal();
    let healed = world.now;
    let before: Vec<u64> = world.hosts.iter().map(|h| h.payload_bytes + h.stream_bytes).collect();
    let views = world.run_until(Duration::from_secs(60), Duration::from_millis(50), World::views_full);
    let roots = world.run_until(Duration::from_secs(60), Duration::from_millis(50), World::roots_equal);
    let roots_s = roots.map(|_| world.now.since(healed).as_secs_f64());
    let busiest =
        world.hosts.iter().zip(&before).map(|(h, b)| h.payload_bytes + h.stream_bytes - b).max().unwrap_or(0);
    if views.is_none() || roots.is_none() {
        world.checker.fail(format!("not healed: views {views:?}, roots {roots:?}"));
    }
    for side in 0..2 {
        for key in 0..50 {
            let name = format!("side{side}/{key}");
            let missing = world
                .up()
                .filter(|&h| world.gossip(h).is_none_or(|g| g.get(world.clock(h), name.as_bytes()).is_none()))
                .count();
            if missing > 0 {
                world.checker.fail(format!("{name} is missing at {missing} members"));
            }
        }
    }
    world.run(Duration::from_secs(10));
    if !world.views_full() {
        world.checker.fail("views did not stay full after the heal".into());
    }
    let figures = HealFigures {
        buried_s: buried,
        views_s: views.map(|v| v.as_secs_f64()),
        roots_s,
        busiest_bytes: busiest,
        busiest_second: world.hosts.iter().map(|h| h.busiest_second).max().unwrap_or(0),
    };
    Outcome::of("partition-heal", settings, world, figures)
}

/// Figures of [`replay`].
#[derive(Clone, Debug, Serialize)]
pub struct ReplayFigures {
    /// Hash of the first run's trace.
    pub trace: String,
    /// Steps traced.
    pub steps: u64,
}

/// A run with every fault, twice: the traces must be byte-identical.
pub fn replay(settings: &Settings) -> Outcome<ReplayFigures> {
    let run = || {
        let mut world = settings.world();
        world.record_trace();
        world.network.loss = Loss::Independent(settings.loss.max(0.05));
        world.network.duplicate = settings.duplicate.max(0.05);
        world.network.reorder = settings.reorder.max(0.05);
        settings.joined(&mut world, Duration::from_secs(2));
        let mut rng = hearsay_proto::rng::Rng::from_number(settings.seed ^ 0x4e);
        for key in 0..20 {
            let writer = rng.below(settings.members);
            let value: Arc<[u8]> = Arc::from(&[key as u8; 32][..]);
            world.command(writer, |g, now| g.set(now, format!("k{key}").as_bytes(), value, None).is_ok());
            world.run(Duration::from_millis(50));
        }
        let half = settings.members / 2;
        world.network.partition(|h| u32::from(h >= half));
        world.run(Duration::from_secs(15));
        world.network.heal();
        let victim = rng.below(settings.members);
        world.pause(victim);
        world.run(Duration::from_secs(3));
        world.resume(victim);
        let victim = rng.below(settings.members);
        world.crash(victim);
        world.run(Duration::from_secs(15));
        world.start(victim, &[(victim + 1) % settings.members]);
        world.run(Duration::from_secs(10));
        world
    };
    let first = run();
    let mut second = run();
    if first.trace() != second.trace() {
        second.checker.fail(format!("traces differ: {} and {}", first.trace(), second.trace()));
    }
    let figures = ReplayFigures { trace: first.trace(), steps: first.steps };
    Outcome::of("replay", settings, second, figures)
}
