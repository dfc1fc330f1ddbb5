//! Measuring in turns, and telling the result as Markdown.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::baseline::Ratio;
use crate::forest::{Attached, Forest};
use crate::scan::{TWO_TYPES, as_process, bpftool};

/// How many times as fast as bpftool the auditor has to be at least, with two attach types.
const LEAST_TWO_TYPES: f64 = 4.0;
/// With all attach types.
const LEAST_ALL_TYPES: f64 = 2.0;
/// Below so many cgroups nothing is asked.
const SMALL: usize = 10_000;
/// How much memory it may use at most.
const MOST_MEGABYTES: f64 = 32.0;

/// One row of the table: the same tree, looked at in three ways.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// How many cgroups.
    pub cgroups: usize,
    /// How many attachments.
    pub attachments: usize,
    /// What they are.
    pub attached: Attached,
    /// `bpftool cgroup tree`.
    pub bpftool: Duration,
    /// The auditor as a process, with the two attach types of a throttle.
    pub two_types: Duration,
    /// The same with every attach type that the kernel knows.
    pub all_types: Duration,
    /// The most memory that the auditor used, in kB.
    pub peak_kilobytes: u64,
}

impl Row {
    /// Lets the contestants run in turns and takes the median of each.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn measure(forest: &Forest, rounds: usize) -> anyhow::Result<Self> {
        let root = forest.root();
        let (mut theirs, mut two, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut peak_kilobytes = 0;
        for _ in 0..rounds {
            theirs.push(timed(|| bpftool(root))?.0);
            for (times, types) in [(&mut two, &TWO_TYPES[..]), (&mut all, &[])] {
                let (time, peak) = timed(|| as_process(root, types))?;
                times.push(time);
                peak_kilobytes = peak_kilobytes.max(peak);
            }
        }
        Ok(Self {
            cgroups: forest.cgroups,
            attachments: forest.attachments,
            attached: forest.attached,
            bpftool: median(theirs),
            two_types: median(two),
            all_types: median(all),
            peak_kilobytes,
        })
    }

    /// How many times faster than bpftool: with two types, with all.
    pub fn ratios(&self) -> (f64, f64) {
        let ratio = |time: Duration| self.bpftool.as_secs_f64() / time.as_secs_f64();
        (ratio(self.two_types), ratio(self.all_types))
    }

    /// The same the other way round, for the baseline: how long the auditor takes beside bpftool.
    pub fn baseline(&self) -> [Ratio; 2] {
        let (two, all) = self.ratios();
        [("two attach types", two), ("all attach types", all)].map(|(types, ratio)| Ratio {
            name: format!("{types}, {} cgroups, {}", self.cgroups, self.attached.name()),
            peer: "bpftool".to_owned(),
            value: 1.0 / ratio,
        })
    }

    /// What of this is not good enough, for people; nothing where all is. The ratios are to a peer in the
    /// same run, so the machine and its load do not matter much. Of small trees nothing is asked: there it is
    /// starting a process that counts, not looking at cgroups.
    pub fn misses(&self) -> Vec<String> {
        if self.cgroups < SMALL {
            return Vec::new();
        }
        let (two, all) = self.ratios();
        let memory = self.peak_kilobytes as f64 / 1_000.0;
        let of = format!("{} cgroups, {} {}", self.cgroups, self.attachments, self.attached.name());
        let ratios = [("two attach types", two, LEAST_TWO_TYPES), ("all", all, LEAST_ALL_TYPES)];
        let slow = ratios.into_iter().filter(|(_, ratio, least)| ratio < least).map(
            |(types, ratio, least)| {
                format!("{of}: {types}: {ratio:.2} times as fast as bpftool, less than {least}")
            },
        );
        let big = (memory > MOST_MEGABYTES)
            .then(|| format!("{of}: {memory:.1} MB, more than {MOST_MEGABYTES}"));
        slow.chain(big).collect()
    }
}

/// The rows as a Markdown table.
pub fn markdown(rows: &[Row]) -> String {
    let mut table = String::from(
        "| cgroups | attachments | `bpftool cgroup tree` | `scan`, two attach types | `scan`, all attach types | peak memory |\n\
         | ---: | --- | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let (two, all) = row.ratios();
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} {} | {} ms | {} ms, **{two:.1} times** as fast | {} ms, **{all:.1} times** as fast | {:.1} MB |",
            row.cgroups,
            row.attachments,
            row.attached.name(),
            row.bpftool.as_millis(),
            row.two_types.as_millis(),
            row.all_types.as_millis(),
            row.peak_kilobytes as f64 / 1_000.0,
        );
    }
    table
}

fn timed<T>(run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Duration, T)> {
    let start = Instant::now();
    let result = run()?;
    Ok((start.elapsed(), result))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_times_and_ratios() {
        let ms = Duration::from_millis;
        let row = Row {
            cgroups: 10_000,
            attachments: 100,
            attached: Attached::Leaks,
            bpftool: ms(500),
            two_types: ms(50),
            all_types: ms(200),
            peak_kilobytes: 5_120,
        };
        let table = markdown(&[row]);
        let expected = "| 10000 | 100 leaked | 500 ms | 50 ms, **10.0 times** as fast | 200 ms, **2.5 times** as fast | 5.1 MB |";
        assert_eq!(table.lines().nth(2), Some(expected));
    }

    #[test]
    fn what_is_not_good_enough_is_named() {
        let ms = Duration::from_millis;
        let good = Row {
            cgroups: 10_000,
            attachments: 100,
            attached: Attached::Foreign,
            bpftool: ms(400),
            two_types: ms(100),
            all_types: ms(200),
            peak_kilobytes: 32_000,
        };
        assert_eq!(good.misses(), Vec::<String>::new());
        let bad = Row { two_types: ms(101), all_types: ms(201), peak_kilobytes: 32_100, ..good };
        assert_eq!(bad.misses().len(), 3, "{:?}", bad.misses());
        assert!(bad.misses()[0].starts_with("10000 cgroups, 100 foreign: two attach types: 3.96"));
        assert_eq!(Row { cgroups: 9_900, ..bad }.misses(), Vec::<String>::new());
    }

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let times = [3, 900, 1, 2, 4].map(Duration::from_millis);
        assert_eq!(median(times.to_vec()), Duration::from_millis(3));
    }
}
