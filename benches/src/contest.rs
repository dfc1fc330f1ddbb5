//! Measuring in turns, and telling the result as Markdown.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::forest::Forest;
use crate::scan::{TWO_TYPES, as_process, bpftool};

/// One row of the table: the same tree, looked at in three ways.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// How many cgroups.
    pub cgroups: usize,
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
}

/// The rows as a Markdown table.
pub fn markdown(rows: &[Row]) -> String {
    let mut table = String::from(
        "| cgroups | `bpftool cgroup tree` | `scan`, two attach types | `scan`, all attach types | peak memory |\n\
         | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let (two, all) = row.ratios();
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} ms | {} ms, **{two:.1} times** as fast | {} ms, **{all:.1} times** as fast | {:.1} MB |",
            row.cgroups,
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
            bpftool: ms(500),
            two_types: ms(50),
            all_types: ms(200),
            peak_kilobytes: 5_120,
        };
        let table = markdown(&[row]);
        let expected = "| 10000 | 500 ms | 50 ms, **10.0 times** as fast | 200 ms, **2.5 times** as fast | 5.1 MB |";
        assert_eq!(table.lines().nth(2), Some(expected));
    }

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let times = [3, 900, 1, 2, 4].map(Duration::from_millis);
        assert_eq!(median(times.to_vec()), Duration::from_millis(3));
    }
}
