//! Whether a transfer is at its limit.

use serde_json::Value;

/// What came in about a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Bytes.
    pub bytes: f64,
    /// How long it was: a machine that is busy with other things is late.
    pub seconds: f64,
}

impl Interval {
    /// Bytes a second.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.bytes / self.seconds
    }
}

/// The burst of a limit for which none is wished, in seconds.
const BURST: f64 = 0.25;

/// Whether what came is what a limit with the usual burst lets through (bytes per second): all together no more than that
/// much time and the burst, in the slowest interval at most 3 % above the limit, and in the fastest one at least 90 % of
/// it. A machine that did something else for half of a second made one interval slower, and the next one faster by at
/// most the burst: that is no error of the limit's.
#[must_use]
pub fn is_at_limit(came: &[Interval], limit: f64) -> bool {
    let sum = |of: fn(&Interval) -> f64| came.iter().map(of).sum::<f64>();
    let most = (1.02 * sum(|it| it.seconds) + BURST) * limit;
    let rates = || came.iter().map(|it| it.rate() / limit);
    let slowest = rates().fold(f64::INFINITY, f64::min);
    let fastest = rates().fold(0.0, f64::max);
    sum(|it| it.bytes) <= most && slowest <= 1.03 && fastest >= 0.9
}

/// How often a busy machine may be in the way of a measurement. A limit that is wrong is wrong every time.
pub const TRIES: usize = 12;

/// Measures until what came is at a limit, and fails where it never is. (How near it comes where the machine has time,
/// docs/benchmarks has.)
///
/// # Panics
/// When it is not, however often it is measured.
#[track_caller]
pub fn assert_at_limit(limit: f64, mut measure: impl FnMut() -> Vec<Interval>) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let came = measure();
        if is_at_limit(&came, limit) {
            return;
        }
        seen.push(came);
    }
    panic!("{limit:.0} bytes a second: {seen:.2?}");
}

/// A shorter interval is the rest after the last whole one: its rate means nothing.
const SHORTEST: f64 = 0.5;

/// What came in each second, as the side says that received: the client of `iperf3 --json`, or its server, where that
/// runs with `--json` too and the client with `--get-server-output`. Without what `--omit` leaves out, and without the
/// interval after that, in whose middle iperf3 begins to count anew.
///
/// # Panics
/// When that is not to be found there.
#[must_use]
pub fn iperf3_intervals(said: &Value) -> Vec<Interval> {
    let is_reverse = said["start"]["test_start"]["reverse"] == 1;
    let receiver = if is_reverse { said } else { &said["server_output_json"] };
    let intervals = receiver["intervals"].as_array().expect("intervals").iter();
    let number = |of: &Value| of.as_f64().expect("a number");
    intervals
        .map(|it| &it["sum"])
        .filter(|sum| sum["omitted"] == false)
        .skip(1)
        .map(|sum| Interval { bytes: number(&sum["bytes"]), seconds: number(&sum["seconds"]) })
        .filter(|it| it.seconds > SHORTEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_no_error_of_a_limits_and_a_wrong_rate_is_one() {
        let holds = |rates: &[f64]| {
            let second = |bytes: &f64| Interval { bytes: *bytes, seconds: 1.0 };
            let came: Vec<_> = rates.iter().map(second).collect();
            is_at_limit(&came, 1_000.0)
        };
        assert!(holds(&[200.0, 910.0]) && holds(&[1_240.0, 1_030.0]));
        // Too slow, too fast, too much in all, nothing.
        assert!(!holds(&[890.0, 890.0]) && !holds(&[1_040.0, 1_040.0]));
        assert!(!holds(&[1_300.0, 1_020.0]) && !holds(&[]));
    }

    #[test]
    fn it_is_measured_again_and_not_for_ever() {
        let mut rates = [1_200.0, 700.0, 1_000.0].into_iter();
        let second = |bytes| vec![Interval { bytes, seconds: 1.0 }];
        assert_at_limit(1_000.0, || second(rates.next().unwrap()));
        let mut count = 0;
        let measure = || {
            count += 1;
            second(1_050.0)
        };
        let wrong = std::panic::AssertUnwindSafe(|| assert_at_limit(1_000.0, measure));
        assert!(std::panic::catch_unwind(wrong).is_err());
        assert_eq!(count, TRIES);
    }

    #[test]
    fn of_iperf3_those_intervals_count_that_the_receiver_has_whole() {
        let interval = |bytes, seconds: f64, omitted| serde_json::json!({ "sum": { "bytes": bytes, "seconds": seconds, "omitted": omitted } });
        let intervals = [
            interval(9, 1.0, true),
            interval(8, 1.0, false),
            interval(7, 1.1, false),
            interval(6, 0.1, false),
        ];
        let one = [Interval { bytes: 7.0, seconds: 1.1 }];
        let start = |reverse| serde_json::json!({ "test_start": { "reverse": reverse } });
        let download = serde_json::json!({ "start": start(1), "intervals": intervals });
        assert_eq!(iperf3_intervals(&download), one);
        let server = serde_json::json!({ "intervals": intervals });
        let upload = serde_json::json!({
            "start": start(0), "intervals": [], "server_output_json": server
        });
        assert_eq!(iperf3_intervals(&upload), one);
    }
}
