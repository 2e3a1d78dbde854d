//! The arrival window: the last n intervals, their mean and deviation.

use core::time::Duration;
use std::collections::VecDeque;

use super::{Model, phi, timeout};

/// The largest window, in samples.
pub const WINDOW_MAX: usize = 65_536;
/// The longest interval a window holds: 2^46 microseconds, 814 days. A longer one is stored as this.
/// With [`WINDOW_MAX`] it keeps every product of the variance inside 128 bits.
pub const INTERVAL_MAX: Duration = Duration::from_micros(1 << 46);

/// The last `capacity` intervals between arrivals (Hayashibara et al. 2004, section V-A; rule `D3`).
///
/// Intervals are kept in whole microseconds and their sums as integers, so a push costs O(1) and nothing drifts however
/// many samples pass through. The estimators are those of the population, as in the paper and in Pekko.
#[derive(Clone, Debug)]
pub struct ArrivalWindow {
    capacity: usize,
    samples_us: VecDeque<u64>,
    sum_us: u128,
    sum_squares_us: u128,
}

impl ArrivalWindow {
    /// An empty window of `capacity` samples, taken as 1..=[`WINDOW_MAX`]. Memory grows with the samples held.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.clamp(1, WINDOW_MAX),
            samples_us: VecDeque::new(),
            sum_us: 0,
            sum_squares_us: 0,
        }
    }

    /// A window that starts with two prior samples, `mean - spread` and `mean + spread`, so that its mean and deviation are
    /// `mean` and `spread` before anything arrived (`D3`: h(1 +- .1); Pekko: est +- est/4). They are evicted like any sample.
    #[must_use]
    pub fn with_prior(capacity: usize, mean: Duration, spread: Duration) -> Self {
        let mut window = Self::new(capacity);
        window.push(mean.saturating_sub(spread));
        window.push(mean.saturating_add(spread));
        window
    }

    /// Adds an interval, in whole microseconds and at most [`INTERVAL_MAX`]; the oldest leaves when the window is full.
    pub fn push(&mut self, interval: Duration) {
        let sample = interval.min(INTERVAL_MAX).as_micros() as u64;
        if self.samples_us.len() >= self.capacity
            && let Some(oldest) = self.samples_us.pop_front()
        {
            self.sum_us -= u128::from(oldest);
            self.sum_squares_us -= u128::from(oldest) * u128::from(oldest);
        }
        self.samples_us.push_back(sample);
        self.sum_us += u128::from(sample);
        self.sum_squares_us += u128::from(sample) * u128::from(sample);
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.samples_us.clear();
        self.sum_us = 0;
        self.sum_squares_us = 0;
    }

    /// The number of samples held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples_us.len()
    }

    /// Whether no sample is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples_us.is_empty()
    }

    /// The most samples the window holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The mean interval in milliseconds; 0 for an empty window.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        if self.samples_us.is_empty() {
            return 0.0;
        }
        self.sum_us as f64 / (self.samples_us.len() as f64 * 1e3)
    }

    /// The population variance in square milliseconds; 0 for fewer than two samples.
    #[must_use]
    pub fn variance_ms2(&self) -> f64 {
        if self.samples_us.is_empty() {
            return 0.0;
        }
        let count = self.samples_us.len() as u128;
        // n * sum(x^2) >= sum(x)^2 for integers, so this neither cancels nor goes below zero.
        let spread = (count * self.sum_squares_us).saturating_sub(self.sum_us * self.sum_us);
        spread as f64 / ((count * count) as f64 * 1e6)
    }

    /// The population standard deviation in milliseconds; 0 for fewer than two samples.
    #[must_use]
    pub fn std_dev_ms(&self) -> f64 {
        self.variance_ms2().sqrt()
    }

    /// phi after `elapsed` of silence, with a deviation of at least `min_std`; 0 for an empty window. Always finite.
    #[must_use]
    pub fn phi(&self, elapsed: Duration, model: Model, min_std: Duration) -> f64 {
        if self.samples_us.is_empty() {
            return 0.0;
        }
        phi(model, millis(elapsed), self.mean_ms(), self.std_dev_ms().max(millis(min_std)))
    }

    /// The silence after which phi reaches `threshold` (the limit of rule `D4`), with a deviation of at least `min_std`,
    /// rounded up to a microsecond; `None` for an empty window, whose phi never rises.
    #[must_use]
    pub fn timeout(&self, model: Model, min_std: Duration, threshold: f64) -> Option<Duration> {
        if self.samples_us.is_empty() {
            return None;
        }
        let limit_ms = timeout(model, self.mean_ms(), self.std_dev_ms().max(millis(min_std)), threshold);
        // A float cast saturates: no threshold is too high.
        Some(Duration::from_micros((limit_ms * 1e3).ceil() as u64))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
