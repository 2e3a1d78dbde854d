//! Serf's convergence formula (memberlist-serf.md, section 4): share(r) = 1 / (1 + (n + 1) e^(-f (1 - loss) (1 - failed) r / 2))
//! after r rounds; its published table, and the protocol's own times beside it.

use hearsay_proto::Config;

use super::{Effort, cell, of};
use crate::acceptance::Cell;
use crate::lean;
use crate::stats::Quantiles;
use crate::svg::{Curve, Plot};

/// Shares of the published table.
const SHARES: [f64; 3] = [0.5, 0.99, 0.9999];
/// Gossip interval and peers of the LAN preset.
const ROUND_S: f64 = 0.2;
const PEERS: f64 = 3.0;

/// Members informed after so many rounds, as a share.
pub fn share(members: f64, peers: f64, loss: f64, rounds: f64) -> f64 {
    1.0 / (1.0 + (members + 1.0) * (-peers * (1.0 - loss) * rounds / 2.0).exp())
}

/// Whole rounds until the formula has this share.
pub fn rounds_until(members: f64, peers: f64, loss: f64, wanted: f64) -> f64 {
    let mut rounds = 0.0;
    while share(members, peers, loss, rounds) < wanted && rounds < 10_000.0 {
        rounds += 1.0;
    }
    rounds
}

/// Published: members, loss, seconds to 50, 99 and 99.99 %.
const TABLE: [(usize, f64, [f64; 3]); 7] = [
    (30, 0.0, [0.6, 1.2, 1.8]),
    (100, 0.0, [0.8, 1.4, 2.0]),
    (1_000, 0.0, [1.0, 1.6, 2.2]),
    (10_000, 0.0, [1.4, 2.0, 2.6]),
    (100_000, 0.0, [1.6, 2.2, 2.8]),
    (100, 0.5, [1.4, 2.6, 3.8]),
    (10_000, 0.5, [2.6, 3.8, 5.0]),
];

fn seconds(values: &[f64]) -> String {
    values.iter().map(|v| format!("{v:.1}")).collect::<Vec<_>>().join(" ")
}

/// The formula gives the published table; ours is faster at each share.
pub fn cells(effort: &Effort) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (n, loss, published) in TABLE.into_iter().filter(|row| row.0 <= effort.members_max) {
        let formula = SHARES.map(|s| rounds_until(n as f64, PEERS, loss, s) * ROUND_S);
        let same = formula.iter().zip(published).all(|(a, b)| (a - b).abs() < 0.05);
        cells.push(Cell {
            exposure: "formula".into(),
            ..cell(
                format!("serf-formula s to 50, 99, 99.99 %, loss {loss}"),
                n,
                seconds(&published),
                seconds(&formula),
                same,
            )
        });
        let mut roster = lean::roster(n);
        let writes = (effort.runs * 100 / n).clamp(3, 100).min(effort.runs);
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for write in 0..writes as u64 {
            let seed = effort.seed << 20 ^ write;
            let (spread, back) = lean::spread(&Config::lan(), roster, loss, false, seed);
            roster = back;
            for (times, share) in times.iter_mut().zip(SHARES) {
                times.push(spread.reached_ms(share) / 1e3);
            }
        }
        let incomplete = times[2].iter().filter(|t| t.is_infinite()).count();
        let ours = times.map(|t| Quantiles::of(t).median);
        // At half of all datagrams lost rumors leave some members to anti-entropy, which this model has not.
        let shares = if loss > 0.2 { 1 } else { 3 };
        cells.push(Cell {
            exposure: format!("{writes} writes, {incomplete} incomplete, lean"),
            ..cell(
                format!("ours median s to 50, 99, 99.99 %, loss {loss}"),
                n,
                format!("<= {}{}", seconds(&published[..shares]), " -".repeat(3 - shares)),
                ours.map(|v| format!("{v:.3}")).join(" "),
                ours.iter().zip(published).take(shares).all(|(a, b)| *a <= b),
            )
        });
    }
    of(cells, "", effort.seed)
}

/// Share of members that know against time: ours at four sizes, serf's formula dashed.
pub fn plot(effort: &Effort) -> Plot {
    let sizes: Vec<usize> = effort.sizes().into_iter().filter(|&n| n <= 100_000).collect();
    let mut curves = Vec::new();
    for &n in &sizes {
        let (spread, _) = lean::spread(&Config::lan(), lean::roster(n), 0.0, false, effort.seed);
        let points = (0..=120).map(|step| {
            let ms = f64::from(step) * 5.0;
            let known = spread.times_ms.partition_point(|&t| t <= ms);
            (ms, known as f64 / n as f64 * 100.0)
        });
        curves.push(Curve { name: format!("hearsay, {n}"), points: points.collect(), dashed: false });
    }
    for &n in sizes.iter().filter(|&&n| n == 100 || n == 10_000) {
        let points = (0..=120).map(|step| {
            let ms = f64::from(step) * 20.0;
            (ms, share(n as f64, PEERS, 0.0, ms / 1e3 / ROUND_S) * 100.0)
        });
        curves.push(Curve { name: format!("serf's formula, {n}"), points: points.collect(), dashed: true });
    }
    Plot {
        title: "Members that have one update".into(),
        x: "milliseconds".into(),
        y: "percent".into(),
        x_ticks: (0..=8).map(|i| (f64::from(i) * 300.0, format!("{}", i * 300))).collect(),
        curves,
    }
}
