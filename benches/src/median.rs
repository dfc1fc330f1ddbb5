//! Computes medians. One slow run does not move a median.

/// Returns the median, which is the mean of the two middle values if their number is even. `None` without values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<_> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    // Means of small whole numbers are exact.
    #![allow(clippy::float_cmp)]

    use super::*;

    #[test]
    fn medians_do_not_move_with_one_outlier() {
        assert_eq!(median([3.0, 900.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median([1.0, 2.0, 4.0, 900.0]), Some(3.0));
        assert_eq!(median([]), None);
    }
}
