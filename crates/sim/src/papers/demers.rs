//! Tables 1 to 3 of Demers et al. 1987 (n = 1000), by the loss of interest that `gossip.rumor` uses.

use hearsay_proto::config::Loss;
use hearsay_proto::rng::Rng;
use hearsay_proto::rumors::demers::{Direction, Epidemic, Figures, Rule};

use super::{Effort, cell, mean_and_error, of};
use crate::acceptance::Cell;

const SITES: usize = 1_000;

/// One row: k, what the paper prints (s, m, t_ave, t_last), and the values of its exact conventions (algorithms.md 8; t_last and
/// k = 1 of table 2 from 2.2) with the unit of their last printed digit.
struct Row {
    k: u8,
    paper: [f64; 4],
    exact: [(f64, f64); 3],
}

fn row(k: u8, paper: [f64; 4], exact: [(f64, f64); 3]) -> Row {
    Row { k, paper, exact }
}

/// k = 1 of table 2 is one walker until it meets a site that knows: t_last is the birthday problem's expectation.
fn walker() -> f64 {
    let (mut walks_on, mut exact) = (1.0, 0.0);
    for known in 1..SITES {
        walks_on *= 1.0 - (known - 1) as f64 / (SITES - 1) as f64;
        exact += walks_on;
    }
    exact
}

/// Residue of blind rumors with a coin of 1/k, s = e^(-k(1-s)): the notes have no value for k = 4, and the printed 0.021 is a
/// sample's.
fn blind(k: f64) -> f64 {
    (0..100).fold(0.0, |s: f64, _| (-k * (1.0 - s)).exp())
}

fn rows(table: u8) -> Vec<Row> {
    match table {
        1 => vec![
            row(1, [0.18, 1.7, 11.0, 16.8], [(0.1746, 1e-4), (1.746, 1e-3), (16.7, 0.1)]),
            row(2, [0.037, 3.3, 12.1, 16.9], [(0.0366, 1e-4), (3.30, 0.01), (17.1, 0.1)]),
            row(3, [0.011, 4.5, 12.5, 17.4], [(0.0106, 1e-4), (4.53, 0.01), (17.4, 0.1)]),
            row(4, [0.0036, 5.6, 12.7, 17.5], [(0.0036, 1e-4), (5.64, 0.01), (17.6, 0.1)]),
            row(5, [0.0012, 6.7, 12.8, 17.7], [(0.0013, 1e-4), (6.68, 0.01), (17.8, 0.1)]),
        ],
        2 => vec![
            row(1, [0.96, 0.04, 19.0, 38.0], [(0.96, 0.01), (0.04, 0.01), (walker(), 0.0)]),
            row(2, [0.20, 1.6, 17.0, 33.0], [(0.204, 1e-3), (1.593, 1e-3), (33.0, 1.0)]),
            row(3, [0.060, 2.8, 15.0, 32.0], [(0.0594, 1e-4), (2.82, 0.01), (32.0, 1.0)]),
            row(
                4,
                [0.021, 3.9, 14.1, 32.0],
                [(blind(4.0), 0.0), (4.0 * (1.0 - blind(4.0)), 0.0), (32.0, 1.0)],
            ),
            row(5, [0.008, 4.9, 13.8, 32.0], [(0.0070, 1e-4), (4.94, 0.01), (32.0, 0.1)]),
        ],
        _ => vec![
            row(1, [3.1e-2, 2.7, 9.97, 17.6], [(3.16e-2, 1e-4), (2.70, 0.01), (17.4, 0.1)]),
            row(2, [5.8e-4, 4.5, 10.07, 15.4], [(5.6e-4, 1e-5), (4.49, 0.01), (15.2, 0.1)]),
            row(3, [4.0e-6, 6.1, 10.08, 14.0], [(4.0e-6, 1e-6), (6.09, 0.01), (14.0, 0.1)]),
        ],
    }
}

/// A table (1, 2 or 3): residue, traffic and t_last within 4 standard errors; t_ave is printed.
pub fn cells(table: u8, effort: &Effort) -> Vec<Cell> {
    against(table, effort, 1.0)
}

/// As [`cells`], with each expected value times this: to see that a false one is noticed.
pub(super) fn against(table: u8, effort: &Effort, factor: f64) -> Vec<Cell> {
    let (name, feedback, loss, direction) = match table {
        1 => ("push, feedback, counter", true, Loss::Counter, Direction::Push),
        2 => ("push, blind, coin", false, Loss::Coin, Direction::Push),
        _ => ("pull, feedback, counter", true, Loss::Counter, Direction::Pull),
    };
    let mut cells = Vec::new();
    for row in rows(table) {
        // The walker's end varies as much as its mean.
        let runs = if table == 2 && row.k == 1 { effort.runs * 10 } else { effort.runs };
        let mut rng = Rng::from_number(effort.seed ^ u64::from(table) << 8 ^ u64::from(row.k));
        let rule = Rule { feedback, loss, k: row.k };
        let runs: Vec<Figures> =
            (0..runs).map(|_| Epidemic::new(SITES, rule, direction).run(&mut rng)).collect();
        let of = |pick: fn(&Figures) -> f64| mean_and_error(&runs.iter().map(pick).collect::<Vec<_>>());
        let ours = [of(|f| f.residue), of(|f| f.traffic), of(|f| f64::from(f.last_delay))];
        let average = of(|f| f.mean_delay).0;
        let [s, m, t_ave, t_last] = row.paper;
        let near = |(mean, error): (f64, f64), (value, unit): (f64, f64)| {
            // A residue of 4e-6 is one site in 250 runs: where none was left the sample has no deviation.
            let least = if value < 1e-5 { (value / (runs.len() * SITES) as f64).sqrt() } else { 0.0 };
            (mean - value * factor).abs() <= 4.0 * error.max(least) + unit / 2.0
        };
        // Paper and notes differ in t_last by up to 0.2, as samples do: one of the two.
        let last = near(ours[2], row.exact[2]) || near(ours[2], (t_last, row.exact[2].1));
        let pass = near(ours[0], row.exact[0]) && near(ours[1], row.exact[1]) && last;
        cells.push(Cell {
            exposure: format!("{} runs, t_ave {average:.1}", runs.len()),
            ..cell(
                format!("demers-{table} {name} k={}: s, m, t_last", row.k),
                SITES,
                format!("{s} {m} {t_last} ({t_ave})"),
                format!("{:.2e} {:.2} {:.1}", ours[0].0, ours[1].0, ours[2].0),
                pass,
            )
        });
    }
    of(cells, "", effort.seed)
}
