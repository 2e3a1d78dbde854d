//! The experiment of the phi paper (Hayashibara, Defago, Yared, Katayama, "The phi accrual failure detector", JAIST
//! IS-RR-2004-010, section V) on a synthetic trace.
//!
//! The trace is drawn from the statistics the paper prints: one heartbeat each 103.5 ms for seven days, the histogram of
//! arrival intervals (figure 6), the lengths of the loss bursts (figure 5), round trips of 283.3 ms in the mean. The
//! detector is `hearsay_proto::phi` with a window of 1,000. The paper's own curves leave every normal tail above phi 8, so
//! only values up to 8 are compared, with what exact tails give on such a trace.

use std::time::Duration;

use hearsay_proto::phi::{ArrivalWindow, Model, phi, z};
use hearsay_proto::rng::Rng;
use serde::Serialize;

use crate::network::normal;

/// Heartbeats received in the paper's week.
pub const RECEIVED: usize = 5_822_521;
/// Samples of the window in all of the paper's experiments.
pub const WINDOW: usize = 1_000;
/// Half of the mean round trip: from a heartbeat's departure to its arrival, s.
const TRANSIT_S: f64 = 0.1417;
const PERIOD_MS: f64 = 103.5;

/// Thresholds with detection time (s) and mistakes per second that exact tails give on the paper's statistics, and what
/// the paper's figures 8 and 9 show.
pub const EXPECTED: [Expected; 6] = [
    Expected { threshold: 0.5, detection_s: 0.251, mistakes: None, paper: (0.251, 0.2375) },
    Expected { threshold: 1.0, detection_s: 0.260, mistakes: Some(0.053), paper: (0.259, 0.0872) },
    Expected { threshold: 2.0, detection_s: 0.272, mistakes: Some(0.033), paper: (0.269, 0.0501) },
    Expected { threshold: 4.0, detection_s: 0.288, mistakes: Some(0.023), paper: (0.284, 0.0330) },
    Expected { threshold: 6.0, detection_s: 0.300, mistakes: Some(0.020), paper: (0.295, 0.0263) },
    Expected { threshold: 8.0, detection_s: 0.310, mistakes: Some(0.018), paper: (0.305, 0.0221) },
];

/// One row of [`EXPECTED`].
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Phi at which a suspicion starts.
    pub threshold: f64,
    /// Detection time with exact tails, s.
    pub detection_s: f64,
    /// Mistakes per second with exact tails, where known.
    pub mistakes: Option<f64>,
    /// Detection time and mistakes per second as the paper plots them.
    pub paper: (f64, f64),
}

/// One row as measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// Phi at which a suspicion starts.
    pub threshold: f64,
    /// Transit time + mean timeout (paper eq. 5), s.
    pub detection_s: f64,
    /// Suspicions of the living process per second.
    pub mistakes_per_second: f64,
}

/// A trace's own statistics, and the rows.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Mean arrival interval, ms (paper: 103.9).
    pub mean_ms: f64,
    /// Its standard deviation, ms (paper: 104.1).
    pub std_dev_ms: f64,
    /// Share of heartbeats lost (paper: .004).
    pub lost: f64,
    /// Mean over all windows of their deviation, ms (from the paper's curves: 10.5).
    pub window_std_dev_ms: f64,
    /// One row per threshold of [`EXPECTED`].
    pub rows: Vec<Row>,
}

/// Lengths of loss bursts and how many there were: figure 6 for single losses, figure 5 for 2 to 26 lost in a row.
const BURSTS: [(u32, u32); 20] = [
    (1, 7_290),
    (2, 462),
    (3, 109),
    (4, 62),
    (5, 28),
    (6, 39),
    (7, 22),
    (8, 8),
    (9, 4),
    (11, 1),
    (12, 1),
    (14, 2),
    (15, 4),
    (16, 5),
    (17, 11),
    (18, 2),
    (23, 1),
    (25, 4),
    (26, 1),
    (495, 1),
];
/// The other four of the five longest.
const LONGEST: [u32; 4] = [503, 621, 819, 1_093];
/// 43 more bursts lie between 34 and 495; their sum makes up the paper's total loss.
const LONG_COUNT: u32 = 43;
const LOST: u32 = 5_845_712 - RECEIVED as u32;

/// Arrival intervals of 1 ms bins on either side of the main one, at distance 1, 2, ... ms (figure 6).
const SIDE_BINS: [u32; 21] = [
    70_000, 14_000, 8_000, 3_800, 1_450, 700, 400, 300, 275, 275, 275, 275, 275, 275, 275, 275, 275, 275,
    275, 275, 275,
];

/// The lengths of all bursts of the week.
fn bursts() -> Vec<u32> {
    let mut lengths: Vec<u32> =
        BURSTS.iter().flat_map(|&(length, count)| std::iter::repeat_n(length, count as usize)).collect();
    lengths.extend(LONGEST);
    let rest = f64::from(LOST - lengths.iter().sum::<u32>());
    // An even spread around their mean, from 34 upwards.
    let mean = rest / f64::from(LONG_COUNT);
    for i in 0..LONG_COUNT {
        let at = (f64::from(i) + 0.5) / f64::from(LONG_COUNT);
        lengths.push((34.0 + (mean - 34.0) * 2.0 * at).round() as u32);
    }
    lengths
}

/// The week's arrival intervals in ms, in an order that the seed decides.
pub fn trace(seed: u64) -> Vec<f64> {
    let mut rng = Rng::from_number(seed);
    let mut intervals: Vec<f64> = Vec::with_capacity(RECEIVED);
    for (distance, &count) in (1..).zip(&SIDE_BINS) {
        for _ in 0..count {
            intervals.push(103.0 + f64::from(distance) + rng.unit());
            intervals.push(103.0 - f64::from(distance) + rng.unit());
        }
    }
    while intervals.len() < RECEIVED {
        intervals.push((PERIOD_MS + 0.19 * normal(&mut rng)).clamp(103.0, 104.0));
    }
    for i in (1..intervals.len()).rev() {
        let j = rng.below(i + 1);
        intervals.swap(i, j);
    }
    for length in bursts() {
        let at = rng.below(intervals.len());
        intervals[at] += PERIOD_MS * f64::from(length);
    }
    intervals
}

/// Runs the detector over a trace.
pub fn run(intervals: &[f64]) -> Figures {
    let mut window = ArrivalWindow::new(WINDOW);
    let mut mistakes = [0u64; EXPECTED.len()];
    let (mut means, mut deviations, mut seconds, mut windows) = (0.0, 0.0, 0.0, 0u64);
    let (mut sum, mut squares) = (0.0, 0.0);
    let lowest = z(EXPECTED[0].threshold) * 0.99;
    for &interval in intervals {
        sum += interval;
        squares += interval * interval;
        if window.len() == WINDOW {
            let (mean, deviation) = (window.mean_ms(), window.std_dev_ms());
            means += mean;
            deviations += deviation;
            seconds += interval / 1e3;
            windows += 1;
            if interval > mean + lowest * deviation {
                let level = phi(Model::Normal, interval, mean, deviation);
                for (count, expected) in mistakes.iter_mut().zip(&EXPECTED) {
                    *count += u64::from(level > expected.threshold);
                }
            }
        }
        window.push(Duration::from_secs_f64(interval / 1e3));
    }
    let (n, windows) = (intervals.len() as f64, windows as f64);
    let mean_ms = sum / n;
    let lost = (sum / PERIOD_MS - n).max(0.0);
    Figures {
        mean_ms,
        std_dev_ms: (squares / n - mean_ms * mean_ms).max(0.0).sqrt(),
        lost: lost / (n + lost),
        window_std_dev_ms: deviations / windows,
        rows: EXPECTED
            .iter()
            .zip(mistakes)
            .map(|(expected, count)| Row {
                threshold: expected.threshold,
                detection_s: TRANSIT_S + (means + z(expected.threshold) * deviations) / windows / 1e3,
                mistakes_per_second: count as f64 / seconds,
            })
            .collect(),
    }
}

impl Figures {
    /// Rows off the expected value by more than 5 % in detection time or 20 % in mistakes.
    pub fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        for (row, expected) in self.rows.iter().zip(&EXPECTED) {
            let off = row.detection_s / expected.detection_s - 1.0;
            if off.abs() > 0.05 {
                misses.push(format!("phi {}: detection time off by {:+.1} %", row.threshold, off * 100.0));
            }
            let Some(mistakes) = expected.mistakes else { continue };
            let off = row.mistakes_per_second / mistakes - 1.0;
            if off.abs() > 0.20 {
                misses.push(format!("phi {}: mistakes off by {:+.1} %", row.threshold, off * 100.0));
            }
        }
        misses
    }

    /// The table, ours beside exact tails and the paper.
    pub fn table(&self) -> String {
        let mut text = format!(
            "trace: interval {:.1} ms, deviation {:.1} ms, lost {:.2} %, mean deviation of a window {:.2} ms\n\
             (paper: 103.9, 104.1, 0.40, 10.5)\n\
             phi   T_D s: ours  exact  paper   mistakes/s: ours  exact   paper\n",
            self.mean_ms,
            self.std_dev_ms,
            self.lost * 100.0,
            self.window_std_dev_ms
        );
        for (row, expected) in self.rows.iter().zip(&EXPECTED) {
            let exact = expected.mistakes.map_or("-".to_owned(), |m| format!("{m:.3}"));
            text += &format!(
                "{:<4} {:>12.3} {:>6.3} {:>6.3} {:>18.4} {:>6} {:>7.4}\n",
                row.threshold,
                row.detection_s,
                expected.detection_s,
                expected.paper.0,
                row.mistakes_per_second,
                exact,
                expected.paper.1
            );
        }
        text
    }
}

/// Mean and variance, in ms and ms^2, of a window of 64 after `samples` random intervals, and of one that got the last 64 alone.
pub fn drift(seed: u64, samples: u64) -> ((f64, f64), (f64, f64)) {
    let mut rng = Rng::from_number(seed);
    let (mut seen, mut fresh) = (ArrivalWindow::new(64), ArrivalWindow::new(64));
    for at in 0..samples {
        let interval = Duration::from_micros(u64::from(rng.u32()));
        seen.push(interval);
        if at + 64 >= samples {
            fresh.push(interval);
        }
    }
    ((seen.mean_ms(), seen.variance_ms2()), (fresh.mean_ms(), fresh.variance_ms2()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_is_reproduced() {
        let figures = run(&trace(1));
        assert!((figures.mean_ms - 103.9).abs() < 0.1, "{figures:?}");
        assert!((figures.std_dev_ms - 104.1).abs() < 10.0, "{figures:?}");
        assert!((figures.lost - 0.004).abs() < 0.0002, "{figures:?}");
        assert_eq!(figures.misses(), Vec::<String>::new(), "{}", figures.table());
        let mut off = figures.clone();
        off.rows[5].detection_s *= 1.06;
        off.rows[3].mistakes_per_second *= 0.7;
        assert_eq!(off.misses().len(), 2);
    }
}
