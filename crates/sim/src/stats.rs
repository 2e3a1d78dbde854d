//! Small samples: median, p99, extremes.

use serde::Serialize;

/// Quantiles of a sample. The p99 is the maximum below a hundred values.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Values.
    pub count: usize,
    /// Median; the lower of two middle values. NaN without values.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
}

impl Quantiles {
    /// Of these values.
    pub fn of(mut values: Vec<f64>) -> Quantiles {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let at = |share: f64| {
            let index = ((count as f64 * share).ceil() as usize).clamp(1, count.max(1)) - 1;
            values.get(index).copied().unwrap_or(f64::NAN)
        };
        Quantiles {
            count,
            median: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            mean: values.iter().sum::<f64>() / count as f64,
        }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2}", self.median, self.p99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_sample() {
        let q = Quantiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((q.median, q.p99, q.max, q.mean), (100.0, 198.0, 200.0, 100.5));
        let q = Quantiles::of(vec![3.0]);
        assert_eq!((q.median, q.p99, q.max), (3.0, 3.0, 3.0));
        assert!(Quantiles::of(Vec::new()).median.is_nan());
    }
}
