//! Measures contestants in turns and prints the result as Markdown.

use std::fmt::Write;
use std::time::{Duration, Instant};

use auditor::collect::Method;

use crate::baseline::Ratio;
use crate::forest::{Attached, Forest};
use crate::median::median;
use crate::scan::{TWO_TYPES, as_process, bpftool};

/// Trees with fewer cgroups than this have no goals.
const SMALL: usize = 10_000;
/// The most memory that the auditor may use.
const MOST_MEGABYTES: f64 = 64.0;
/// bpftool takes part up to this number of attachments. bpftool 7.1 keeps some 6 MB of type information per attached
/// program: 1.2 GB for 200 attachments. With 10,000 the kernel killed it at 23 GB.
const MOST_FOR_BPFTOOL: usize = 200;

/// The contestants beside bpftool, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Queries every cgroup for the two attach types of a throttle.
    TwoTypes,
    /// Queries every cgroup for all attach types that the kernel knows.
    AllTypes,
    /// Lets a kernel iterator visit the cgroups, for all attach types.
    Iterator,
    /// The iterator without its load time, which is the same for any number of cgroups.
    AfterLoad,
}

impl Way {
    const ALL: [Self; 4] = [Self::TwoTypes, Self::AllTypes, Self::Iterator, Self::AfterLoad];

    fn name(self) -> &'static str {
        match self {
            Self::TwoTypes => "query, two attach types",
            Self::AllTypes => "query, all attach types",
            Self::Iterator => "iter, all attach types",
            Self::AfterLoad => "iter, after its load",
        }
    }

    /// Returns how many times faster than bpftool this way has to be.
    fn least(self) -> f64 {
        match self {
            Self::TwoTypes => 4.0,
            Self::AllTypes => 2.0,
            Self::Iterator => 20.0,
            Self::AfterLoad => 50.0,
        }
    }
}

/// One row of the table: one tree, scanned in several ways.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The number of cgroups.
    pub cgroups: usize,
    /// The number of attachments.
    pub attachments: usize,
    /// The kind of attachments.
    pub attached: Attached,
    /// The time of `bpftool cgroup tree`, or `None` if that would need more memory than there is.
    pub bpftool: Option<Duration>,
    /// The times of the auditor as a process, one for each [`Way`].
    ways: [Duration; 4],
    /// The most memory that the auditor used, in kB.
    pub peak_kilobytes: u64,
}

impl Row {
    /// Lets the contestants run in turns and takes the median of each.
    ///
    /// # Errors
    /// Fails if a contestant fails.
    pub fn measure(forest: &Forest, rounds: usize) -> anyhow::Result<Self> {
        let root = forest.root();
        let mut theirs = Vec::new();
        let mut ways = [const { Vec::new() }; 4];
        let mut peak_kilobytes = 0;
        for _ in 0..rounds {
            if forest.attachments <= MOST_FOR_BPFTOOL {
                theirs.push(timed(|| bpftool(root))?.0);
            }
            let [two, all, iterator, after_load] = &mut ways;
            let mut scan = |types, method| {
                let (time, told) = timed(|| as_process(root, types, method))?;
                peak_kilobytes = peak_kilobytes.max(told.peak_kilobytes);
                anyhow::Ok((time, told.timings.load / 1_000.0))
            };
            two.push(scan(&TWO_TYPES, Method::Query)?.0);
            all.push(scan(&[], Method::Query)?.0);
            let (time, load) = scan(&[], Method::Iter)?;
            iterator.push(time);
            after_load.push(time.saturating_sub(Duration::from_secs_f64(load)));
        }
        Ok(Self {
            cgroups: forest.cgroups,
            attachments: forest.attachments,
            attached: forest.attached,
            bpftool: median_of(&theirs),
            ways: ways.map(|times| median_of(&times).unwrap_or_default()),
            peak_kilobytes,
        })
    }

    /// Returns each way with its time and how many times faster than bpftool it is. `None` without bpftool.
    fn ratios(&self) -> impl Iterator<Item = (Way, Duration, Option<f64>)> {
        Way::ALL.into_iter().zip(self.ways).map(|(way, time)| {
            (way, time, self.bpftool.map(|theirs| theirs.as_secs_f64() / time.as_secs_f64()))
        })
    }

    fn known_ratios(&self) -> impl Iterator<Item = (Way, f64)> {
        self.ratios().filter_map(|(way, _, ratio)| Some((way, ratio?)))
    }

    /// Returns the inverse ratios for the baseline: the auditor's time divided by bpftool's.
    pub fn baseline(&self) -> impl Iterator<Item = Ratio> {
        let Self { cgroups, attachments, attached, .. } = *self;
        self.known_ratios().map(move |(way, ratio)| Ratio {
            name: format!("{}, {cgroups} cgroups, {attachments} {}", way.name(), attached.name()),
            peer: "bpftool".to_owned(),
            value: 1.0 / ratio,
        })
    }

    /// Describes which goals the row misses. The goals are ratios to a peer in the same run, so the load of the machine
    /// matters little.
    ///
    /// Small trees have no goals, because starting a process takes most of their time. Leaks have none either, because
    /// the auditor looks at them twice with a pause in between.
    pub fn misses(&self) -> Vec<String> {
        if self.cgroups < SMALL {
            return Vec::new();
        }
        let memory = self.peak_kilobytes as f64 / 1_000.0;
        let of = format!("{} cgroups, {} {}", self.cgroups, self.attachments, self.attached.name());
        let is_slow = |(way, ratio): &(Way, f64)| {
            let is_asked =
                self.attached == Attached::Foreign || matches!(way, Way::TwoTypes | Way::AllTypes);
            is_asked && (ratio.is_nan() || *ratio < way.least())
        };
        let slow = self.known_ratios().filter(is_slow).map(|(way, ratio)| {
            let (name, least) = (way.name(), way.least());
            format!("{of}: {name}: {ratio:.2} times as fast as bpftool, less than {least}")
        });
        let big = (memory > MOST_MEGABYTES)
            .then(|| format!("{of}: {memory:.1} MB, more than {MOST_MEGABYTES}"));
        slow.chain(big).collect()
    }
}

/// Formats the rows as a Markdown table.
pub fn markdown(rows: &[Row]) -> String {
    let names = Way::ALL.map(|way| format!("`scan`, {}", way.name())).join(" | ");
    let mut table = format!(
        "| cgroups | attachments | `bpftool cgroup tree` | {names} | peak memory |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let ways: Vec<String> = row
            .ratios()
            .map(|(_, time, ratio)| {
                let time = format!("{:.0} ms", milliseconds(time));
                ratio.map_or(time.clone(), |ratio| format!("{time}, **{ratio:.1} times** as fast"))
            })
            .collect();
        let theirs = row.bpftool.map(|time| format!("{:.0} ms", milliseconds(time)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} {} | {} | {} | {:.1} MB |",
            row.cgroups,
            row.attachments,
            row.attached.name(),
            theirs.as_deref().unwrap_or("out of memory"),
            ways.join(" | "),
            row.peak_kilobytes as f64 / 1_000.0,
        );
    }
    table
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn timed<T>(run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Duration, T)> {
    let start = Instant::now();
    let result = run()?;
    Ok((start.elapsed(), result))
}

fn median_of(times: &[Duration]) -> Option<Duration> {
    median(times.iter().map(Duration::as_secs_f64)).map(Duration::from_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bpftool: u64, ways: [u64; 4]) -> Row {
        Row {
            cgroups: 10_000,
            attachments: 100,
            attached: Attached::Foreign,
            bpftool: Some(Duration::from_millis(bpftool)),
            ways: ways.map(Duration::from_millis),
            peak_kilobytes: 64_000,
        }
    }

    #[test]
    fn the_table_tells_times_and_ratios() {
        let row = Row { peak_kilobytes: 5_120, ..row(500, [50, 200, 20, 5]) };
        let table = markdown(&[row]);
        let expected = "| 10000 | 100 foreign | 500 ms | 50 ms, **10.0 times** as fast | 200 ms, **2.5 times** as fast | 20 ms, **25.0 times** as fast | 5 ms, **100.0 times** as fast | 5.1 MB |";
        assert_eq!(table.lines().nth(2), Some(expected));
        let alone = markdown(&[Row { bpftool: None, ..row }]);
        let expected =
            "| 10000 | 100 foreign | out of memory | 50 ms | 200 ms | 20 ms | 5 ms | 5.1 MB |";
        assert_eq!(alone.lines().nth(2), Some(expected));
        let columns = |line: usize| table.lines().nth(line).unwrap().matches('|').count();
        assert_eq!([columns(0), columns(1)], [columns(2); 2]);
    }

    #[test]
    fn what_is_not_good_enough_is_named() {
        let good = row(400, [100, 200, 20, 8]);
        assert_eq!(good.misses(), Vec::<String>::new());
        let bad = Row { peak_kilobytes: 64_100, ..row(400, [101, 201, 21, 9]) };
        assert_eq!(bad.misses().len(), 5, "{:?}", bad.misses());
        let first = "10000 cgroups, 100 foreign: query, two attach types: 3.96";
        assert!(bad.misses()[0].starts_with(first), "{:?}", bad.misses());
        let leaks = Row { attached: Attached::Leaks, ..bad };
        assert_eq!(leaks.misses().len(), 3, "{:?}", leaks.misses());
        let alone = Row { bpftool: None, ..bad };
        assert_eq!(alone.misses().len(), 1, "{:?}", alone.misses());
        assert_eq!(alone.baseline().count(), 0);
        assert_eq!(Row { cgroups: 9_900, ..bad }.misses(), Vec::<String>::new());
        assert_eq!(row(0, [0; 4]).misses().len(), 4, "what was not measured is no good");
    }

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let times = [3, 900, 1, 2, 4].map(Duration::from_millis);
        assert_eq!(median_of(&times), Some(Duration::from_millis(3)));
        assert_eq!(median_of(&[]), None);
    }
}
