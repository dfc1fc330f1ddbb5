//! Computes the medians of a row.

use serde::{Deserialize, Serialize};

use super::echo::{Echoes, OfAll};
use super::results::{Idle, Measured, Row, Run};
use super::stats::Spread;

/// Each figure across all finished runs. `None` if no run has the figure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The payload that arrived, in bytes per second.
    pub goodput: Option<Spread>,
    /// The payload that was sent, in bytes per second.
    pub offered: Option<Spread>,
    /// How far the goodput differs from the expected one, in percent. Negative means too little.
    pub error_percent: Option<Spread>,
    /// The same without the sign, so runs with too much do not compensate for runs with too little.
    pub off_percent: Option<Spread>,
    /// The average difference of windows of 100 ms, in percent.
    pub window_mean_percent: Option<Spread>,
    /// The difference that 19 of 20 windows do not exceed, in percent.
    pub window_p95_percent: Option<Spread>,
    /// TCP: segments sent again in the whole test, in percent.
    pub resent_percent: Option<Spread>,
    /// UDP: lost datagrams, in percent.
    pub lost_percent: Option<Spread>,
    /// The added time of probes outside the cgroup.
    pub outside: Added,
    /// The added time of probes in the cgroup.
    pub inside: Added,
    /// Processor seconds for 10^9 bytes.
    pub cpu_seconds_per_gb: Option<Spread>,
}

/// What the load adds to the time of probes: a quantile with load less the same quantile without.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// The median of the returned probes, in milliseconds.
    pub p50_ms: Option<Spread>,
    /// The 99th percentile of the returned probes, in milliseconds.
    pub p99_ms: Option<Spread>,
    /// The lost probes, in percent.
    pub lost_percent: Option<Spread>,
    /// The median of all probes. A lost probe takes infinite time, which JSON cannot express.
    #[serde(skip)]
    pub of_all_p50_ms: Option<Spread>,
    /// The 99th percentile of all probes.
    #[serde(skip)]
    pub of_all_p99_ms: Option<Spread>,
}

impl Added {
    fn of(runs: &[&Measured], of: impl Fn(&Measured) -> &Echoes, idle: Option<&Idle>) -> Self {
        let added = |with: fn(&Echoes) -> Option<f64>| {
            let without = with(&idle?.echoes)?;
            Spread::of(runs.iter().filter_map(|run| Some(with(of(run))? - without)))
        };
        let of_all =
            |with: fn(&OfAll) -> Option<f64>| {
                let without = with(&idle?.echoes.of_all())?;
                Spread::of(runs.iter().map(|run| {
                    with(&of(run).of_all()).map_or(f64::INFINITY, |time| time - without)
                }))
            };
        Self {
            of_all_p50_ms: of_all(|all| all.p50_ms),
            of_all_p99_ms: of_all(|all| all.p99_ms),
            p50_ms: added(|echoes| echoes.p50_ms),
            p99_ms: added(|echoes| echoes.p99_ms),
            lost_percent: Spread::of(runs.iter().map(|run| {
                let echoes = of(run);
                f64::from(echoes.lost) / f64::from(echoes.sent.max(1)) * 100.0
            })),
        }
    }
}

impl Summary {
    /// Summarizes a row, relative to the path without load.
    pub fn of(row: &Row, idle: Option<&Idle>) -> Self {
        let runs: Vec<&Measured> = row
            .runs
            .iter()
            .filter_map(|run| match run {
                Run::Measured(measured) => Some(&**measured),
                Run::Failed(_) => None,
            })
            .collect();
        let spread = |value: &dyn Fn(&Measured) -> Option<f64>| {
            Spread::of(runs.iter().filter_map(|run| value(run)))
        };
        Self {
            goodput: spread(&|run| Some(run.goodput)),
            offered: spread(&|run| Some(run.offered)),
            error_percent: spread(&|run| Some(row.range()?.off_percent(run.goodput))),
            off_percent: spread(&|run| Some(row.range()?.off_percent(run.goodput).abs())),
            window_mean_percent: spread(&|run| Some(run.windows?.mean)),
            window_p95_percent: spread(&|run| Some(run.windows?.p95)),
            resent_percent: spread(&|run| run.resent_percent),
            lost_percent: spread(&|run| run.lost_percent),
            outside: Added::of(&runs, |run| &run.outside, idle),
            inside: Added::of(&runs, |run| &run.inside, idle),
            cpu_seconds_per_gb: spread(&|run| run.cpu_seconds_per_gb),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;

    fn is_near(spread: Option<super::Spread>, expected: f64) {
        let median = spread.unwrap().median;
        assert!((median - expected).abs() < 0.005, "{median}, not {expected}");
    }

    #[test]
    fn each_figure_is_the_median_of_its_runs_without_what_the_way_costs_anyhow() {
        let summary = &samples::results().rows[0].summary;
        is_near(summary.goodput, 1_200_000.0);
        is_near(summary.error_percent, -0.4975);
        // The runs have 3, 4 and 8 ms, and 1 ms without load.
        is_near(summary.inside.p50_ms, 3.0);
        is_near(summary.inside.lost_percent, 10.0);
        is_near(summary.inside.of_all_p50_ms, 3.0);
        assert!(summary.inside.of_all_p99_ms.unwrap().median.is_infinite());
    }

    #[test]
    fn runs_with_too_much_do_not_make_up_for_those_with_too_little() {
        let summary = &samples::results().rows[0].summary;
        // The runs have -0.50, +7.79 and -8.79 %.
        is_near(summary.off_percent, 7.7944);
    }

    #[test]
    fn a_failed_run_has_no_part_in_it() {
        let results = samples::results();
        let failed = results.rows.iter().find(|row| row.runs.len() == 1).unwrap();
        assert_eq!(failed.summary.goodput, None);
    }
}
