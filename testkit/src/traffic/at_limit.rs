//! Checks whether a transfer runs at its limit.

use std::time::Instant;

use serde_json::Value;

/// The bytes received in about a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The number of bytes.
    pub bytes: f64,
    /// The length in seconds. It varies, because a busy machine is late.
    pub seconds: f64,
}

impl Interval {
    /// Returns the bytes per second.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.bytes / self.seconds
    }
}

/// The default burst of a limit, in seconds.
const BURST: f64 = 0.25;

/// Tells whether the intervals match a limit (bytes per second) with the default burst. In all, they may have their
/// time at the rate plus the burst. The slowest interval is at most 3 % above the limit, and the fastest at least 90 %
/// of it.
///
/// A machine that pauses for half a second slows one interval down. The next one then exceeds the limit by at most the
/// burst, which is no error of the limit.
#[must_use]
pub fn is_at_limit(came: &[Interval], limit: f64) -> bool {
    let sum = |of: fn(&Interval) -> f64| came.iter().map(of).sum::<f64>();
    let most = (1.02 * sum(|it| it.seconds) + BURST) * limit;
    let rates = || came.iter().map(|it| it.rate() / limit);
    let slowest = rates().fold(f64::INFINITY, f64::min);
    let fastest = rates().fold(0.0, f64::max);
    sum(|it| it.bytes) <= most && slowest <= 1.03 && fastest >= 0.9
}

/// The result of a measurement.
#[derive(Debug)]
pub struct Measured {
    /// The intervals of about a second, or none if they are unknown.
    pub came: Vec<Interval>,
    /// Everything that the limit has passed since it was armed, by its own counters.
    pub passed: Interval,
}

impl Interval {
    /// Creates the interval from `armed` until now. Arm the limit right after `armed`, and read `bytes` before this
    /// call.
    #[must_use]
    pub fn since(armed: Instant, bytes: f64) -> Self {
        Self { bytes, seconds: armed.elapsed().as_secs_f64() }
    }
}

/// The reserve, in seconds. It passes in addition to the burst while the bucket is full.
const RESERVE: f64 = 0.025;
/// The largest packet that GSO makes, in bytes. One may start before the bucket is full, and one may use the reserve.
const LARGEST: f64 = 65_536.0;

/// Checks that a limit with the default burst has not passed too much. Other load on the machine only reduces what
/// passes.
///
/// # Panics
/// Panics if the limit has passed too much.
#[track_caller]
pub fn assert_held(passed: Interval, limit: f64) {
    let most = (1.005 * passed.seconds + BURST + RESERVE) * limit + 2.0 * LARGEST;
    assert!(passed.bytes <= most, "{limit:.0} bytes a second: {passed:.2?}, not {most:.0} bytes");
}

/// How many measurements other load on the machine may disturb.
pub const TRIES: usize = 12;

/// Repeats a measurement until it runs at its limit. `docs/benchmarks` says how close a limit comes on an idle machine.
///
/// # Panics
/// Panics if no measurement runs at the limit, or if the limit passes too much in any of them.
#[track_caller]
pub fn assert_at_limit(limit: f64, mut measure: impl FnMut() -> Measured) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let measured = measure();
        assert_held(measured.passed, limit);
        if is_at_limit(&measured.came, limit) {
            return;
        }
        seen.push(measured);
    }
    panic!("{limit:.0} bytes a second: {seen:.2?}");
}

/// A shorter interval is the rest after the last whole one. Its rate means nothing.
const SHORTEST: f64 = 0.5;

/// Returns the receiver's intervals from the output of `iperf3 --json`. If the server receives, it needs `--json` and
/// the client `--get-server-output`. It skips the seconds of `--omit` and the interval after them, because iperf3
/// resets its counters within that interval.
///
/// # Panics
/// Panics if the output has no such intervals.
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
        // Too slow, too fast, too much in all, and nothing.
        assert!(!holds(&[890.0, 890.0]) && !holds(&[1_040.0, 1_040.0]));
        assert!(!holds(&[1_300.0, 1_020.0]) && !holds(&[]));
    }

    fn second(bytes: f64) -> Measured {
        let one = Interval { bytes, seconds: 1.0 };
        Measured { came: vec![one], passed: one }
    }

    #[test]
    fn it_is_measured_again_and_not_for_ever() {
        let mut rates = [1.2e6, 0.7e6, 1e6].into_iter();
        assert_at_limit(1e6, || second(rates.next().unwrap()));
        let mut count = 0;
        let measure = || {
            count += 1;
            second(1.05e6)
        };
        let wrong = std::panic::AssertUnwindSafe(|| assert_at_limit(1e6, measure));
        assert!(std::panic::catch_unwind(wrong).is_err());
        assert_eq!(count, TRIES);
    }

    #[test]
    fn what_let_too_much_through_once_is_not_measured_again() {
        let mut count = 0;
        let measure = || {
            count += 1;
            second(if count == 3 { 1.5e6 } else { 0.5e6 })
        };
        let wrong = std::panic::AssertUnwindSafe(|| assert_at_limit(1e6, measure));
        assert!(std::panic::catch_unwind(wrong).is_err());
        assert_eq!(count, 3);
    }

    #[test]
    fn no_more_than_the_rate_the_burst_the_reserve_and_two_packets_may_pass() {
        let holds = |bytes, seconds| {
            std::panic::catch_unwind(|| assert_held(Interval { bytes, seconds }, 1e6)).is_ok()
        };
        assert!(holds(0.275e6 + 131_072.0, 0.0) && !holds(0.276e6 + 131_072.0, 0.0));
        assert!(holds(10.45e6, 10.0) && !holds(10.46e6, 10.0));
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
