//! The phi accrual failure detector: numbers in, a suspicion level out. Knows no member and no clock.
//!
//! phi(t) = -log10 P(the next heartbeat comes later than t after the last one), so a threshold of 8 is wrong once in 10^8
//! if the model holds (Hayashibara, Defago, Yared, Katayama: "The phi accrual failure detector", JAIST IS-RR-2004-010).
//! Three models of that probability stand side by side, see [`Model`]. All are computed in log space: phi is finite for
//! every finite input, never NaN, and rises with t.

mod accrual;
mod tail;
mod window;

#[cfg(test)]
mod tests;

use core::f64::consts::{LN_10, LOG10_E};

pub use accrual::{PhiAccrualDetector, PhiError, PhiOptions};
pub use tail::{logistic_tail, logistic_z, normal_tail, z};
pub use window::{ArrivalWindow, INTERVAL_MAX, WINDOW_MAX};

/// How the time between arrivals is thought to be distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// A normal distribution with its exact tail: the paper's own model (eq. 3-4).
    #[default]
    Normal,
    /// An exponential distribution, phi = t / (mean ln 10): Cassandra's model. It looks at the mean only.
    Exponential,
    /// The logistic approximation of Akka and Pekko, for those who tuned their threshold against it.
    /// Near the mean it is the normal tail to 1.4e-4 of probability; far out it is much steeper.
    Pekko,
}

/// The least mean and deviation phi divides by, in the unit of the caller: a window without spread is taken to have this
/// much. In milliseconds it is the resolution of [`ArrivalWindow`].
const RESOLUTION: f64 = 1e-3;

/// phi after `elapsed` of silence for arrivals with this mean and deviation, all in one unit (milliseconds in this crate).
///
/// Clamped rather than refused: a negative or NaN `elapsed` counts as 0, a mean or deviation that is not above 0.001 as
/// 0.001. The value is never NaN, never infinite and never below 0.
#[must_use]
pub fn phi(model: Model, elapsed: f64, mean: f64, std_dev: f64) -> f64 {
    let elapsed = elapsed.clamp(0.0, f64::MAX);
    let elapsed = if elapsed.is_nan() { 0.0 } else { elapsed };
    match model {
        Model::Exponential => (elapsed * LOG10_E / mean.max(RESOLUTION)).min(f64::MAX),
        Model::Normal => normal_tail((elapsed - mean) / std_dev.max(RESOLUTION)),
        Model::Pekko => logistic_tail((elapsed - mean) / std_dev.max(RESOLUTION)),
    }
}

/// The silence at which [`phi`] reaches `threshold`: mean + z(threshold) deviations for the normal model (`D4`), the
/// root of the logistic formula for Pekko's, mean x threshold x ln 10 for the exponential. Never negative, never NaN; a
/// threshold of 0 or below is reached at 0. Units and clamps as [`phi`].
#[must_use]
pub fn timeout(model: Model, mean: f64, std_dev: f64, threshold: f64) -> f64 {
    let limit = match model {
        Model::Exponential => mean.max(RESOLUTION) * threshold * LN_10,
        Model::Normal => mean + z(threshold) * std_dev.max(RESOLUTION),
        Model::Pekko => mean + logistic_z(threshold) * std_dev.max(RESOLUTION),
    };
    if limit > 0.0 { limit.min(f64::MAX) } else { 0.0 }
}
