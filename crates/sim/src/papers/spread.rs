//! Rounds until all know: the tables of algorithms.md 2.4 and performance.md 4.1, and the protocol's own rumors beside them.

use hearsay_proto::Config;
use hearsay_proto::config::{Interest, Loss, Mode};
use hearsay_proto::rng::Rng;

use super::rounds::{self, Way};
use super::{Effort, cell, mean_and_error, of};
use crate::acceptance::Cell;
use crate::acceptance::load::contacts;
use crate::lean;
use crate::svg::{Curve, Plot};

/// Mean rounds for 10^2..10^6 (algorithms.md 2.4), and payloads per site where the table has them.
struct Means {
    way: Way,
    peers: usize,
    rounds: [f64; 5],
    copies: [Option<f64>; 5],
}

const fn all(copies: [f64; 5]) -> [Option<f64>; 5] {
    [Some(copies[0]), Some(copies[1]), Some(copies[2]), Some(copies[3]), Some(copies[4])]
}

const MEANS: [Means; 5] = [
    Means {
        way: Way::Push,
        peers: 1,
        rounds: [12.3, 18.1, 23.7, 29.6, 34.5],
        copies: all([5.6, 8.0, 10.3, 12.9, 14.5]),
    },
    Means {
        way: Way::Pull,
        peers: 1,
        rounds: [9.8, 13.8, 17.5, 20.9, 24.8],
        copies: [Some(1.0), None, None, None, None],
    },
    Means {
        way: Way::PushPull,
        peers: 1,
        rounds: [6.5, 9.2, 11.5, 14.0, 16.4],
        copies: all([4.5, 5.5, 6.0, 6.9, 7.4]),
    },
    Means {
        way: Way::Push,
        peers: 3,
        rounds: [5.7, 8.2, 10.6, 13.0, 15.8],
        copies: all([6.5, 9.0, 11.2, 13.6, 16.8]),
    },
    Means { way: Way::PushPull, peers: 3, rounds: [3.9, 5.1, 6.7, 8.0, 9.0], copies: [None; 5] },
];

/// Median rounds for 10^2..10^6 (performance.md 4.1), with payloads per site.
type Medians = (Way, usize, [Option<(f64, f64)>; 5]);

const fn row(cells: [(f64, f64); 5]) -> [Option<(f64, f64)>; 5] {
    [Some(cells[0]), Some(cells[1]), Some(cells[2]), Some(cells[3]), Some(cells[4])]
}

const MEDIANS: [Medians; 10] = [
    (Way::Push, 1, row([(12.0, 5.7), (18.0, 7.9), (24.0, 10.3), (29.0, 12.5), (34.0, 14.0)])),
    (Way::Push, 2, row([(7.0, 6.3), (11.0, 8.6), (14.0, 10.6), (17.0, 13.1), (20.0, 15.2)])),
    (Way::Push, 3, row([(6.0, 6.5), (8.0, 9.0), (11.0, 11.2), (13.0, 13.8), (16.0, 16.5)])),
    (Way::Push, 4, [Some((5.0, 7.5)), Some((7.0, 9.8)), Some((9.0, 12.1)), Some((11.0, 13.3)), None]),
    (Way::Pull, 1, row([(10.0, 0.99), (14.0, 1.0), (17.0, 1.0), (21.0, 1.0), (26.0, 1.0)])),
    (Way::Pull, 3, row([(5.0, 1.5), (7.0, 1.5), (9.0, 1.5), (10.0, 1.5), (12.0, 1.5)])),
    (Way::PushPull, 1, row([(7.0, 2.9), (9.0, 3.4), (12.0, 3.8), (14.0, 4.0), (16.0, 4.0)])),
    (Way::PushPull, 2, row([(5.0, 3.8), (6.0, 4.1), (8.0, 5.0), (9.0, 5.2), (11.0, 5.4)])),
    (Way::PushPull, 3, row([(4.0, 5.1), (5.0, 4.9), (7.0, 6.7), (8.0, 6.7), (9.0, 5.9)])),
    (Way::PushPull, 4, [Some((3.0, 4.9)), Some((5.0, 7.1)), Some((6.0, 7.6)), Some((7.0, 7.3)), None]),
];

/// Runs per size, as the tables have them at 1,000.
fn runs(effort: &Effort, members: usize) -> usize {
    let table = match members {
        0..=100 => 400,
        101..=1_000 => 200,
        1_001..=10_000 => 50,
        10_001..=100_000 => 10,
        _ => 5,
    };
    (table * effort.runs / 1_000).max(table.min(20)).max(5)
}

/// The synchronous model against both tables: mean rounds within 10 %, medians within 10 % or the half round that a median of
/// whole rounds leaves open; payloads within 10 % where their number varies little.
pub fn rounds_cells(effort: &Effort) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (size, n) in effort.sizes().into_iter().enumerate() {
        let runs = runs(effort, n);
        let mut done: Vec<(Way, usize, Vec<rounds::Spread>)> = Vec::new();
        let kinds = MEDIANS.iter().map(|m| (m.0, m.1));
        for (way, peers) in kinds {
            if peers == 4 && n > 100_000 {
                continue;
            }
            let mut rng = Rng::from_number(effort.seed ^ (n as u64) << 8 ^ (peers as u64) << 4 ^ way as u64);
            let spreads = (0..runs).map(|_| rounds::spread(n, way, peers, &mut rng)).collect();
            done.push((way, peers, spreads));
        }
        let of = |way: Way, peers: usize, pick: fn(&rounds::Spread) -> f64| -> Vec<f64> {
            let found = done.iter().find(|d| (d.0, d.1) == (way, peers));
            found.map(|d| d.2.iter().map(pick).collect()).unwrap_or_default()
        };
        let exposure = format!("{runs} runs");
        for means in &MEANS {
            let (mean, error) = mean_and_error(&of(means.way, means.peers, |s| s.rounds));
            let both = means.way == Way::PushPull;
            let copies = of(means.way, means.peers, if both { |s| s.both_ways } else { |s| s.copies });
            let copies = mean_and_error(&copies).0;
            let expected = means.rounds[size];
            let enough = |table: f64| (copies / table - 1.0).abs() <= 0.1;
            let paid = means.copies[size].is_none_or(|t| n > 10_000 || enough(t));
            cells.push(Cell {
                exposure: exposure.clone(),
                ..cell(
                    format!("spread {:?} f={}: mean rounds, payloads", means.way, means.peers),
                    n,
                    format!(
                        "{expected} +- 10 %{}",
                        means.copies[size].map_or(String::new(), |t| format!(", {t}"))
                    ),
                    format!("{mean:.2} +- {error:.2}, {copies:.2}"),
                    (mean / expected - 1.0).abs() <= 0.1 && paid,
                )
            });
        }
        for (way, peers, table) in &MEDIANS {
            let Some((expected, copies)) = table[size] else { continue };
            let mut values = of(*way, *peers, |s| s.rounds);
            values.sort_by(f64::total_cmp);
            let median = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
            let (mean, _) = mean_and_error(&values);
            // The table's median is a whole number: its sample's middle may lie half a round off on either side.
            let near = (median - expected).abs() <= (0.1 * expected).max(0.5)
                || (mean - expected).abs() <= (0.1 * expected).max(0.5);
            let ours = mean_and_error(&of(*way, *peers, |s| s.copies)).0;
            cells.push(Cell {
                exposure: exposure.clone(),
                ..cell(
                    format!("spread {way:?} f={peers}: median rounds (payloads)"),
                    n,
                    format!("{expected} +- 10 % ({copies})"),
                    format!("{median}, mean {mean:.2} ({ours:.2})"),
                    near,
                )
            });
        }
    }
    of(cells, "", effort.seed)
}

/// A configuration that ticks to `peers` members in this mode and does not grow cold before all know.
fn hot(mode: Mode, peers: usize) -> Config {
    let mut config = Config::lan();
    config.gossip.mode = mode;
    config.gossip.fanout = peers;
    config.gossip.flush_peers = peers;
    config.gossip.interest = Interest::Demers { feedback: false, loss: Loss::Counter, k: 60 };
    config
}

/// The protocol's rumors, one write at a time: ticks until all know are at most 1.1 times the rounds of the table at equal
/// fan-out. [`lean`]: the same rumor code without a membership table for each member.
pub fn protocol_cells(effort: &Effort) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (size, n) in effort.sizes().into_iter().enumerate() {
        let runs = (effort.runs * 100 / n).clamp(2, 50).max(40_000 / n);
        // What the default's rounds leave to anti-entropy, which this model has not: within 4 standard errors.
        let left = runs as f64 * n as f64 * (-contacts(n)).exp();
        let left = left + 4.0 * left.sqrt();
        let mut roster = lean::roster(n);
        let kinds = [
            ("default", None, 3, Way::PushPull),
            ("push-pull", Some(Mode::PushPull), 1, Way::PushPull),
            ("push-pull", Some(Mode::PushPull), 2, Way::PushPull),
            ("push-pull", Some(Mode::PushPull), 4, Way::PushPull),
            ("push", Some(Mode::Push), 1, Way::Push),
            ("push", Some(Mode::Push), 3, Way::Push),
            ("pull", Some(Mode::Pull), 1, Way::Pull),
            ("pull", Some(Mode::Pull), 3, Way::Pull),
        ];
        for (name, mode, peers, way) in kinds {
            // The largest table is for the default alone.
            if n > 100_000 && mode.is_some() || n == 100_000 && peers == 1 {
                continue;
            }
            let Some((table, _)) =
                MEDIANS.iter().find(|m| (m.0, m.1) == (way, peers)).and_then(|m| m.2[size])
            else {
                continue;
            };
            let table =
                MEANS.iter().find(|m| (m.way, m.peers) == (way, peers)).map_or(table, |m| m.rounds[size]);
            let config = mode.map_or(Config::lan(), |mode| hot(mode, peers));
            let tick_ms = config.gossip.interval.as_secs_f64() * 1e3;
            let (mut ticks, mut copies, mut missed) = (Vec::new(), Vec::new(), 0);
            for run in 0..runs as u64 {
                let (spread, back) = lean::spread(&config, roster, 0.0, false, effort.seed << 16 ^ run);
                roster = back;
                copies.push(spread.copies);
                let all = spread.all_ms();
                if all.is_finite() {
                    ticks.push(all / tick_ms);
                } else {
                    missed += 1;
                }
            }
            let (mean, _) = mean_and_error(&ticks);
            let (copies, _) = mean_and_error(&copies);
            let missed_max = if mode.is_none() { left as usize } else { 0 };
            cells.push(Cell {
                exposure: format!("{runs} writes, lean model"),
                ..cell(
                    format!("ours {name} f={peers}: ticks to all (payloads)"),
                    n,
                    format!("<= 1.1 x {table}, {missed_max}"),
                    format!("{mean:.2} ({copies:.2}), {missed} incomplete"),
                    mean <= table * 1.1 && missed <= missed_max,
                )
            });
        }
    }
    of(cells, "", effort.seed)
}

/// Rounds against log N: the model's and ours.
pub fn plot(effort: &Effort) -> Plot {
    let sizes: Vec<usize> = effort.sizes().into_iter().filter(|&n| n <= 100_000).collect();
    let mut curves = Vec::new();
    for (name, way, peers) in [
        ("push, 1 peer", Way::Push, 1),
        ("push, 3 peers", Way::Push, 3),
        ("pull, 1 peer", Way::Pull, 1),
        ("push-pull, 1 peer", Way::PushPull, 1),
        ("push-pull, 3 peers", Way::PushPull, 3),
    ] {
        let mut rng = Rng::from_number(effort.seed);
        let points = sizes.iter().map(|&n| {
            let runs = runs(effort, n).min(50);
            let rounds: Vec<f64> =
                (0..runs).map(|_| rounds::spread(n, way, peers, &mut rng).rounds).collect();
            ((n as f64).log10(), mean_and_error(&rounds).0)
        });
        curves.push(Curve { name: name.into(), points: points.collect(), dashed: true });
    }
    let ours = sizes.iter().map(|&n| {
        let (mut roster, mut ticks) = (lean::roster(n), Vec::new());
        for run in 0..(10_000 / n).clamp(2, 20) as u64 {
            let (spread, back) = lean::spread(&Config::lan(), roster, 0.0, false, effort.seed << 16 ^ run);
            roster = back;
            ticks.push(spread.all_ms() / 200.0);
        }
        ((n as f64).log10(), mean_and_error(&ticks).0)
    });
    curves.push(Curve { name: "hearsay, ticks of 200 ms".into(), points: ours.collect(), dashed: false });
    Plot {
        title: "Rounds until all members know".into(),
        x: "members (powers of ten)".into(),
        y: "rounds".into(),
        x_ticks: sizes
            .iter()
            .map(|&n| ((n as f64).log10(), format!("10^{}", (n as f64).log10().round())))
            .collect(),
        curves,
    }
}
