//! Scales an axis on which 0.1 % and 90 % are both visible: linear near 0, logarithmic further out.

/// The scale is almost linear up to this value.
const LINEAR: f64 = 0.1;

/// Returns the position of a value, in decades from 0.
pub(super) fn place(value: f64) -> f64 {
    (value.abs() / LINEAR).ln_1p() / std::f64::consts::LN_10 * value.signum()
}

/// Returns the numbers on the axis for values from `low` to `high`: 0 and powers of ten, up to the first one beyond
/// each end.
pub(super) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let side = |most: f64| {
        let mut ticks = Vec::new();
        let mut tick = LINEAR;
        if most > 0.0 {
            while tick < most {
                ticks.push(tick);
                tick *= 10.0;
            }
            ticks.push(tick);
        }
        ticks
    };
    let below = side(-low).into_iter().rev().map(|tick| -tick);
    below.chain([0.0]).chain(side(high)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_values_are_apart_and_their_signs_are_kept() {
        assert!(place(0.0).abs() < 1e-9);
        assert!((place(0.9) - 1.0).abs() < 1e-9);
        assert!((place(-9.9) + 2.0).abs() < 1e-9);
        assert!(place(90.0) > place(9.0) + 0.9);
    }

    #[test]
    fn ticks_reach_beyond_what_there_is() {
        let near = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            let pairs = found.iter().zip(expected);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        };
        near(ticks(-90.0, 0.05), &[-100.0, -10.0, -1.0, -0.1, 0.0, 0.1]);
        near(ticks(0.0, 1.0), &[0.0, 0.1, 1.0]);
        near(ticks(0.0, 0.0), &[0.0]);
    }
}
