//! Marks leaks that an earlier snapshot already has, so that they do not count again.
//!
//! A baseline lets people introduce the audit on a host with a leak that they cannot remove yet. The audit still fails
//! on the next leak.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use kernel::ProgramIdentity;

use crate::facts::{Note, Snapshot, Vantage};
use crate::judge::{Classified, Judged, Key, Verdict, classify, without_processes};
use crate::report::{BaselineInfo, Report};

/// Identifies a known leak, and its program by tag and load time as well because the kernel reuses ids.
type Known = (Key, Option<ProgramIdentity>);

/// The leaks of an earlier snapshot. Taking the snapshot needs root and Linux 5.8. A baseline applies only to snapshots
/// of the same boot.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// The file's name, as the user gave it.
    file: String,
    taken_at: String,
    host: Vantage,
    leaks: HashSet<Known>,
}

impl Baseline {
    /// Judges the earlier snapshot. `file` names its source, for people.
    pub fn new(snapshot: &Snapshot, file: String) -> Self {
        Self {
            file,
            taken_at: snapshot.looks.last().map(|it| it.taken_at.clone()).unwrap_or_default(),
            host: snapshot.host.clone(),
            leaks: leaks(&classify(snapshot)).into_iter().collect(),
        }
    }

    /// Marks the known leaks of a report and excludes them from its verdict. `now` and `classified` must be the source
    /// of the report. A baseline of another boot knows no leak, and a note says so.
    pub fn apply(&self, report: &mut Report, now: &Snapshot, classified: &Classified<'_>) {
        report.baseline =
            Some(BaselineInfo { taken_at: self.taken_at.clone(), file: self.file.clone() });
        if self.host.host.boot_id != now.host.host.boot_id {
            report.coverage.notes.push(Note {
                what: format!("the baseline {}", self.file),
                why: "it is of another boot, or of another host, so it knows no leak of this one: take a new one"
                    .to_owned(),
            });
            return;
        }
        // The report lists its leaks in the same order.
        for (leak, key) in report.leaks.iter_mut().zip(leaks(classified)) {
            leak.known = self.leaks.contains(&key);
        }
        report.summary.known = report.leaks.iter().filter(|leak| leak.known).count();
        report.summary.leaked = report.leaks.len() - report.summary.known;
        if report.summary.leaked == 0
            && let Some(look) = now.looks.last()
        {
            // A known leak counts as answered for, as a program with an owner does.
            let gaps = without_processes(&classified.gaps, look);
            report.coverage.gaps = gaps.into_iter().map(Note::from).collect();
        }
        report.verdict = Verdict::of(report.summary.leaked, report.coverage.gaps.len());
    }
}

fn leaks(classified: &Classified<'_>) -> Vec<Known> {
    let identity = |judged: &Judged<'_>| judged.program.map(|it| it.loaded.identity());
    let programs = classified.leaks().map(|judged| (judged.key(), identity(judged)));
    programs.chain(classified.leaked_devices().map(|judged| (judged.key(), None))).collect()
}
