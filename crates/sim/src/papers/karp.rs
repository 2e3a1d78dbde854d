//! The median-counter algorithm of Karp, Schindelhauer, Shenker and Vöcking (FOCS 2000), push-pull with one call per site and
//! round: log3 n + O(ln ln n) rounds, O(n ln ln n) transmissions, and every site stops by itself.

use hearsay_proto::rng::Rng;

use super::{Effort, cell, mean_and_error, of};
use crate::acceptance::Cell;

/// Rounds beyond log3 n, as a multiple of ln ln n, that the push-pull rows of algorithms.md 2.4 have (1.40 to 1.50).
const BEYOND: f64 = 1.45;

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Does not know.
    A,
    /// Knows, with its counter.
    B(u32),
    /// Knows, and stops after so many rounds.
    C(u32),
    /// Knows and is silent.
    D,
}

struct Run {
    /// Until all knew; none if some never did.
    rounds: Option<u32>,
    /// Until all were silent.
    silent: u32,
    sent: u64,
}

fn run(sites: usize, counter_max: u32, rng: &mut Rng) -> Run {
    let mut states = vec![State::A; sites];
    states[0] = State::B(1);
    let (mut rounds, mut all, mut sent) = (0, None, 0u64);
    // Of a site's calls of this round: those that count for its counter, those against, and what it hears.
    let mut votes = vec![(0i32, false, false); sites];
    while states.iter().any(|s| matches!(s, State::B(_) | State::C(_))) {
        rounds += 1;
        votes.fill((0, false, false));
        for site in 0..sites {
            let peer = (site + 1 + rng.below(sites - 1)) % sites;
            for (one, other) in [(site, peer), (peer, site)] {
                let (mine, theirs) = (states[one], states[other]);
                sent += u64::from(matches!(theirs, State::B(_) | State::C(_)));
                let vote = &mut votes[one];
                match (mine, theirs) {
                    (State::B(m), State::B(other)) => vote.0 += if other >= m { 1 } else { -1 },
                    (State::B(_), State::C(_) | State::D) => vote.0 += 1,
                    (State::B(_), _) => vote.0 -= 1,
                    (State::A, State::B(_)) => vote.1 = true,
                    (State::A, State::C(_)) => vote.2 = true,
                    _ => {}
                }
            }
        }
        for (state, (more, from_b, from_c)) in states.iter_mut().zip(&votes) {
            *state = match *state {
                State::A if *from_b => State::B(1),
                State::A if *from_c => State::C(counter_max),
                State::B(m) if *more > 0 && m >= counter_max => State::C(counter_max),
                State::B(m) if *more > 0 => State::B(m + 1),
                State::C(0..=1) => State::D,
                State::C(left) => State::C(left - 1),
                same => same,
            };
        }
        if all.is_none() && !states.contains(&State::A) {
            all = Some(rounds);
        }
    }
    Run { rounds: all, silent: rounds, sent }
}

/// Rounds within 10 % of log3 n + 1.45 ln ln n, every site reached, and transmissions that grow as n ln ln n: within 25 % of one
/// multiple of it.
pub fn cells(effort: &Effort) -> Vec<Cell> {
    let mut rows = Vec::new();
    for n in effort.sizes() {
        let runs = (effort.runs * 1_000 / n).clamp(3, 200);
        let mut rng = Rng::from_number(effort.seed ^ n as u64);
        let loglog = (n as f64).ln().ln();
        let counter_max = loglog.ceil() as u32;
        let done: Vec<Run> = (0..runs).map(|_| run(n, counter_max, &mut rng)).collect();
        let missed = done.iter().filter(|r| r.rounds.is_none()).count();
        let rounds: Vec<f64> = done.iter().filter_map(|r| r.rounds.map(f64::from)).collect();
        let sent: Vec<f64> = done.iter().map(|r| r.sent as f64 / n as f64).collect();
        let silent: Vec<f64> = done.iter().map(|r| f64::from(r.silent)).collect();
        let mean = |v: &[f64]| mean_and_error(v).0;
        rows.push((n, runs, loglog, missed, mean(&rounds), mean(&sent), mean(&silent)));
    }
    let ratios: Vec<f64> = rows.iter().map(|r| r.5 / r.2).collect();
    let middle = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let mut cells = Vec::new();
    for (n, runs, loglog, missed, rounds, sent, silent) in rows {
        let log3 = (n as f64).ln() / 3f64.ln();
        let expected = log3 + BEYOND * loglog;
        let exposure = format!("{runs} runs, silent after {silent:.1}");
        cells.push(Cell {
            exposure: exposure.clone(),
            ..cell(
                "karp rounds until all know; runs that missed a site".into(),
                n,
                format!("log3 n {log3:.1}, {expected:.1} +- 10 %; 0"),
                format!("{rounds:.2}; {missed}"),
                (rounds / expected - 1.0).abs() <= 0.1 && missed == 0,
            )
        });
        cells.push(Cell {
            exposure,
            ..cell(
                "karp transmissions per site / ln ln n".into(),
                n,
                format!("{middle:.2} +- 25 %, n ln ln n"),
                format!("{:.2} ({sent:.1} / {loglog:.2})", sent / loglog),
                (sent / loglog / middle - 1.0).abs() <= 0.25,
            )
        });
    }
    of(cells, "", effort.seed)
}
