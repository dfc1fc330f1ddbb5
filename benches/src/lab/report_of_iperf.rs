//! Parses the report (`-J`) of one end of an iperf3 test.
//!
//! Each end has its own figures: the receiver knows what arrived, and the sender what was sent again. Only intervals
//! after the omitted seconds count. It ignores iperf3's own sums, because their time span is unclear.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::expect::SEGMENT;

/// A shorter interval is the rest after the last whole one. Its rate means nothing.
const SHORTEST_SECONDS: f64 = 0.05;

/// The part of a test that counts, in seconds after the omitted ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Intervals count if they begin at this time or later.
    pub from: f64,
    /// Intervals count if they begin before this time.
    pub until: f64,
}

impl Counted {
    /// Returns a span of this many seconds from the beginning.
    pub fn all(seconds: u32) -> Self {
        Self { from: 0.0, until: f64::from(seconds) }
    }
}

/// What one end measured after the omitted seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct End {
    /// The payload in bytes.
    pub bytes: u64,
    /// The time in seconds.
    pub seconds: f64,
    /// The rate in each interval, in bytes per second.
    pub windows: Vec<f64>,
    /// The number of segments sent again. Only a TCP sender knows it.
    pub retransmits: Option<u64>,
    /// Segments sent again in the whole test, in percent of all its segments. This includes the omitted seconds and the
    /// end.
    pub resent_percent: Option<f64>,
    /// The number of expected datagrams and of lost ones. Only a UDP receiver knows them.
    pub datagrams: Option<(u64, u64)>,
    /// The sender's congestion control, as this end reports it.
    pub congestion: Option<String>,
}

impl End {
    /// Returns the rate in bytes per second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// Returns the segments sent again, in percent of those sent.
    pub fn retransmitted_percent(&self) -> Option<f64> {
        Some(percent_of_segments(self.retransmits?, self.bytes))
    }

    /// Returns the lost datagrams, in percent.
    pub fn lost_percent(&self) -> Option<f64> {
        let (expected, lost) = self.datagrams?;
        Some(lost as f64 / (expected.max(1)) as f64 * 100.0)
    }
}

fn percent_of_segments(again: u64, bytes: u64) -> f64 {
    again as f64 / (bytes as f64 / SEGMENT).max(1.0) * 100.0
}

/// Returns the segments sent again in all intervals, in percent. Those at the start of a connection count as well.
fn resent_percent(intervals: &[Interval]) -> Option<f64> {
    let bytes = intervals.iter().map(|it| it.sum.bytes).sum();
    let again = intervals.iter().filter_map(|it| it.sum.retransmits).reduce(|a, b| a + b)?;
    Some(percent_of_segments(again, bytes))
}

#[derive(Debug, Deserialize)]
struct Report {
    error: Option<String>,
    #[serde(default)]
    intervals: Vec<Interval>,
    #[serde(default)]
    end: Sums,
}

#[derive(Debug, Default, Deserialize)]
struct Sums {
    sender_tcp_congestion: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Interval {
    sum: Sum,
}

#[derive(Debug, Deserialize)]
struct Sum {
    seconds: f64,
    bytes: u64,
    omitted: bool,
    retransmits: Option<u64>,
    packets: Option<u64>,
    lost_packets: Option<i64>,
}

/// Parses one end's report and keeps the part that counts. The last bytes of a test also pass the limit. The far end
/// keeps reporting until they arrive, with nothing to count.
///
/// # Errors
/// Fails if the text is no report, reports an error, or has nothing after the omitted seconds.
pub fn parse(text: &str, counted: Counted) -> Result<End> {
    let report: Report = serde_json::from_str(text)
        .with_context(|| format!("this is no report of iperf3's: {:?}", excerpt(text)))?;
    if let Some(error) = report.error {
        bail!("iperf3: {error}");
    }
    let mut end = End {
        congestion: report.end.sender_tcp_congestion,
        resent_percent: resent_percent(&report.intervals),
        ..End::default()
    };
    let intervals = report.intervals.into_iter().filter(|it| !it.sum.omitted);
    let mut elapsed = 0.0;
    for (at, Interval { sum }) in intervals.enumerate() {
        let begins = elapsed;
        if begins + SHORTEST_SECONDS > counted.until {
            break;
        }
        elapsed += sum.seconds;
        if begins + SHORTEST_SECONDS < counted.from {
            continue;
        }
        // iperf3 resets its counters at the end of the omitted seconds, within an interval. So the first interval may
        // have its whole time but only some of its bytes.
        if at == 0 {
            continue;
        }
        end.bytes += sum.bytes;
        end.seconds += sum.seconds;
        if sum.seconds >= SHORTEST_SECONDS {
            end.windows.push(sum.bytes as f64 / sum.seconds);
        }
        if let Some(retransmits) = sum.retransmits {
            *end.retransmits.get_or_insert(0) += retransmits;
        }
        if let (Some(packets), Some(lost)) = (sum.packets, sum.lost_packets) {
            let (expected, missing) = end.datagrams.get_or_insert((0, 0));
            *expected += packets;
            // iperf3 counted late datagrams as lost before, and corrects that here.
            *missing = missing.saturating_add_signed(lost);
        }
    }
    if end.windows.is_empty() {
        bail!("iperf3 reports nothing after the omitted seconds");
    }
    Ok(end)
}

/// Returns the beginning of the text, for messages.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, seconds: u32) -> Result<End> {
        super::parse(text, Counted::all(seconds))
    }

    const SENDER: &str = r#"{"start": {"version": "iperf 3.12"}, "intervals": [
        {"streams": [], "sum": {"start": 0, "end": 0.1, "seconds": 0.1, "bytes": 999999,
            "bits_per_second": 1, "retransmits": 50, "omitted": true, "sender": true}},
        {"streams": [], "sum": {"seconds": 0.2, "bytes": 144800, "retransmits": 9, "omitted": false}},
        {"streams": [], "sum": {"seconds": 0.1, "bytes": 144800, "retransmits": 2, "omitted": false}},
        {"streams": [], "sum": {"seconds": 0.1, "bytes": 144800, "retransmits": 0, "omitted": false}},
        {"streams": [], "sum": {"seconds": 0.001, "bytes": 0, "retransmits": 0, "omitted": false}}],
        "end": {"sender_tcp_congestion": "bbr"}}"#;

    const RECEIVER: &str = r#"{"intervals": [
        {"sum": {"seconds": 0.1, "bytes": 1000, "packets": 10, "lost_packets": 9, "omitted": false}},
        {"sum": {"seconds": 0.1, "bytes": 1000, "packets": 10, "lost_packets": 6, "omitted": false}},
        {"sum": {"seconds": 0.3, "bytes": 1000, "packets": 10, "lost_packets": -1, "omitted": false}}],
        "end": {}}"#;

    #[test]
    fn what_was_omitted_does_not_count_nor_does_the_interval_in_which_that_ended() {
        let end = parse(SENDER, 4).unwrap();
        assert_eq!((end.bytes, end.retransmits), (289_600, Some(2)));
        assert!((end.rate() - 289_600.0 / 0.201).abs() < 1.0);
        assert_eq!(end.retransmitted_percent(), Some(1.0));
        assert_eq!(end.lost_percent(), None);
        assert_eq!(end.congestion.as_deref(), Some("bbr"));
    }

    #[test]
    fn what_was_sent_again_at_any_time_is_told_too() {
        // 61 segments of 999,999 + 3 x 144,800 bytes.
        let percent = parse(SENDER, 4).unwrap().resent_percent.unwrap();
        assert!((percent - 61.0 / (1_434_399.0 / 1448.0) * 100.0).abs() < 1e-9, "{percent}");
        assert_eq!(parse(RECEIVER, 4).unwrap().resent_percent, None);
    }

    #[test]
    fn the_rest_after_the_last_interval_is_no_window() {
        assert_eq!(parse(SENDER, 4).unwrap().windows, [1_448_000.0, 1_448_000.0]);
    }

    #[test]
    fn what_comes_after_the_end_does_not_count() {
        let window = |bytes| {
            format!(r#"{{"sum": {{"seconds": 0.25, "bytes": {bytes}, "omitted": false}}}}"#)
        };
        let windows = [1000, 1000, 1000, 1000, 7, 0].map(window).join(",");
        let end = parse(&format!(r#"{{"intervals": [{windows}]}}"#), 1).unwrap();
        assert_eq!((end.bytes, end.windows.len()), (3_000, 3));
    }

    #[test]
    fn what_begins_before_the_window_does_not_count() {
        let window = |bytes| {
            format!(r#"{{"sum": {{"seconds": 0.25, "bytes": {bytes}, "omitted": false}}}}"#)
        };
        let windows = [9, 9, 9, 1000, 1000, 1000, 1000, 7].map(window).join(",");
        let counted = Counted { from: 0.7, until: 1.7 };
        let end = super::parse(&format!(r#"{{"intervals": [{windows}]}}"#), counted).unwrap();
        assert_eq!((end.bytes, end.windows.len()), (4_000, 4));
    }

    #[test]
    fn datagrams_that_come_late_are_not_lost() {
        let end = parse(RECEIVER, 4).unwrap();
        assert_eq!(end.datagrams, Some((20, 5)));
        assert_eq!(end.lost_percent(), Some(25.0));
        assert_eq!(end.retransmitted_percent(), None);
    }

    #[test]
    fn what_is_no_result_is_an_error() {
        let error = |text| format!("{:#}", parse(text, 4).unwrap_err());
        assert!(
            error("iperf3: oops").starts_with("this is no report of iperf3's: \"iperf3: oops\"")
        );
        assert_eq!(error(r#"{"error": "unable to connect"}"#), "iperf3: unable to connect");
        assert!(error(r#"{"intervals": [], "end": {}}"#).contains("nothing after the omitted"));
    }
}
