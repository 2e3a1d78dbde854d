//! What each rule of the detector buys: the same run with it and without it (`combined-protocol.md`, section 5.5).

use std::time::Duration;

use hearsay_proto::Config;
use hearsay_proto::config::DetectorRule;
use serde::Serialize;

use crate::acceptance::measure::{self, Blow};
use crate::network::Loss;
use crate::world::{Stall, World};

/// One rule, switched off.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The rule.
    pub without: &'static str,
    /// What was measured, smaller is better.
    pub what: String,
    /// With the rule.
    pub with_it: f64,
    /// Without.
    pub without_it: f64,
    /// Times, member-hours.
    pub exposure: String,
    /// First seed.
    pub seed: u64,
}

fn configs(without: impl Fn(&mut Config)) -> [Config; 2] {
    let mut lacking = Config::lan();
    without(&mut lacking);
    [Config::lan(), lacking]
}

fn lacking(rule: DetectorRule) -> [Config; 2] {
    configs(|c| c.detector.without = Some(rule))
}

fn row(
    without: &'static str,
    what: String,
    exposure: String,
    seed: u64,
    configs: [Config; 2],
    run: impl Fn(Config) -> f64,
) -> Row {
    let [with_it, without_it] = configs.map(run);
    Row { without, what, with_it, without_it, exposure, seed }
}

/// How much is measured, and at which sizes.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Member-hours of cells with rates.
    pub member_hours: f64,
    /// Blows of cells with times.
    pub blows: usize,
    /// Rounds of stalls.
    pub stall_rounds: usize,
    /// Members of most cells.
    pub members: usize,
    /// Members that join and split at once.
    pub crowd: usize,
    /// First seed.
    pub seed: u64,
}

impl Scale {
    /// As section 5.5 was measured.
    pub fn whole(seed: u64) -> Scale {
        Scale { member_hours: 200.0, blows: 100, stall_rounds: 12, members: 100, crowd: 1_000, seed }
    }

    /// Seconds of work, enough to see each effect.
    pub fn small(seed: u64) -> Scale {
        Scale { member_hours: 20.0, blows: 12, stall_rounds: 2, members: 50, crowd: 200, seed }
    }
}

/// All rules.
pub fn run(s: &Scale, progress: impl Fn(&Row)) -> Vec<Row> {
    let tell = |row: Row| {
        progress(&row);
        row
    };
    vec![
        tell(receipts(s)),
        tell(host_bursts(s, "D10 may be deaf", DetectorRule::MayBeDeaf)),
        tell(host_bursts(s, "D10 whole", DetectorRule::LastQuestions)),
        tell(partners_too(s, "D8 checkers", DetectorRule::Checkers, s.members)),
        tell(partners_too(s, "D11 sweep", DetectorRule::Sweep, s.members)),
        tell(death_rumor(s)),
        tell(deaf(s)),
        tell(partners_too(s, "D2 acknowledged first beat", DetectorRule::FirstBeat, 10)),
        tell(rounds(s)),
        tell(new_choice(s)),
        tell(reminder(s)),
    ]
}

/// `D6`: 16 of 128 members stall with their sockets open.
pub fn receipts(s: &Scale) -> Row {
    let (rounds, seed) = (s.stall_rounds, s.seed);
    row(
        "D6 receipts",
        "healthy members declared dead, 16 of 128 stall (io) for 30 s".into(),
        format!("{rounds} rounds"),
        seed,
        lacking(DetectorRule::Receipts),
        |c| measure::stalls(c, Stall::Io, 16, Duration::from_secs(30), rounds, seed).healthy_dead as f64,
    )
}

/// `D10`: hosts that hear nothing for seconds.
pub fn host_bursts(s: &Scale, name: &'static str, rule: DetectorRule) -> Row {
    let (members, hours, seed) = (s.members, s.member_hours, s.seed);
    let loss = Loss::HostBursts { share: 0.2, length: 20.0 };
    row(
        name,
        format!("false deaths, host bursts of 20, 20 %, N = {members}"),
        format!("{hours:.0} member-hours"),
        seed,
        lacking(rule),
        |c| measure::quiet(c, members, loss, hours, seed).false_deaths as f64,
    )
}

fn blow(
    s: &Scale,
    name: &'static str,
    what: &str,
    members: usize,
    configs: [Config; 2],
    blow: Blow,
    loss: f64,
) -> Row {
    let (count, seed) = (s.blows, s.seed);
    row(
        name,
        format!("{what}, last member, p99 s, N = {members}"),
        format!("{count} times"),
        seed,
        configs,
        |c| {
            let series = measure::series(c, false, blow, members, loss, count, seed);
            if series.unfinished > 0 { f64::INFINITY } else { series.last_member.p99 }
        },
    )
}

/// `D8`, `D11`, `D2`: who watches the dead is dead too.
pub fn partners_too(s: &Scale, name: &'static str, rule: DetectorRule, members: usize) -> Row {
    blow(s, name, "crash with all own partners", members, lacking(rule), Blow::CrashWithPartners, 0.0)
}

/// `D11`: the dead claim as a rumor.
pub fn death_rumor(s: &Scale) -> Row {
    let configs = lacking(DetectorRule::DeathRumor);
    blow(s, "D11 dead claim as a rumor", "crash at 30 % loss", s.members, configs, Blow::Crash, 0.3)
}

/// `D15`.
pub fn deaf(s: &Scale) -> Row {
    blow(s, "D15 deaf flag", "deaf member", s.members, lacking(DetectorRule::DeafFlag), Blow::Deaf, 0.0)
}

/// `D5`: five rounds against four.
pub fn rounds(s: &Scale) -> Row {
    let (members, hours, seed) = (s.members, s.member_hours, s.seed);
    row(
        "D5 fifth round",
        format!("false suspicions, 30 % loss, N = {members}"),
        format!("{hours:.0} member-hours"),
        seed,
        configs(|c| c.detector.probe_rounds = 4),
        |c| measure::quiet(c, members, Loss::Independent(0.3), hours, seed).false_suspicions as f64,
    )
}

/// `D1`: who joined first does not stay everybody's partner.
pub fn new_choice(s: &Scale) -> Row {
    let (members, seed) = (s.crowd, s.seed);
    row(
        "D1 new choice",
        format!("bytes the seed sends in a join of {members} within 2 s and 60 s after"),
        "1 join".into(),
        seed,
        lacking(DetectorRule::NewChoice),
        |c| {
            let mut world = World::new(seed, members, c);
            for host in 0..members {
                world.start(host, if host == 0 { &[] } else { &[0] });
                world.run(Duration::from_secs(2) / members as u32);
            }
            world.run(Duration::from_secs(60));
            world.hosts.first().map_or(0.0, |h| (h.payload_bytes + h.stream_bytes) as f64)
        },
    )
}

/// `D9`: the claim of one accuser goes round twice. Who missed it the first time would begin its patience with the death.
pub fn reminder(s: &Scale) -> Row {
    let (members, seed) = (s.crowd, s.seed);
    row(
        "D9 reminder",
        format!("halves of {members} bury each other, slowest s"),
        "3 splits".into(),
        seed,
        lacking(DetectorRule::Reminder),
        |c| {
            let bury = |seed| {
                let mut world = measure::bed_of(members, 0, seed, c.clone(), false);
                let half = members / 2;
                world.network.partition(|h| u32::from(h >= half));
                let alone = |w: &World| w.up().all(|h| w.gossip(h).is_some_and(|g| g.living() == half));
                let took = world.run_until(Duration::from_secs(60), Duration::from_millis(100), alone);
                took.map_or(f64::INFINITY, |t| t.as_secs_f64())
            };
            (seed..seed + 3).map(bury).fold(0.0, f64::max)
        },
    )
}

/// The table as text.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:<28} {:>12} {:>12}  {:<70} {}\n", "rule", "with", "without", "what", "exposure");
    for r in rows {
        text += &format!(
            "{:<28} {:>12.2} {:>12.2}  {:<70} {}, seed {}\n",
            r.without, r.with_it, r.without_it, r.what, r.exposure, r.seed
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the rule the figure is at least `times` as bad.
    fn buys(row: &Row, times: f64) {
        assert!(row.without_it >= row.with_it * times && row.without_it > 0.0, "{row:?}");
    }

    #[test]
    fn the_fifth_round_buys_few_false_suspicions() {
        buys(&rounds(&Scale::small(1)), 3.0);
    }

    #[test]
    fn the_deaf_flag_gets_the_deaf_buried() {
        // The p99 of few blows is their maximum, and moves by 1.5 s with any change of the draws.
        buys(&deaf(&Scale { blows: 48, ..Scale::small(1) }), 1.15);
    }

    #[test]
    fn a_new_choice_unburdens_who_joined_first() {
        buys(&new_choice(&Scale::small(1)), 1.15);
    }
}
