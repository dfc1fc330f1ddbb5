//! Stores measurements as JSON and reads them again.

use anyhow::{Context, Result, ensure};
use bpf::limits::Rate;
use serde::{Deserialize, Serialize};

use super::cell::{Cell, Way};
use super::echo::Echoes;
use super::expect::{Counted, Expected};
use super::machine::Machine;
use super::stats::Deviation;
use super::summary::Summary;
use super::systems::Name;

/// The version of the format. It changes when a field changes its meaning or disappears.
pub const SCHEMA_VERSION: u32 = 2;

/// The note in a report if other programs keep the processors busy.
pub const NOT_QUIET: &str =
    "machine not quiet: more than a tenth of it is busy without load, so there are no CPU figures";

/// The results of one run of the lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The version, see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The machine, the time and the tools.
    pub machine: Machine,
    /// The seconds that count in each measurement. Limits below 1 MB/s have three times as many.
    pub seconds: u32,
    /// The omitted seconds before those.
    pub omitted_seconds: u32,
    /// The number of runs of each measurement.
    pub runs: u32,
    /// The paths without load.
    pub idle: Vec<Idle>,
    /// One row for each cell and system.
    pub rows: Vec<Row>,
    /// Limits within limits.
    pub nested: Vec<Nested>,
}

/// A path and the machine, both without load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// The added round trip, in milliseconds.
    pub rtt_ms: u32,
    /// The lost part of the packets, in percent.
    pub loss_percent: u32,
    /// The times of the probes.
    pub echoes: Echoes,
    /// The average number of busy processors.
    pub busy_processors: f64,
}

/// A cell measured with one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The cell.
    pub cell: Cell,
    /// The system.
    pub system: Name,
    /// What the system counts of a packet.
    pub counted: Counted,
    /// The goodput of an exact limit, in bytes per second. `None` without a limit.
    pub expected: Option<f64>,
    /// The highest goodput of an exact limit. It differs from `expected` if the system's way of counting allows a
    /// range.
    pub expected_most: Option<f64>,
    /// The commands that set the system up.
    pub done: Vec<String>,
    /// Why the cell was not measured: what this kernel or host lacks, in the words of the failing tool.
    pub not_here: Option<String>,
    /// The measurements, in order.
    pub runs: Vec<Run>,
    /// The medians of the runs. They are computed again after reading.
    #[serde(default)]
    pub summary: Summary,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// The run finished.
    Measured(Box<Measured>),
    /// The run failed, and why.
    Failed(String),
}

/// The figures of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The payload that arrived, in bytes per second.
    pub goodput: f64,
    /// The payload that was sent, in bytes per second. For UDP, the offered load.
    pub offered: f64,
    /// How far windows of 100 ms differ from the expected rate. `None` without a limit.
    pub windows: Option<Deviation>,
    /// TCP: segments sent again in the seconds that count, in percent of those sent then.
    pub retransmitted_percent: Option<f64>,
    /// TCP: segments sent again in the whole test, the omitted seconds included, in percent of those sent.
    pub resent_percent: Option<f64>,
    /// UDP: lost datagrams, in percent of those sent.
    pub lost_percent: Option<f64>,
    /// Probes of a process outside the cgroup, over the same wire.
    pub outside: Echoes,
    /// Probes of a process in the cgroup.
    pub inside: Echoes,
    /// The average number of busy processors, with everything included.
    pub busy_processors: f64,
    /// Processor seconds of the whole machine for 10^9 bytes of payload, less its idle load. `None` if the idle load is
    /// too high to tell them apart.
    pub cpu_seconds_per_gb: Option<f64>,
}

/// A limit within a limit, and what each let through. A child and its sibling are loaded at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nested {
    /// The direction.
    pub way: Way,
    /// The added round trip, in milliseconds.
    pub rtt_ms: u32,
    /// The limit of the parent, for both together, in bytes per second.
    pub parent: Rate,
    /// The limit of the child, in bytes per second.
    pub child: Rate,
    /// Why it was not measured.
    pub not_here: Option<String>,
    /// The measurements.
    pub runs: Vec<NestedRun>,
}

/// One measurement of two limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NestedRun {
    /// The payload, in bytes per second.
    Measured {
        /// The payload of the child.
        child: f64,
        /// The payload of its sibling, which only the parent limits.
        sibling: f64,
    },
    /// The run failed, and why.
    Failed(String),
}

impl Idle {
    /// Tells whether the machine is quiet enough to measure the processor time of a test: at most a tenth of its
    /// `processors` are busy.
    pub fn is_quiet(&self, processors: u32) -> bool {
        self.busy_processors <= 0.1 * f64::from(processors)
    }

    /// Returns the processor seconds for 10^9 bytes at this goodput, with `busy` processors. `None` if the machine is
    /// not quiet.
    pub fn cpu_seconds_per_gb(&self, processors: u32, busy: f64, goodput: f64) -> Option<f64> {
        self.is_quiet(processors).then(|| (busy - self.busy_processors) / goodput * 1e9)
    }
}

impl Row {
    /// Returns the number of finished runs.
    pub fn measured(&self) -> usize {
        self.runs.iter().filter(|run| matches!(run, Run::Measured(_))).count()
    }

    /// Returns the goodputs of an exact limit.
    pub fn range(&self) -> Option<Expected> {
        let least = self.expected?;
        Some(Expected { least, most: self.expected_most.unwrap_or(least) })
    }

    /// Tells whether the sender offered more than the limit. A UDP sender paces its datagrams, and a slow machine may
    /// offer too few. TCP always counts as loaded, because it sends no more than arrives.
    pub fn is_loaded(&self) -> bool {
        match (self.cell.sender.is_tcp(), self.summary.offered, self.expected) {
            (false, Some(offered), Some(expected)) => offered.median > expected,
            _ => true,
        }
    }
}

/// Returns a name for each of the results: the word of its machine, with a number if an earlier one has that word.
pub fn names(all: &[Results]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for results in all {
        let word = results.machine.word();
        let numbered = (2..).map(|number| format!("{word}-{number}"));
        names.extend(std::iter::once(word.clone()).chain(numbered).find(|it| !names.contains(it)));
    }
    names
}

impl Results {
    /// Parses results.
    ///
    /// # Errors
    /// Fails if the text is no such file or has another version.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let Version { schema_version } =
            serde_json::from_str(text).context("these are no results of the lab")?;
        ensure!(
            schema_version == SCHEMA_VERSION,
            "results of version {schema_version}; this lab reads version {SCHEMA_VERSION}"
        );
        let mut results: Self = serde_json::from_str(text).context("these results are broken")?;
        results.summarise();
        Ok(results)
    }

    /// Computes the summary of every row again.
    pub fn summarise(&mut self) {
        for row in &mut self.rows {
            let idle = self.idle.iter().find(|idle| {
                (idle.rtt_ms, idle.loss_percent) == (row.cell.rtt_ms, row.cell.loss_percent)
            });
            row.summary = Summary::of(row, idle);
        }
    }

    /// Tells whether the machine was quiet on each path without load.
    pub fn is_quiet(&self) -> bool {
        self.idle.iter().all(|idle| idle.is_quiet(self.machine.processors))
    }

    /// Describes the failures.
    pub fn failures(&self) -> Vec<String> {
        let rows = self.rows.iter().flat_map(|row| {
            row.runs.iter().filter_map(move |run| match run {
                Run::Failed(why) => Some(format!("{}, {}: {why}", row.cell, row.system.name())),
                Run::Measured(_) => None,
            })
        });
        let nested = self.nested.iter().flat_map(|nested| {
            nested.runs.iter().filter_map(move |run| match run {
                NestedRun::Failed(why) => {
                    Some(format!("parent and child, {}: {why}", nested.way.name()))
                }
                NestedRun::Measured { .. } => None,
            })
        });
        rows.chain(nested).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::Sender;
    use super::super::samples;
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let results = samples::results();
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(Results::parse(&text).unwrap(), results);
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let error = |text| format!("{:#}", Results::parse(text).unwrap_err());
        assert!(error("[]").starts_with("these are no results of the lab"));
        assert!(error("{\"schema_version\": 1}").starts_with("results of version 1"));
        assert!(error("{\"schema_version\": 2}").starts_with("these results are broken"));
    }

    #[test]
    fn a_sender_of_datagrams_may_be_too_slow_for_the_limit() {
        let loaded = |sender, offered| {
            let measured = Measured { offered, ..samples::measured(1_000_000.0, 1.0) };
            let run = Run::Measured(Box::new(measured));
            let mut row = samples::row(samples::cell(Way::Up, sender), Name::Ours, vec![run]);
            row.summary = Summary::of(&row, None);
            row.is_loaded()
        };
        assert!(!loaded(Sender::Udp, 1_000_000.0));
        assert!(loaded(Sender::Udp, 1_800_000.0));
        assert!(loaded(Sender::Cubic, 1_000_000.0));
    }

    #[test]
    fn what_a_test_costs_is_not_told_where_much_else_runs() {
        let mut results = samples::results();
        let told = |results: &Results| results.idle[0].cpu_seconds_per_gb(2, 0.5, 1e8);
        results.idle[0].busy_processors = 0.2;
        assert!(results.is_quiet());
        assert!((told(&results).unwrap() - 3.0).abs() < 1e-9);
        results.idle[0].busy_processors = 0.21;
        assert!(!results.is_quiet());
        assert_eq!(told(&results), None);
    }

    #[test]
    fn results_of_one_machine_are_numbered() {
        let one = samples::results();
        let mut other = one.clone();
        other.machine.kernel = "6.12.1".into();
        let all = [one.clone(), other, one.clone(), one];
        assert_eq!(names(&all), ["host-6.18", "host-6.12", "host-6.18-2", "host-6.18-3"]);
    }

    #[test]
    fn a_failed_run_is_told() {
        let failures = samples::results().failures();
        assert_eq!(failures, ["upload cubic 1.25 MB/s x1, 0 ms, tbf: it hung"]);
    }
}
