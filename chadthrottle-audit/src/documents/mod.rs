//! Defines the JSON that the commands write, and its JSON Schemas.
//!
//! The schemas come from the types that are written, so they cannot differ. `docs/schema` has them. The shapes
//! are stable. A version may gain fields, but never renames or removes one.

mod clean;
mod diff;
mod gate;

use auditor::facts::Snapshot;
use auditor::report::Report;
use clap::ValueEnum;
use terminal::{schema_of, schema_to_read};

pub(crate) use self::clean::{CleanReport, CleanStep};
pub(crate) use self::diff::{DiffReport, diff_report};
pub(crate) use self::gate::{CommandInfo, Ended, GateReport, Left};

/// What there is a schema of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// What `scan --format json` writes
    Report,
    /// What `clean --format json` writes
    Clean,
    /// What `snapshot` writes, and `scan --from` reads
    Snapshot,
    /// What `diff --format json` writes
    Diff,
    /// What `gate --format json` writes
    Gate,
}

impl Document {
    /// Returns the document's JSON Schema (2020-12). Later versions may add fields, so the schema forbids none.
    ///
    /// # Errors
    /// The schema cannot be written as JSON.
    pub fn schema(self) -> serde_json::Result<String> {
        match self {
            Self::Report => schema_of::<Report<String>>(),
            Self::Clean => schema_of::<CleanReport>(),
            Self::Snapshot => schema_to_read::<Snapshot>(),
            Self::Diff => schema_of::<DiffReport>(),
            Self::Gate => schema_of::<GateReport>(),
        }
    }
}
