//! Tests that the schemas match the types and the written documents.

use auditor::judge::{Finding, classify};
use auditor::report::report;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::hostile::hostile;
use crate::documents::CleanReport;
use crate::documents::Document;
use crate::formats::Rendition;
use crate::story::made;
use crate::story::recorded;
use crate::story::*;

fn published(document: Document) -> &'static str {
    match document {
        Document::Report => include_str!("../../../docs/schema/report.schema.json"),
        Document::Clean => include_str!("../../../docs/schema/clean.schema.json"),
        Document::Snapshot => include_str!("../../../docs/schema/snapshot.schema.json"),
        Document::Diff => include_str!("../../../docs/schema/diff.schema.json"),
        Document::Gate => include_str!("../../../docs/schema/gate.schema.json"),
    }
}

fn validator(document: Document) -> Validator {
    jsonschema::validator_for(&serde_json::from_str(published(document)).unwrap()).unwrap()
}

fn check(validator: &Validator, document: &Value) {
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert_eq!(errors, [""; 0], "{document:#}");
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    for (document, name) in [
        (Document::Report, "report"),
        (Document::Clean, "clean"),
        (Document::Snapshot, "snapshot"),
        (Document::Diff, "diff"),
        (Document::Gate, "gate"),
    ] {
        let current = document.schema().unwrap();
        assert!(
            published(document) == current,
            "docs/schema/{name}.schema.json is out of date: write it with `chadthrottle-audit generate schema {name}`"
        );
    }
}

#[test]
fn every_recorded_report_and_snapshot_is_valid() {
    let (reports, snapshots) = (validator(Document::Report), validator(Document::Snapshot));
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for finding in Finding::ALL {
        let snapshot = recorded(finding.name());
        check(&snapshots, &serde_json::to_value(&snapshot).unwrap());
        let report = report(&snapshot, &classify(&snapshot), true);
        check(&reports, &value(&report.json().unwrap()));
    }
    // Add paths that are not UTF-8, and everything that the recorded snapshots lack.
    let mut full = hostile();
    let owner = owner(4711);
    full.record(&owner, 41, A).attachments[0].pin = Some("/sys/fs/bpf/x".into());
    full.device(&owner);
    full.device_program(50, &owner);
    full.device_link(60, 50, 3);
    full.look().attachments.last_mut().unwrap().state = Some(state(true));
    full.look().inventory = one_of_each().looks[0].inventory.clone();
    check(&snapshots, &serde_json::to_value(&full).unwrap());
    check(&reports, &value(&made(&full).json().unwrap()));
}

#[test]
fn what_is_broken_is_refused() {
    let good = serde_json::from_str::<Value>(&made(&orphan()).json().unwrap()).unwrap();
    let reports = validator(Document::Report);
    check(&reports, &good);
    for (path, wrong) in [
        ("/verdict", json!("perfect")),
        ("/schema_version", json!("1")),
        ("/leaks/0/finding", json!("leak")),
        ("/leaks/0/program/id", json!(-1)),
        ("/coverage/gaps", Value::Null),
        ("/summary/leaked", json!(0.5)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = wrong;
        assert!(!reports.is_valid(&bad), "{path}");
    }
    for field in good.as_object().unwrap().keys() {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        assert!(!reports.is_valid(&bad), "without {field}");
    }
    let snapshots = validator(Document::Snapshot);
    let mut bad = serde_json::to_value(orphan()).unwrap();
    assert!(!snapshots.is_valid(&good), "a report is no snapshot");
    bad["looks"][0]["attachments"][0]["cgroup"] = json!({ "path": "/" });
    assert!(!snapshots.is_valid(&bad));
}

#[test]
fn comparisons_and_what_commands_left_are_valid_and_broken_ones_are_not() {
    for (document, good, broken) in [
        (Document::Diff, super::diff::reported().json().unwrap(), "/new/0/kind"),
        (Document::Gate, super::gate::reported().json().unwrap(), "/left/0/kind"),
    ] {
        let validator = validator(document);
        let good: Value = serde_json::from_str(&good).unwrap();
        check(&validator, &good);
        let mut bad = good.clone();
        *bad.pointer_mut(broken).unwrap() = json!("thing");
        assert!(!validator.is_valid(&bad), "{broken}");
        for field in good.as_object().unwrap().keys().filter(|it| !ADDED.contains(&it.as_str())) {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&bad), "without {field}");
        }
    }
}

/// Makes a schema stricter. It then rejects an optional field with an empty value.
fn frugal(schema: &mut Value) {
    let required: Vec<Value> =
        schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            if !required.contains(&json!(name)) && !ADDED.contains(&name.as_str()) {
                let nothing = json!({ "enum": [null, [], {}, "", 0, false] });
                *property = json!({ "allOf": [property.take()], "not": nothing });
            }
        }
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(frugal),
        Value::Array(items) => items.iter_mut().for_each(frugal),
        _ => {}
    }
}

#[test]
fn what_says_nothing_is_left_out_and_not_null() {
    let validator = |document| {
        let mut schema = serde_json::from_str(published(document)).unwrap();
        frugal(&mut schema);
        jsonschema::validator_for(&schema).unwrap()
    };
    let value = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let (reports, clean) = (validator(Document::Report), validator(Document::Clean));
    for finding in Finding::ALL {
        let snapshot = recorded(finding.name());
        let report = report(&snapshot, &classify(&snapshot), true);
        check(&reports, &value(report.json().unwrap()));
        let cleaned = CleanReport::new(false, Vec::new(), report);
        check(&clean, &serde_json::to_value(&cleaned).unwrap());
    }
    check(&reports, &value(made(&hostile()).json().unwrap()));
    check(&validator(Document::Diff), &value(super::diff::reported().json().unwrap()));
    let gates = validator(Document::Gate);
    for gate in (0..4).map(super::gate::of_kind).chain([super::gate::reported()]) {
        check(&gates, &value(gate.json().unwrap()));
    }
    // The stricter schema does reject such a field.
    let mut bad = value(super::gate::reported().json().unwrap());
    check(&gates, &bad);
    bad["left"][0]["program"]["full_name"] = Value::Null;
    assert!(!gates.is_valid(&bad));
}

/// Fields that reports of earlier versions lack.
const ADDED: [&str; 1] = ["gone_of_others"];

/// Collects every property of a schema and of its definitions, with its path.
fn properties(schema: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        found.extend(properties.iter().map(|(name, it)| (format!("{at}.{name}"), it.clone())));
    }
    match schema {
        Value::Object(fields) => {
            for (key, it) in fields {
                properties(it, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for it in items {
                properties(it, at, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_field_is_described_in_plain_words() {
    for document in [Document::Report, Document::Snapshot, Document::Clean] {
        let mut found = Vec::new();
        let schema: Value = serde_json::from_str(&document.schema().unwrap()).unwrap();
        properties(&schema, "", &mut found);
        assert!(found.len() > 80, "{}", found.len());
        for (name, property) in found {
            // The name alone describes each kind of object.
            if name.contains("/Object/") {
                continue;
            }
            let description = property["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty(), "{document:?} {name}");
            assert!(
                !description.contains("[`") && !description.contains("::"),
                "{name}: {description}"
            );
        }
    }
}
