//! Tests SARIF against its published schema.

use auditor::facts::{Snapshot, Subject};
use auditor::judge::Finding;
use serde_json::{Value, json};
use terminal::Medium;

use super::hostile::{HOSTILE, hostile};
use crate::formats::Format;
use crate::formats::render;
use crate::story::made;
use crate::story::recorded;
use crate::story::*;

fn log(host: &Snapshot) -> Value {
    let text = render(&made(host), Format::Sarif, Medium::FILE).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Returns the only run that the schema allows in a log.
fn run(host: &Snapshot) -> Value {
    let log = log(host);
    let errors: Vec<String> =
        schema().iter_errors(&log).map(|error| format!("{error:?}")).collect();
    assert_eq!(errors, [""; 0], "{log:#}");
    assert_eq!(log["runs"].as_array().unwrap().len(), 1);
    log["runs"][0].clone()
}

fn schema() -> jsonschema::Validator {
    // The schema's pattern for a language is wrong. The errata of OASIS correct it this way.
    let (wrong, mended) =
        ("^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$", "^[a-zA-Z]{2}(-[a-zA-Z]{2})?$");
    let schema = include_str!("../../tests/schemas/sarif-2.1.0.json").replace(wrong, mended);
    let schema = serde_json::from_str(&schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let good = log(&orphan());
    assert!(schema().is_valid(&good));
    for (path, wrong) in [
        ("/runs/0/results/0/level", json!("fatal")),
        ("/runs/0/results/0/message", json!("words")),
        ("/runs/0/results/0/locations/0/physicalLocation/artifactLocation/uri", json!("a b")),
        ("/runs/0/invocations/0/endTimeUtc", json!("yesterday")),
        ("/version", json!("2.0.0")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = wrong;
        assert!(!schema().is_valid(&bad), "{path}");
    }
}

#[test]
fn every_recorded_leak_is_valid_and_a_result_of_its_rule() {
    for finding in Finding::ALL {
        let run = run(&recorded(finding.name()));
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 10);
        let results = run["results"].as_array().unwrap();
        let is_told = finding.is_leak() || finding == Finding::Unowned;
        assert_eq!(!results.is_empty(), is_told, "{finding}");
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            let level = if result["ruleId"] == "unowned" { "note" } else { "error" };
            assert_eq!(result["level"], level);
            assert_eq!(rules[index]["defaultConfiguration"]["level"], level);
        }
        assert!(!is_told || results.iter().any(|it| it["ruleId"] == finding.name()));
        let has_seen_all = finding != Finding::Unknown;
        assert_eq!(run["invocations"][0]["executionSuccessful"], has_seen_all);
    }
}

#[test]
fn a_rule_explains_itself() {
    let run = run(&host());
    let rule = &run["tool"]["driver"]["rules"][0];
    assert_eq!(rule["id"], "orphaned_attachment");
    assert!(rule["help"]["text"].as_str().unwrap().contains("How it comes about\n"), "{rule:#}");
    assert!(rule["shortDescription"]["text"].as_str().unwrap().ends_with('.'));
}

#[test]
fn a_leak_is_on_its_cgroup_and_in_the_cgroups_directory() {
    let mut host = orphan();
    host.look().attachments.last_mut().unwrap().cgroup = r"/a.slice/b:c é\x2d.scope".into();
    let run = run(&host);
    let location = &run["results"][0]["locations"][0];
    assert_eq!(
        location["logicalLocations"],
        json!([{ "fullyQualifiedName": r"/a.slice/b:c é\x2d.scope", "kind": "cgroup" }])
    );
    assert_eq!(
        location["physicalLocation"]["artifactLocation"],
        json!({ "uri": "a.slice/b%3Ac%20%C3%A9%5Cx2d.scope", "uriBaseId": "CGROUP2" })
    );
    assert!(run["originalUriBaseIds"]["CGROUP2"].is_object());
    host.look().attachments.last_mut().unwrap().cgroup = "/".into();
    let root = &self::run(&host)["results"][0]["locations"][0];
    assert_eq!(root["physicalLocation"]["artifactLocation"]["uri"], ".");
}

#[test]
fn what_is_on_no_cgroup_has_a_place_of_its_kind() {
    let kind = |recorded: &Snapshot| {
        let run = run(recorded);
        let location = run["results"][0]["locations"][0].clone();
        let base = location["physicalLocation"]["artifactLocation"]["uriBaseId"].as_str().unwrap();
        assert!(run["originalUriBaseIds"][base].is_object(), "{base}");
        location["logicalLocations"][0]["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(&recorded("orphaned_device")), "device");
    assert_eq!(kind(&recorded("unattached_program")), "program");
}

#[test]
fn a_fingerprint_outlives_the_kernels_ids_and_tells_problems_apart() {
    let fingerprints = |programs: &[u32]| -> Vec<String> {
        let mut host = host();
        let owner = owner(4711);
        host.owner_lives(&owner, Some(false));
        for &program in programs {
            host.program(program, Some(&owner));
            host.attach(program, A, IN);
        }
        host.program(90, Some(&owner));
        host.attach(90, A, EG);
        let run = run(&host);
        let results = run["results"].as_array().unwrap();
        let fingerprint =
            |result: &Value| result["partialFingerprints"]["primaryLocationLineHash"].clone();
        results.iter().map(|result| fingerprint(result).as_str().unwrap().to_owned()).collect()
    };
    let (one, other) = (fingerprints(&[41, 42]), fingerprints(&[51, 52]));
    assert_eq!(one, other);
    assert_eq!(one.len(), 3);
    assert!(one[0] != one[1] && one[1] != one[2] && one[0] != one[2], "{one:?}");
    // Services store fingerprints for years, so this one must never change.
    assert_eq!(one[0], "cbadb1bc0968b8a0:1");
}

#[test]
fn a_gap_is_an_execution_that_failed_and_says_of_each_rule_that_it_is_not_known() {
    let mut host = whole(orphan());
    host.gap(Subject::Cgroups);
    let run = run(&host);
    let invocation = &run["invocations"][0];
    assert_eq!(
        (&invocation["executionSuccessful"], &invocation["exitCode"]),
        (&json!(false), &json!(1))
    );
    let notifications = invocation["toolExecutionNotifications"].as_array().unwrap();
    let of =
        |level: &str| notifications.iter().filter(|it| it["level"] == level).collect::<Vec<_>>();
    assert_eq!(of("error").len(), 1);
    assert_eq!(of("error")[0]["message"]["text"], "/x: denied");
    assert_eq!(of("note").len(), 9, "all rules but the one that has a leak");
    let mut blind = host.clone();
    blind.looks.clear();
    assert_eq!(self::run(&blind)["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn what_a_viewer_would_take_for_a_link_or_a_placeholder_is_neither() {
    let mut host = hostile();
    let name = "/[click](https://x) {0}";
    host.look().attachments.last_mut().unwrap().cgroup = name.into();
    let run = run(&host);
    let message = run["results"][0]["message"]["text"].as_str().unwrap();
    assert!(message.contains("/[click] (https://x) {{0}}"), "{message}");
    assert_eq!(
        run["results"][0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"],
        name
    );
    assert!(!message.contains('\u{202e}') && message.contains(r"\u{{202e}}"), "{message}");
    assert_eq!(run["invocations"][0]["machine"], HOSTILE);
}
