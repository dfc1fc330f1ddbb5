//! Defines the report of `diff`.

use auditor::compare::{Difference, Item};
use auditor::facts::{Host, Note};
use auditor::facts::{Snapshot, Tool};
use auditor::judge::Verdict;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the report.
const SCHEMA_VERSION: u32 = 1;

/// What came and what went between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DiffReport {
    /// The version of this shape: 1.
    pub(crate) schema_version: u32,
    /// The program that compared them.
    pub(crate) tool: Tool,
    /// Where they were taken.
    pub(crate) host: Host,
    /// The first snapshot.
    pub(crate) before: Taken,
    /// The second one.
    pub(crate) after: Taken,
    /// The globs that name what was compared.
    pub(crate) programs: Vec<String>,
    /// `leaks` where something is new.
    pub(crate) verdict: Verdict,
    /// What only the second snapshot has.
    pub(crate) new: Vec<Item>,
    /// What only the first one has.
    pub(crate) gone: Vec<Item>,
    /// What could not be compared.
    pub(crate) gaps: Vec<Note>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Taken {
    /// When it was taken, in RFC 3339, UTC.
    pub(crate) taken_at: String,
}

/// Makes the report.
pub(crate) fn diff_report(
    before: &Snapshot,
    after: &Snapshot,
    programs: &[String],
    difference: Difference,
) -> DiffReport {
    let verdict = difference.verdict();
    let taken = |snapshot: &Snapshot| Taken {
        taken_at: snapshot.looks.last().map(|look| look.taken_at.clone()).unwrap_or_default(),
    };
    DiffReport {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        host: after.host.host.clone(),
        before: taken(before),
        after: taken(after),
        programs: programs.to_vec(),
        verdict,
        new: difference.new,
        gone: difference.gone,
        gaps: difference.gaps.into_iter().map(Note::from).collect(),
    }
}
