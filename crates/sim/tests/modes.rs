//! Every mode and every loss of interest, on the whole protocol: what a rumor misses, anti-entropy repairs.

use std::sync::Arc;
use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::config::{Interest, Loss, Mode};
use hearsay_proto::rng::Rng;
use hearsay_sim::network::Loss as NetworkLoss;
use hearsay_sim::world::{News, World};

const MODES: [Mode; 3] = [Mode::PushPull, Mode::Push, Mode::Pull];

fn config(mode: Mode, interest: Interest) -> Config {
    let mut config = Config::lan();
    (config.gossip.mode, config.gossip.interest) = (mode, interest);
    config
}

fn variants() -> Vec<Interest> {
    let mut all = vec![Interest::Adaptive];
    for feedback in [true, false] {
        for loss in [Loss::Coin, Loss::Counter] {
            all.extend([1, 3].map(|k| Interest::Demers { feedback, loss, k }));
        }
    }
    all
}

/// Ids, payloads and feedback that rumors sent.
#[derive(Debug, Default)]
struct Sent {
    records: u64,
    ids: u64,
    hot: u64,
}

/// Twenty writes and one large one at this loss; the cluster must become equal, and quiet.
fn converges(what: &str, world: &mut World, loss: f64) -> Sent {
    let members = world.hosts.len();
    world.start_whole(members);
    world.run(Duration::from_secs(5));
    world.network.loss = NetworkLoss::Independent(loss);
    let mut rng = Rng::from_number(7);
    for key in 0..20 {
        let bytes = if key == 10 { 20_000 } else { 64 };
        let value: Arc<[u8]> = vec![key as u8; bytes].into();
        let host = rng.below(members);
        let written =
            world.command(host, |g, now| g.set(now, format!("k{key}").as_bytes(), value, None).is_ok());
        assert_eq!(written, Some(true));
        world.run(Duration::from_millis(50));
    }
    world.run(Duration::from_secs(2));
    let sent = world.up().filter_map(|h| world.gossip(h)).fold(Sent::default(), |sum, g| {
        let m = g.metrics(world.clock(0)).rumors;
        Sent { records: sum.records + m.records_sent, ids: sum.ids + m.ids_sent, hot: sum.hot }
    });
    let whole = |w: &World| {
        w.roots_equal() && w.up().all(|h| w.gossip(h).is_some_and(|g| g.len() == 20)) && w.views_full()
    };
    let equal = world.run_until(Duration::from_secs(40), Duration::from_millis(200), whole);
    assert!(equal.is_some(), "{what} at loss {loss}: not equal after 40 s; {sent:?}");
    world.network.loss = NetworkLoss::Independent(0.0);
    world.run(Duration::from_secs(15));
    let hot = world.up().filter_map(|h| world.gossip(h)).map(|g| g.metrics(world.clock(0)).gauges.rumors_hot);
    let sent = Sent { hot: hot.sum(), ..sent };
    assert!(world.checker.failures.is_empty(), "{what}: {:?}", world.checker.failures);
    sent
}

#[test]
fn each_mode_and_each_loss_of_interest_converges() {
    for mode in MODES {
        for interest in variants() {
            let what = format!("{mode:?} {interest:?}");
            for loss in [0.0, 0.2] {
                let mut world = World::new(3, 20, config(mode, interest));
                let sent = converges(&what, &mut world, loss);
                assert_eq!(sent.hot, 0, "{what}: rumors grow cold");
                match mode {
                    // 19 small records to 19 others at least; ids are those of the large one.
                    Mode::Push => assert!(sent.ids < sent.records, "{what}: {sent:?}"),
                    Mode::Pull => assert!(sent.ids > sent.records, "{what}: {sent:?}"),
                    Mode::PushPull => assert!(sent.records > 0 && sent.ids > 0, "{what}: {sent:?}"),
                }
            }
        }
    }
}

#[test]
fn members_of_different_modes_converge() {
    for (seed, loss) in [(1, 0.0), (2, 0.2)] {
        let mut world = World::new(seed, 27, Config::lan());
        let variants = variants();
        for host in 0..27 {
            world.configure(host, config(MODES[host % 3], variants[host / 3]));
        }
        assert_eq!(converges("mixed", &mut world, loss).hot, 0);
    }
}

/// With feedback useless contacts end a rumor; others than those who count it must tell, too.
#[test]
fn feedback_comes_from_members_that_do_not_count_it() {
    let feedback = Interest::Demers { feedback: true, loss: Loss::Counter, k: 1 };
    let mut world = World::new(5, 10, Config::lan());
    world.configure(0, config(Mode::Push, feedback));
    world.start_whole(10);
    world.run(Duration::from_secs(5));
    world.command(0, |g, now| g.set(now, b"k", Arc::from(&b"v"[..]), None).is_ok());
    world.run(Duration::from_secs(3));
    let hot = world.gossip(0).map(|g| g.metrics(world.clock(0)).gauges.rumors_hot);
    assert_eq!(hot, Some(0), "64 rounds would be 13 s");
    assert!(world.gossip(0).is_some_and(|g| g.metrics(world.clock(0)).rumors.records_sent < 40));
}

#[test]
fn claims_are_pushed_in_every_mode() {
    for mode in MODES {
        let mut world = World::new(4, 50, config(mode, Interest::Adaptive));
        world.start_whole(50);
        world.run(Duration::from_secs(10));
        let from = world.log.len();
        world.crash(17);
        let found = world.run_until(Duration::from_secs(12), Duration::from_millis(50), World::views_full);
        assert!(found.is_some(), "{mode:?}");
        // A suspicion is known to all within a few flushes, whatever carries records.
        let suspected: Vec<f64> = world.log[from..]
            .iter()
            .filter(|t| t.news == News::Suspected)
            .map(|t| t.at.0 as f64 / 1e6)
            .collect();
        let (first, last) = suspected.iter().fold((f64::MAX, 0f64), |(a, b), &t| (a.min(t), b.max(t)));
        assert!(
            suspected.len() >= 49 && last - first < 400.0,
            "{mode:?}: {} in {}",
            suspected.len(),
            last - first
        );
    }
}
