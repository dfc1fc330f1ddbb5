//! Estimates how long the planned measurements take.

use std::fmt;

use super::nested::SPARE_SECONDS;
use super::plan::Entry;
use super::traffic::Span;

/// The number of planned runs and their estimated time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// The runs of rows and of limits within limits.
    pub runs: u64,
    /// The time of all runs and of the measurements without load, in seconds.
    pub seconds: f64,
}

/// Estimates the time of these entries and of `nested` limits within limits, `runs` times each. Each run takes
/// `overhead` extra seconds. Cells that this kernel cannot measure count too, although they take no time.
pub fn planned(entries: &[Entry], nested: usize, span: Span, runs: u32, overhead: f64) -> Planned {
    let took = |span: Span| f64::from(span.seconds + span.omit) + overhead;
    let mut ways: Vec<_> =
        entries.iter().map(|it| (it.cell.rtt_ms, it.cell.loss_percent)).collect();
    ways.sort_unstable();
    ways.dedup();
    let of_rows = |entry: &Entry| entry.systems.len() as f64 * took(span.at(entry.cell.rate));
    let rows: f64 = entries.iter().map(of_rows).sum();
    let longer = Span { seconds: span.seconds + SPARE_SECONDS, ..span };
    let once = rows + nested as f64 * took(longer);
    let idle = ways.len() as f64 * (f64::from(span.seconds) + overhead);
    let systems: usize = entries.iter().map(|entry| entry.systems.len()).sum();
    Planned {
        runs: (systems + nested) as u64 * u64::from(runs),
        seconds: once * f64::from(runs) + idle,
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs, about {:.0} minutes", self.runs, (self.seconds / 60.0).ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::Way;
    use super::super::plan::{Choice, entries};
    use super::super::presets::Preset;
    use super::super::samples::rate;
    use super::super::systems::Name;
    use super::*;

    #[test]
    fn what_is_planned_takes_its_seconds_and_what_comes_on_top() {
        let choice = Choice {
            ways: vec![Way::Up],
            rates: vec![rate(500_000), rate(1_000_000)],
            systems: vec![Name::Ours, Name::Htb],
            ..Choice::default()
        };
        let entries = entries(None, &choice).unwrap();
        let planned = planned(&entries, 1, Span { seconds: 2, omit: 1 }, 3, 0.5);
        // Three times: two runs of 6 + 1.5 s, two of 2 + 1.5 s, and one of 3 + 1.5 s. Then once 2.5 s without load.
        assert_eq!(planned, Planned { runs: 15, seconds: 3.0 * (15.0 + 7.0 + 4.5) + 2.5 });
        assert_eq!(planned.to_string(), "15 runs, about 2 minutes");
    }

    #[test]
    fn each_half_of_the_goals_takes_no_more_than_thirteen_minutes() {
        let minutes = |rtt, omit, overhead| {
            let choice = Choice { rtts: vec![rtt], ..Choice::default() };
            let entries = entries(Some(Preset::Goals), &choice).unwrap();
            let span = Span { seconds: 3, omit };
            planned(&entries, 2, span, 3, overhead).seconds / 60.0
        };
        let (here, guest) = (minutes(0, 1, 0.8), minutes(20, 2, 3.0));
        assert!(here < 13.0 && guest < 13.0, "{here}, {guest}");
    }
}
