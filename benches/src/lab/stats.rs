//! Computes medians, quantiles and deviations.

use serde::{Deserialize, Serialize};

use super::expect::Expected;
use crate::median::median;

/// The median of several runs and their range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lowest value.
    pub min: f64,
    /// The highest value.
    pub max: f64,
}

impl Spread {
    /// Summarizes these values. `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<_> = values.into_iter().collect();
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        let median = median(values)?;
        Some(Self { median, min, max })
    }
}

/// Returns the smallest value that at least this part (0 to 1) of the values does not exceed. `None` without values.
pub fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The rank is between 0 and the number of values, which is small.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// How far short windows differ from the expected rate, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// The average difference, regardless of the sign.
    pub mean: f64,
    /// 19 of 20 windows differ by no more than this.
    pub p95: f64,
}

/// Returns the deviation of windows with these rates. `None` without windows.
pub fn deviation(windows: &[f64], expected: Expected) -> Option<Deviation> {
    let off: Vec<f64> = windows.iter().map(|rate| expected.off_percent(*rate).abs()).collect();
    let p95 = quantile(&off, 0.95)?;
    Some(Deviation { mean: off.iter().sum::<f64>() / off.len() as f64, p95 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_several_runs_does_not_count() {
        let spread = Spread::of([3.0, -90.0, 1.0]).unwrap();
        assert_eq!(spread, Spread { median: 1.0, min: -90.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(50.0));
        assert_eq!(quantile(&values, 0.99), Some(99.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn too_much_and_too_little_do_not_cancel_out() {
        let expected = Expected { least: 100.0, most: 100.0 };
        let found = deviation(&[50.0, 150.0, 100.0, 100.0], expected).unwrap();
        assert_eq!(found, Deviation { mean: 25.0, p95: 50.0 });
        assert_eq!(deviation(&[], expected), None);
    }
}
