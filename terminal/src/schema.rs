//! Generates JSON Schemas from the types that a program writes.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};

/// Returns the JSON Schema (2020-12) of a program's output. Later versions may add fields, so the schema forbids none.
///
/// # Errors
/// The schema cannot be written as JSON.
pub fn schema_of<T: JsonSchema>() -> serde_json::Result<String> {
    of::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// Returns the JSON Schema (2020-12) of a program's input. Fields that later versions added may be missing.
///
/// # Errors
/// The schema cannot be written as JSON.
pub fn schema_to_read<T: JsonSchema>() -> serde_json::Result<String> {
    of::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> serde_json::Result<String> {
    let settings = settings.with_transform(plain_words);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

/// Turns doc comments into plain descriptions. Their links mean nothing outside of the code.
fn plain_words(schema: &mut Schema) {
    if let Some(serde_json::Value::String(description)) = schema.get_mut("description") {
        let words: Vec<_> = description.split_whitespace().collect();
        *description = words.join(" ").replace("[`", "`").replace("`]", "`");
    }
    transform_subschemas(&mut plain_words, schema);
}
