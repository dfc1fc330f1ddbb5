//! Leaks that were there already: an earlier snapshot knows them, and they do not count again.
//!
//! So an audit can be switched on where something is leaked that nobody can remove yet, and still fail on the next one.

use std::collections::HashSet;

use bpf::ProgramId;

use crate::classify::{Classified, Judged, Key, Verdict, classify, without_processes};
use crate::report::{BaselineInfo, Gap, Report};
use crate::snapshot::{Host, Snapshot};

/// A leak by what makes it the same one, and its program by tag and load time, for ids are given anew one day.
type Known = (Key, Option<(ProgramId, String, u64)>);

/// The leaks of an earlier snapshot: taking it needs root and Linux 5.8, and a snapshot of the same boot knows its leaks only.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// The file, as it was named.
    file: String,
    taken_at: String,
    host: Host,
    leaks: HashSet<Known>,
}

impl Baseline {
    /// Judges the earlier snapshot. `file` is where it was read from, for people.
    pub fn new(snapshot: &Snapshot, file: String) -> Self {
        Self {
            file,
            taken_at: snapshot.looks.last().map(|it| it.taken_at.clone()).unwrap_or_default(),
            host: snapshot.host.clone(),
            leaks: leaks(&classify(snapshot)).into_iter().collect(),
        }
    }

    /// Marks the leaks of a report that are known, and takes them out of its verdict. `now` and `classified` are what
    /// the report was made from. A baseline of another boot knows nothing, and a note says so.
    pub fn apply(&self, report: &mut Report, now: &Snapshot, classified: &Classified<'_>) {
        report.baseline =
            Some(BaselineInfo { taken_at: self.taken_at.clone(), file: self.file.clone() });
        if self.host.boot_id != now.host.boot_id {
            report.coverage.notes.push(Gap {
                what: format!("the baseline {}", self.file),
                why: "it is of another boot, or of another host, so it knows no leak of this one: take a new one"
                    .to_owned(),
            });
            return;
        }
        // The report has them in this order.
        for (leak, key) in report.leaks.iter_mut().zip(leaks(classified)) {
            leak.known = self.leaks.contains(&key);
        }
        report.summary.known = report.leaks.iter().filter(|leak| leak.known).count();
        report.summary.leaked = report.leaks.len() - report.summary.known;
        if report.summary.leaked == 0
            && let Some(look) = now.looks.last()
        {
            // What is known is answered for, as what has an owner is.
            let gaps = without_processes(&classified.gaps, look);
            report.coverage.gaps = gaps.into_iter().map(Gap::from).collect();
        }
        report.verdict = Verdict::of(report.summary.leaked, report.coverage.gaps.len());
    }
}

fn leaks(classified: &Classified<'_>) -> Vec<Known> {
    let identity =
        |judged: &Judged<'_>| judged.program.map(|it| (it.id, it.tag.clone(), it.loaded_at_ns));
    let programs = classified.leaks().map(|judged| (judged.key(), identity(judged)));
    programs.chain(classified.leaked_devices().map(|judged| (judged.key(), None))).collect()
}
