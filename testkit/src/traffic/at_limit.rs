//! Whether a transfer is at its limit.

use std::time::Instant;

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

/// What a measurement came to.
#[derive(Debug)]
pub struct Measured {
    /// What came in each second or so, or nothing where that cannot be told.
    pub came: Vec<Interval>,
    /// All that the limit has let through since it was armed, by its own counters.
    pub passed: Interval,
}

impl Interval {
    /// What the limit that was armed right after that moment has let through until now. (The bytes are read first.)
    #[must_use]
    pub fn since(armed: Instant, bytes: f64) -> Self {
        Self { bytes, seconds: armed.elapsed().as_secs_f64() }
    }
}

/// What passes beside the burst while the bucket is full: the reserve, in seconds.
const RESERVE: f64 = 0.025;
/// And one packet that begins before it is, and one by the reserve: as large as GSO makes them, in bytes.
const LARGEST: f64 = 65_536.0;

/// Fails where a limit with the usual burst has let more through than it may in that time. What else the machine does
/// makes that less, never more.
///
/// # Panics
/// Then.
#[track_caller]
pub fn assert_held(passed: Interval, limit: f64) {
    let most = (1.005 * passed.seconds + BURST + RESERVE) * limit + 2.0 * LARGEST;
    assert!(passed.bytes <= most, "{limit:.0} bytes a second: {passed:.2?}, not {most:.0} bytes");
}

/// How often a busy machine may be in the way of a measurement.
pub const TRIES: usize = 12;

/// Measures until what came is at a limit, and fails where it never is, or where the limit has once let through more than
/// it may. (How near it comes where the machine has time, docs/benchmarks has.)
///
/// # Panics
/// When it is not, however often it is measured, and each time when too much has passed.
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
