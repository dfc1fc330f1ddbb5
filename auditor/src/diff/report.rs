//! What `diff` reports.
//!
//! Its shape is stable: fields may be added in [`SCHEMA_VERSION`] 1, never renamed or removed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks::checks;
use super::{Difference, Item, text};
use crate::classify::Verdict;
use crate::formats::{Medium, Rendition};
use crate::report::{Gap, Host};
use crate::results::Results;
use crate::snapshot::{Snapshot, Tool};

/// The version of the report.
pub const SCHEMA_VERSION: u32 = 1;

/// What came and what went between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program that compared them.
    pub tool: Tool,
    /// Where they were taken.
    pub host: Host,
    /// The first snapshot.
    pub before: Taken,
    /// The second one.
    pub after: Taken,
    /// The globs that name what was compared.
    pub programs: Vec<String>,
    /// `leaks` where something is new.
    pub verdict: Verdict,
    /// What only the second snapshot has.
    pub new: Vec<Item>,
    /// What only the first one has.
    pub gone: Vec<Item>,
    /// What could not be compared.
    pub gaps: Vec<Gap>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// When it was taken, in RFC 3339, UTC.
    pub taken_at: String,
}

/// Makes the report.
pub fn report(
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
        host: Host::from(&after.host),
        before: taken(before),
        after: taken(after),
        programs: programs.to_vec(),
        verdict,
        new: difference.new,
        gone: difference.gone,
        gaps: difference.gaps.into_iter().map(Gap::from).collect(),
    }
}

impl Rendition for DiffReport {
    fn text(&self, on: Medium) -> String {
        text::render(self, on.colour)
    }

    fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn results(&self) -> Results {
        let why = format!("it was not there at {}", self.before.taken_at);
        let new: Vec<(&Item, String)> = self.new.iter().map(|item| (item, why.clone())).collect();
        Results {
            command: "diff",
            tool: self.tool.clone(),
            hostname: self.host.hostname.clone(),
            taken_at: self.after.taken_at.clone(),
            duration_ms: 0.0,
            verdict: self.verdict,
            conclusion: text::conclusion(self),
            checks: checks(&new, &self.gaps),
        }
    }
}
