//! What `simulate()` of the TypeScript API runs: one scenario on a user's own settings; its figures as JSON.

mod failures;
mod spread;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::member::Tags;
use hearsay_proto::rng::Rng;
use serde::Serialize;

use crate::network::{Loss, Network};
use crate::stats::Quantiles;
use crate::world::World;

/// Members of one simulation at most: each holds a record of every other.
pub const MEMBERS_MAX: usize = 2_000;
/// Rest before anything is measured.
const REST: Duration = Duration::from_secs(15);
/// Idle load is measured over this.
const IDLE: Duration = Duration::from_secs(20);
/// What takes longer is not waited for.
const AT_MOST: Duration = Duration::from_secs(60);

/// What happens to the members.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scenario {
    /// Random members write one key each, one after the other.
    Rumor {
        /// Writes.
        writes: usize,
        /// Bytes of each value.
        value_bytes: usize,
    },
    /// Random members broadcast, one after the other.
    Broadcast {
        /// Broadcasts.
        broadcasts: usize,
        /// Bytes of each payload.
        payload_bytes: usize,
    },
    /// Random members ask everybody, one after the other; all respond.
    Query {
        /// Queries.
        queries: usize,
    },
    /// Random members crash and come back, one after the other.
    Crash {
        /// Crashes.
        crashes: usize,
    },
    /// All members join through one.
    Join {
        /// They start within this time, evenly.
        within: Duration,
    },
    /// The cluster is cut in two; both sides write; the cut heals.
    Partition {
        /// The cut lasts so long.
        lasts: Duration,
        /// Share of the members on the smaller side, over 0, at most 0.5.
        share: f64,
        /// Keys each side writes.
        keys: usize,
    },
}

/// One simulation.
#[derive(Clone, Debug)]
pub struct Request {
    /// Members, 2..=[`MEMBERS_MAX`].
    pub members: usize,
    /// Seed of everything.
    pub seed: u64,
    /// Share of datagrams lost, independently.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams held back by up to 50 ms.
    pub reorder: f64,
    /// Mean one-way delay of the network; its deviation is a third of it up to 1 ms, a fifth above.
    pub delay: Duration,
    /// Tags of every member.
    pub tags: Tags,
    /// Configuration of every member.
    pub config: Config,
    /// What happens.
    pub scenario: Scenario,
}

/// Figures of one simulation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<F> {
    kind: &'static str,
    members: usize,
    seed: u64,
    loss: f64,
    /// Virtual time that passed.
    simulated_ms: f64,
    /// Events simulated.
    steps: u64,
    figures: F,
    /// Violated invariants and missed ends.
    failures: Vec<String>,
}

/// Bytes and datagrams that members send when nothing happens.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    /// Per member, as sealed, frames included, IP and UDP headers not.
    bytes_per_second: f64,
    /// Per member.
    datagrams_per_second: f64,
}

/// Figures of a join.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinFigures {
    /// From the first start to full views everywhere.
    full_views_ms: Option<f64>,
    /// From the first start to equal roots everywhere.
    equal_roots_ms: Option<f64>,
    /// Sent by the member all others joined through, until then.
    seed_bytes: u64,
    /// Sent by a member, mean, until then.
    bytes_per_member: f64,
    /// Afterwards.
    idle: Load,
}

fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

/// A bench of members in virtual time.
struct Bench<'a> {
    request: &'a Request,
    world: World,
    rng: Rng,
}

impl<'a> Bench<'a> {
    /// Members that are down.
    fn new(request: &'a Request, stop: Arc<AtomicBool>) -> Bench<'a> {
        let mut world = World::new(request.seed, request.members, request.config.clone());
        world.stop = stop;
        world.tags = request.tags.clone();
        let network: &mut Network = &mut world.network;
        network.delay = request.delay;
        network.delay_deviation =
            request.delay / if request.delay <= Duration::from_millis(1) { 3 } else { 5 };
        network.loss = Loss::Independent(request.loss);
        network.duplicate = request.duplicate;
        network.reorder = request.reorder;
        Bench { request, world, rng: Rng::from_number(request.seed ^ 0x7573_6572) }
    }

    /// Members that have long been one cluster.
    fn whole(request: &'a Request, stop: Arc<AtomicBool>) -> Bench<'a> {
        let mut bench = Bench::new(request, stop);
        bench.world.start_whole(request.members);
        bench.world.run(REST);
        bench
    }

    fn sent(&self) -> (u64, u64) {
        (self.world.bytes_sent(), self.world.hosts.iter().map(|h| h.datagrams).sum())
    }

    /// What members send per second while nothing happens.
    fn idle(&mut self) -> Load {
        let from = self.sent();
        self.world.run(IDLE);
        let to = self.sent();
        let per = self.request.members as f64 * IDLE.as_secs_f64();
        Load {
            bytes_per_second: (to.0 - from.0) as f64 / per,
            datagrams_per_second: (to.1 - from.1) as f64 / per,
        }
    }

    fn join(&mut self, within: Duration) -> JoinFigures {
        let members = self.request.members;
        let world = &mut self.world;
        let gap = within / members as u32;
        for host in 0..members {
            world.start(host, if host == 0 { &[] } else { &[0] });
            world.run(gap);
        }
        let every = Duration::from_millis(10);
        let views = world.run_until(AT_MOST, every, World::views_full).map(|_| world.now);
        let roots = world.run_until(AT_MOST, every, World::roots_equal).map(|_| world.now);
        if views.is_none() || roots.is_none() {
            world.checker.fail("views or roots are not equal a minute after the last start".into());
        }
        let sent = |h: &crate::world::Host| h.payload_bytes + h.stream_bytes;
        let (seed_bytes, all) = (world.hosts.first().map_or(0, sent), world.bytes_sent());
        world.run(REST);
        let idle = self.idle();
        let since_start = |at: hearsay_proto::time::Mono| at.0 as f64 / 1e6;
        JoinFigures {
            full_views_ms: views.map(since_start),
            equal_roots_ms: roots.map(since_start),
            seed_bytes,
            bytes_per_member: all as f64 / members as f64,
            idle,
        }
    }

    fn report(self, kind: &'static str, figures: impl Serialize) -> Option<String> {
        let Bench { request, world, .. } = self;
        if world.is_stopped() {
            return None;
        }
        let report = Report {
            kind,
            members: request.members,
            seed: request.seed,
            loss: request.loss,
            simulated_ms: world.now.0 as f64 / 1e6,
            steps: world.steps,
            figures,
            failures: world.checker.failures,
        };
        serde_json::to_string(&report).ok()
    }
}

/// Runs a simulation to its end: the figures as JSON; none if `stop` was set meanwhile. Two runs of one request give the same
/// text.
pub fn run(request: &Request, stop: Arc<AtomicBool>) -> Option<String> {
    match request.scenario {
        Scenario::Rumor { writes, value_bytes } => {
            let mut bench = Bench::whole(request, stop);
            let figures = bench.rumor(writes, value_bytes);
            bench.report("rumor", figures)
        }
        Scenario::Broadcast { broadcasts, payload_bytes } => {
            let mut bench = Bench::whole(request, stop);
            let figures = bench.broadcast(broadcasts, payload_bytes);
            bench.report("broadcast", figures)
        }
        Scenario::Query { queries } => {
            let mut bench = Bench::whole(request, stop);
            let figures = bench.query(queries);
            bench.report("query", figures)
        }
        Scenario::Crash { crashes } => {
            let mut bench = Bench::whole(request, stop);
            let figures = bench.crash(crashes);
            bench.report("crash", figures)
        }
        Scenario::Join { within } => {
            let mut bench = Bench::new(request, stop);
            let figures = bench.join(within);
            bench.report("join", figures)
        }
        Scenario::Partition { lasts, share, keys } => {
            let mut bench = Bench::whole(request, stop);
            let figures = bench.partition(lasts, share, keys);
            bench.report("partition", figures)
        }
    }
}

/// Quantiles of times in ms, named as users see them; null without values.
#[derive(Clone, Copy, Debug, Serialize)]
struct Times {
    count: usize,
    median: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
}

impl Times {
    fn of(values: Vec<f64>) -> Times {
        let q = Quantiles::of(values);
        let known = |x: f64| x.is_finite().then_some((x * 1e3).round() / 1e3);
        Times {
            count: q.count,
            median: known(q.median),
            p99: known(q.p99),
            max: known(q.max),
            mean: known(q.mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn request(scenario: Scenario) -> Request {
        Request {
            members: 20,
            seed: 1,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            delay: Duration::from_micros(300),
            tags: Tags::new(),
            config: Config::lan(),
            scenario,
        }
    }

    fn all() -> [Scenario; 6] {
        [
            Scenario::Rumor { writes: 3, value_bytes: 64 },
            Scenario::Broadcast { broadcasts: 3, payload_bytes: 64 },
            Scenario::Query { queries: 3 },
            Scenario::Crash { crashes: 2 },
            Scenario::Join { within: Duration::from_secs(1) },
            Scenario::Partition { lasts: Duration::from_secs(20), share: 0.3, keys: 10 },
        ]
    }

    fn figures(request: &Request) -> serde_json::Value {
        serde_json::from_str(&run(request, Arc::default()).unwrap()).unwrap()
    }

    #[test]
    fn every_scenario_ends_well_and_repeats_itself() {
        for scenario in all() {
            let first = figures(&request(scenario));
            assert_eq!(first["failures"], serde_json::json!([]), "{scenario:?}: {first}");
            assert_eq!(first, figures(&request(scenario)), "{scenario:?}");
            let mut other = request(scenario);
            other.seed = 2;
            assert_ne!(first["steps"], figures(&other)["steps"], "{scenario:?}");
        }
    }

    #[test]
    fn the_users_settings_are_those_that_run() {
        let crash = |patience_s: u64| {
            let mut request = request(Scenario::Crash { crashes: 3 });
            request.config.detector.patience = Duration::from_secs(patience_s);
            figures(&request)["figures"]["lastDeathMs"]["median"].as_f64().unwrap()
        };
        let (short, long) = (crash(2), crash(8));
        assert!((5_000.0..7_000.0).contains(&(long - short)), "{short} {long}");
        let mut wide = request(Scenario::Rumor { writes: 5, value_bytes: 64 });
        let near = figures(&wide)["figures"]["allMs"]["median"].as_f64().unwrap();
        wide.delay = Duration::from_millis(40);
        let far = figures(&wide)["figures"]["allMs"]["median"].as_f64().unwrap();
        assert!(far > near + 40.0, "{near} {far}");
        let bytes = |tags: Tags| {
            let mut request = request(Scenario::Join { within: Duration::from_secs(1) });
            request.tags = tags;
            figures(&request)["figures"]["seedBytes"].as_f64().unwrap()
        };
        let tags = Tags::from([("text".to_owned(), "x".repeat(200))]);
        assert!(bytes(tags) > 1.5 * bytes(Tags::new()));
    }

    #[test]
    fn a_stop_ends_it_soon_and_without_figures() {
        for scenario in all() {
            let mut big = request(scenario);
            big.members = 500;
            let stop = Arc::new(AtomicBool::new(false));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(run(&big, stop), None);
        }
    }
}
