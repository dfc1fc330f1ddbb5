//! What was measured, as it is written to JSON and read again.

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

/// Changes when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 2;

/// What is said where something else keeps the processors busy.
pub const NOT_QUIET: &str =
    "machine not quiet: more than a tenth of it is busy without load, so there are no CPU figures";

/// All of one run of the lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Where, when, and with what.
    pub machine: Machine,
    /// Seconds that each measurement counts; three times as many below 1 MB/s.
    pub seconds: u32,
    /// Seconds before that.
    pub omitted_seconds: u32,
    /// How often each was measured.
    pub runs: u32,
    /// The ways without load.
    pub idle: Vec<Idle>,
    /// Each cell with each system.
    pub rows: Vec<Row>,
    /// Limits within limits.
    pub nested: Vec<Nested>,
}

/// A way without load, and the machine with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// The round trip that is added.
    pub rtt_ms: u32,
    /// What part of the packets is lost.
    pub loss_percent: u32,
    /// How long probes take.
    pub echoes: Echoes,
    /// How many processors are busy, on average.
    pub busy_processors: f64,
}

/// A cell with a system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was tried.
    pub cell: Cell,
    /// With what.
    pub system: Name,
    /// What it counts of a packet.
    pub counted: Counted,
    /// The goodput if its limit is kept to the byte, bytes per second; `None` without a limit.
    pub expected: Option<f64>,
    /// The most that is no error either, where what it counts leaves that open; otherwise the same.
    pub expected_most: Option<f64>,
    /// What was done to set it up.
    pub done: Vec<String>,
    /// Why it was not measured: what this kernel or host lacks, in the words of whoever said so.
    pub not_here: Option<String>,
    /// Each measurement, in order.
    pub runs: Vec<Run>,
    /// Their medians. Made anew from the runs when it is read.
    #[serde(default)]
    pub summary: Summary,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// It came to an end.
    Measured(Box<Measured>),
    /// It did not, and why.
    Failed(String),
}

/// What came of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Payload that arrived, bytes per second.
    pub goodput: f64,
    /// Payload that was sent, bytes per second. For UDP: what was offered.
    pub offered: f64,
    /// How far windows of 100 ms were off what is expected; `None` without a limit.
    pub windows: Option<Deviation>,
    /// TCP: segments sent again in the seconds that count, in percent of those sent in them.
    pub retransmitted_percent: Option<f64>,
    /// TCP: segments sent again in the whole test, the omitted seconds included, in percent of those sent.
    pub resent_percent: Option<f64>,
    /// UDP: datagrams that did not come, in percent of those sent.
    pub lost_percent: Option<f64>,
    /// Probes from a process beside the cgroup, over the same wire.
    pub outside: Echoes,
    /// Probes from a process in the cgroup.
    pub inside: Echoes,
    /// How many processors were busy, on average, with everything.
    pub busy_processors: f64,
    /// Processor seconds of the whole machine for 10^9 bytes of payload, without what it takes when idle. `None`
    /// where that is too much to be told apart.
    pub cpu_seconds_per_gb: Option<f64>,
}

/// Two limits, one within the other, and what each let through. (Loads run in the child and in a sibling of
/// it at once.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nested {
    /// Which way.
    pub way: Way,
    /// The round trip that is added.
    pub rtt_ms: u32,
    /// The limit of both together, bytes per second.
    pub parent: Rate,
    /// The limit of the child.
    pub child: Rate,
    /// Why it was not measured.
    pub not_here: Option<String>,
    /// Each measurement.
    pub runs: Vec<NestedRun>,
}

/// One measurement of two limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NestedRun {
    /// Payload in bytes per second.
    Measured {
        /// What the child got.
        child: f64,
        /// What its sibling got, which only the parent limits.
        sibling: f64,
    },
    /// It came to no end, and why.
    Failed(String),
}

impl Idle {
    /// Whether so little else runs on a machine of so many processors that what a test takes can be told from
    /// it: at most a tenth of them.
    pub fn is_quiet(&self, processors: u32) -> bool {
        self.busy_processors <= 0.1 * f64::from(processors)
    }

    /// Processor seconds for 10^9 bytes at that goodput, with so many processors busy. `None` where the machine
    /// is not quiet.
    pub fn cpu_seconds_per_gb(&self, processors: u32, busy: f64, goodput: f64) -> Option<f64> {
        self.is_quiet(processors).then(|| (busy - self.busy_processors) / goodput * 1e9)
    }
}

impl Row {
    /// How many runs came to an end.
    pub fn measured(&self) -> usize {
        self.runs.iter().filter(|run| matches!(run, Run::Measured(_))).count()
    }

    /// The goodputs that are no error.
    pub fn range(&self) -> Option<Expected> {
        let least = self.expected?;
        Some(Expected { least, most: self.expected_most.unwrap_or(least) })
    }

    /// Whether as much was sent as the limit lets through. Datagrams are paced by their sender, and where the
    /// machine is too slow for that, the limit has nothing to do. (TCP sends no more than arrives.)
    pub fn is_loaded(&self) -> bool {
        match (self.cell.sender.is_tcp(), self.summary.offered, self.expected) {
            (false, Some(offered), Some(expected)) => offered.median > expected,
            _ => true,
        }
    }
}

/// A name for each of these: its machine's word, and a number where another before it has that, too.
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
    /// Reads them.
    ///
    /// # Errors
    /// When it is no such file, or one of another version.
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

    /// Makes the summary of every row anew.
    pub fn summarise(&mut self) {
        for row in &mut self.rows {
            let idle = self.idle.iter().find(|idle| {
                (idle.rtt_ms, idle.loss_percent) == (row.cell.rtt_ms, row.cell.loss_percent)
            });
            row.summary = Summary::of(row, idle);
        }
    }

    /// Whether each way without load was.
    pub fn is_quiet(&self) -> bool {
        self.idle.iter().all(|idle| idle.is_quiet(self.machine.processors))
    }

    /// What failed, for people.
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
