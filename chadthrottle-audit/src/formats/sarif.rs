//! Writes SARIF 2.1.0, which code scanning services read.
//!
//! A leak is on a cgroup, not in a file, so the logical location is the cgroup's path. Services that insist on
//! a file get the cgroup's directory, relative to the cgroup2 mount.

use std::collections::HashMap;
use std::hash::Hasher;

use auditor::judge::Finding;
use fnv::FnvHasher;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use terminal::escape;

use crate::explain::explain;
use crate::results::{COVERAGE, Check, NOTED, Outcome, Place, Problem, Results};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The characters that a path keeps unchanged in a URI: RFC 3986's unreserved characters and the slash.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Renders a result.
///
/// # Errors
/// A value cannot be written as JSON.
pub(super) fn render(results: &Results) -> serde_json::Result<String> {
    let rules: Vec<&Check> = results.checks.iter().filter(|check| check.rule != COVERAGE).collect();
    let mut same = HashMap::new();
    let mut found = Vec::new();
    for (index, check) in rules.iter().enumerate() {
        if let Outcome::Failed(problems) | Outcome::Noted(problems) = &check.outcome {
            found.extend(problems.iter().map(|problem| result(check, index, problem, &mut same)));
        }
    }
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": results.tool.name,
                "version": results.tool.version,
                "rules": rules.iter().map(|check| rule(check)).collect::<Vec<_>>(),
            } },
            "invocations": [invocation(results)],
            "originalUriBaseIds": {
                "CGROUP2": { "description": text("Where cgroup2 is mounted.") },
                "ROOT": { "uri": "file:///" },
                "SYSFS": { "description": text("Where sysfs is mounted, in the device's network namespace.") },
                "KERNEL": { "description": text("No files: what is loaded into the kernel.") },
            },
            "results": found,
        }],
    });
    Ok(serde_json::to_string_pretty(&log)? + "\n")
}

fn rule(check: &Check) -> Value {
    let help = check.rule.parse::<Finding>().map_or_else(|_| check.summary.clone(), explain);
    json!({
        "id": check.rule,
        "shortDescription": text(&check.summary),
        "fullDescription": text(&check.summary),
        // The help text is ours, so it may keep its line breaks.
        "help": { "text": braces_doubled(&help) },
        "defaultConfiguration": { "level": level(check) },
    })
}

/// Returns the level. A problem that people should only look at is a note, because nothing proves it wrong.
fn level(check: &Check) -> &'static str {
    if NOTED.contains(&check.rule) { "note" } else { "error" }
}

/// Makes a result. `same` counts the results with the same fingerprint.
fn result(check: &Check, index: usize, problem: &Problem, same: &mut HashMap<u64, u32>) -> Value {
    let hash = hash(&[check.rule, &problem.identity]);
    let nth = same.entry(hash).and_modify(|nth| *nth += 1).or_insert(1);
    let fingerprint = format!("{hash:016x}:{nth}");
    json!({
        "ruleId": check.rule,
        "ruleIndex": index,
        "level": level(check),
        "message": text(&message(problem)),
        "locations": [location(problem)],
        "partialFingerprints": {
            "chadthrottleAudit/v1": fingerprint,
            // GitHub reads only this fingerprint.
            "primaryLocationLineHash": fingerprint,
        },
    })
}

fn location(problem: &Problem) -> Value {
    let (kind, name, base, path) = match &problem.place {
        Some(Place::Cgroup(path)) => ("cgroup", path, "CGROUP2", path.clone()),
        Some(Place::Pin(path)) => ("pin", path, "ROOT", path.clone()),
        Some(Place::Device(name)) => ("device", name, "SYSFS", format!("class/net/{name}")),
        None => ("program", &problem.identity, "KERNEL", format!("programs/{}", problem.identity)),
    };
    let path = path.trim_start_matches('/');
    // Readers do not accept an empty reference as a path.
    let uri =
        if path.is_empty() { ".".to_owned() } else { utf8_percent_encode(path, PATH).to_string() };
    json!({
        "logicalLocations": [{ "fullyQualifiedName": name, "kind": kind }],
        "physicalLocation": {
            "artifactLocation": { "uri": uri, "uriBaseId": base },
            // A directory has no lines, but GitHub requires a region.
            "region": { "startLine": 1 },
        },
    })
}

/// Reports whether everything could be seen, and what could not.
fn invocation(results: &Results) -> Value {
    let mut notifications = Vec::new();
    let mut is_successful = true;
    for check in &results.checks {
        match &check.outcome {
            Outcome::Failed(gaps) if check.rule == COVERAGE => {
                is_successful = false;
                notifications.extend(
                    gaps.iter()
                        .map(|gap| json!({ "level": "error", "message": text(&message(gap)) })),
                );
            }
            // Without this note a rule without results would look like one that passed.
            Outcome::Unseen(unseen) => {
                let first = unseen.first().map(message).unwrap_or_default();
                let why = format!("{}: not known to have none: {first}", check.rule);
                notifications.push(json!({ "level": "note", "message": text(&why) }));
            }
            _ => {}
        }
    }
    let mut invocation = json!({
        "executionSuccessful": is_successful,
        "exitCode": crate::exit::of_verdict(results.verdict),
        "exitCodeDescription": text_only(&results.conclusion),
        "machine": results.hostname,
        "toolExecutionNotifications": notifications,
    });
    // The time is missing only if there was no look, or if somebody wrote the snapshot by hand.
    if humantime::parse_rfc3339(&results.taken_at).is_ok() {
        invocation["endTimeUtc"] = json!(results.taken_at);
    }
    invocation
}

fn message(problem: &Problem) -> String {
    let remedy = problem.remedy.as_ref().map(|remedy| format!(" -> {remedy}"));
    format!("{}: {}{}", problem.what, problem.why, remedy.unwrap_or_default())
}

fn text(text: &str) -> Value {
    json!({ "text": braces_doubled(&text_only(text)) })
}

/// Changes text that a reader would turn into a link, or that would hide its neighbours.
fn text_only(text: &str) -> String {
    escape(text).replace("](", "] (")
}

/// Doubles braces, because `{0}` in a message is a placeholder.
fn braces_doubled(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Hashes the parts, with the same result in every version of this program. So a service recognises a known problem.
fn hash(parts: &[&str]) -> u64 {
    let mut hasher = FnvHasher::default();
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}
