//! The detector as a tool of its own: heartbeats in, phi out.

use core::fmt;
use core::time::Duration;

use super::{ArrivalWindow, Model, WINDOW_MAX, phi, timeout};

/// Options of a [`PhiAccrualDetector`]. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct PhiOptions {
    /// The model of the arrivals. Default: [`Model::Normal`].
    pub model: Model,
    /// The phi from which on the watched is not available. Default 8; above 0.
    pub threshold: f64,
    /// Samples kept. Default 1000; 1..=[`WINDOW_MAX`].
    pub window_size: usize,
    /// The least deviation phi reckons with; `mean` and `std_dev` do not show it. Default 100; 0 or above.
    pub min_std_dev_ms: f64,
    /// Silence that is accepted on top of the mean (Pekko's `acceptable-heartbeat-pause`). Default 0; 0 or above.
    pub acceptable_pause_ms: f64,
    /// What the interval is thought to be before any was seen; with it, phi rises from the first heartbeat on. It enters the
    /// window at that heartbeat: as est - est/4 and est + est/4 (as in Pekko), for the exponential model as one sample (as in
    /// Cassandra). Default `None`: phi is 0 before two heartbeats; for [`Model::Pekko`] `None` means 1000.
    pub first_heartbeat_estimate_ms: Option<f64>,
}

impl Default for PhiOptions {
    fn default() -> Self {
        Self {
            model: Model::Normal,
            threshold: 8.0,
            window_size: 1000,
            min_std_dev_ms: 100.0,
            acceptable_pause_ms: 0.0,
            first_heartbeat_estimate_ms: None,
        }
    }
}

/// What a [`PhiAccrualDetector`] refuses. The caller must act; the detector is unchanged.
#[derive(Clone, Debug, PartialEq)]
pub enum PhiError {
    /// An option is out of its range.
    Option {
        /// The option's name.
        name: &'static str,
        /// What it was.
        value: f64,
        /// What it must be.
        must_be: &'static str,
    },
    /// A time is NaN or infinite.
    TimeNotFinite {
        /// The time given.
        now_ms: f64,
    },
    /// A time lies before the last heartbeat.
    TimeBackwards {
        /// The time given.
        now_ms: f64,
        /// The time of the last heartbeat.
        last_ms: f64,
    },
}

impl fmt::Display for PhiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option { name, value, must_be } => write!(f, "{name} is {value}; it must be {must_be}"),
            Self::TimeNotFinite { now_ms } => {
                write!(f, "the time {now_ms} is not a finite number of milliseconds")
            }
            Self::TimeBackwards { now_ms, last_ms } => {
                write!(
                    f,
                    "the time {now_ms} ms lies before the last heartbeat at {last_ms} ms; use a monotonic clock"
                )
            }
        }
    }
}

impl core::error::Error for PhiError {}

/// A phi accrual failure detector for one watched thing. The caller brings the time, in milliseconds of any monotonic
/// clock, and every interval it gives is a sample.
///
/// With [`Model::Pekko`] it behaves as Pekko's `PhiAccrualFailureDetector`: two prior samples, the logistic formula, and
/// the interval that ends an outage (phi at or above the threshold) moves the last arrival but is no sample.
#[derive(Clone, Debug)]
pub struct PhiAccrualDetector {
    options: PhiOptions,
    window: ArrivalWindow,
    last_ms: Option<f64>,
}

impl PhiAccrualDetector {
    /// A detector that has heard nothing. Errors: [`PhiError::Option`].
    pub fn new(options: PhiOptions) -> Result<Self, PhiError> {
        let refuse = |name, value, must_be| Err(PhiError::Option { name, value, must_be });
        let at_least_0 = |value: f64| value.is_finite() && value >= 0.0;
        if !(options.threshold.is_finite() && options.threshold > 0.0) {
            return refuse("threshold", options.threshold, "a finite number above 0");
        }
        if options.window_size == 0 || options.window_size > WINDOW_MAX {
            return refuse("window_size", options.window_size as f64, "1 to 65536");
        }
        if !at_least_0(options.min_std_dev_ms) {
            return refuse("min_std_dev_ms", options.min_std_dev_ms, "a finite number, 0 or above");
        }
        if !at_least_0(options.acceptable_pause_ms) {
            return refuse("acceptable_pause_ms", options.acceptable_pause_ms, "a finite number, 0 or above");
        }
        if let Some(estimate_ms) = options.first_heartbeat_estimate_ms
            && !(estimate_ms.is_finite() && estimate_ms > 0.0)
        {
            return refuse("first_heartbeat_estimate_ms", estimate_ms, "a finite number above 0");
        }
        Ok(Self { window: ArrivalWindow::new(options.window_size), last_ms: None, options })
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &PhiOptions {
        &self.options
    }

    /// Records a heartbeat at `now_ms`. Errors: [`PhiError::TimeNotFinite`], [`PhiError::TimeBackwards`].
    pub fn heartbeat(&mut self, now_ms: f64) -> Result<(), PhiError> {
        match self.silence_ms(now_ms)? {
            None => self.push_prior(),
            Some(silence_ms) => {
                let outage = self.options.model == Model::Pekko
                    && self.phi_after(silence_ms) >= self.options.threshold;
                if !outage {
                    self.window.push(duration(silence_ms));
                }
            }
        }
        self.last_ms = Some(now_ms);
        Ok(())
    }

    /// phi at `now_ms`: 0 while the window is empty, that is before two heartbeats, or before one if there is an estimate of
    /// the first. Errors as [`Self::heartbeat`].
    pub fn phi(&self, now_ms: f64) -> Result<f64, PhiError> {
        Ok(self.silence_ms(now_ms)?.map_or(0.0, |silence_ms| self.phi_after(silence_ms)))
    }

    /// Whether phi at `now_ms` is below the threshold. Errors as [`Self::heartbeat`].
    pub fn is_available(&self, now_ms: f64) -> Result<bool, PhiError> {
        Ok(self.phi(now_ms)? < self.options.threshold)
    }

    /// The silence in milliseconds after which [`Self::is_available`] turns false; `None` while phi stays 0.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<f64> {
        if self.window.is_empty() {
            return None;
        }
        let (mean_ms, std_dev_ms) = self.fit();
        Some(timeout(self.options.model, mean_ms, std_dev_ms, self.options.threshold))
    }

    /// The mean of the window in milliseconds, as it is; 0 while it is empty.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.window.mean_ms()
    }

    /// The population standard deviation of the window in milliseconds, as it is, without the floor.
    #[must_use]
    pub fn std_dev(&self) -> f64 {
        self.window.std_dev_ms()
    }

    /// The number of intervals in the window, prior samples included.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.window.len()
    }

    fn fit(&self) -> (f64, f64) {
        (
            self.window.mean_ms() + self.options.acceptable_pause_ms,
            self.window.std_dev_ms().max(self.options.min_std_dev_ms),
        )
    }

    fn phi_after(&self, silence_ms: f64) -> f64 {
        if self.window.is_empty() {
            return 0.0;
        }
        let (mean_ms, std_dev_ms) = self.fit();
        phi(self.options.model, silence_ms, mean_ms, std_dev_ms)
    }

    fn silence_ms(&self, now_ms: f64) -> Result<Option<f64>, PhiError> {
        if !now_ms.is_finite() {
            return Err(PhiError::TimeNotFinite { now_ms });
        }
        match self.last_ms {
            Some(last_ms) if now_ms < last_ms => Err(PhiError::TimeBackwards { now_ms, last_ms }),
            last_ms => Ok(last_ms.map(|last_ms| now_ms - last_ms)),
        }
    }

    fn push_prior(&mut self) {
        let pekko_default_ms = (self.options.model == Model::Pekko).then_some(1000.0);
        let Some(estimate_ms) = self.options.first_heartbeat_estimate_ms.or(pekko_default_ms) else {
            return;
        };
        if self.options.model == Model::Exponential {
            self.window.push(duration(estimate_ms));
        } else {
            self.window.push(duration(estimate_ms * 0.75));
            self.window.push(duration(estimate_ms * 1.25));
        }
    }
}

/// Whole microseconds, rounded; the float cast saturates.
fn duration(interval_ms: f64) -> Duration {
    Duration::from_micros((interval_ms * 1e3).round() as u64)
}
