//! JSON Schemas of what is written for programs: made from the types that are written, so that they cannot say
//! anything else. `docs/schema` has them for those who have no auditor at hand.

pub(crate) mod stand_in;

pub use self::stand_in::Path as WrittenPath;

use clap::ValueEnum;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};

use crate::clean::CleanReport;
use crate::diff::DiffReport;
use crate::gate::GateReport;
use crate::report::Report;
use crate::snapshot::Snapshot;

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
    /// Its schema, as JSON Schema 2020-12. Fields may be added to each document, so none is forbidden.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn schema(self) -> serde_json::Result<String> {
        let settings = SchemaSettings::draft2020_12();
        let schema = match self {
            Self::Report => of::<Report>(settings.for_serialize()),
            Self::Clean => of::<CleanReport>(settings.for_serialize()),
            // Some fields came later: what was written without them is read all the same.
            Self::Snapshot => of::<Snapshot>(settings.for_deserialize()),
            Self::Diff => of::<DiffReport>(settings.for_serialize()),
            Self::Gate => of::<GateReport>(settings.for_serialize()),
        };
        Ok(serde_json::to_string_pretty(&schema)? + "\n")
    }
}

/// The schema of what another program writes, made as those of the documents here.
///
/// # Errors
/// It cannot be written as JSON.
pub fn schema_of<T: JsonSchema>() -> serde_json::Result<String> {
    let schema = of::<T>(SchemaSettings::draft2020_12().for_serialize());
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> Schema {
    settings.with_transform(plain_words).into_generator().into_root_schema_for::<T>()
}

/// Descriptions are doc comments: their links mean nothing outside of the code.
fn plain_words(schema: &mut Schema) {
    if let Some(serde_json::Value::String(description)) = schema.get_mut("description") {
        let words: Vec<_> = description.split_whitespace().collect();
        *description = words.join(" ").replace("[`", "`").replace("`]", "`");
    }
    transform_subschemas(&mut plain_words, schema);
}
