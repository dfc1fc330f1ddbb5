//! What a scan of a real host writes is what the schemas say.

use chadthrottle_audit::Document;
use kernel::list::AttachFlags;
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;

use crate::common::*;

fn check(document: Document, written: &Value) {
    let schema = serde_json::from_str(&document.schema().unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(written).map(|it| it.to_string()).collect();
    assert_eq!(errors, [""; 0], "{written:#}");
}

#[test]
fn root_a_report_and_a_snapshot_of_this_host_are_valid() {
    let cgroup = ScratchCgroup::new("schema");
    let names = Names::new();
    plant(cgroup.path(), &names.leak, EGRESS, AttachFlags::MULTI);
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (1, vec!["orphaned_attachment".to_owned()]));
    check(Document::Report, &report);

    let output = audit(&["snapshot", "--program", &names.leak, "--root"])
        .arg(cgroup.path())
        .output()
        .unwrap();
    let snapshot: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
    assert_eq!(snapshot["looks"][0]["attachments"].as_array().unwrap().len(), 1, "{snapshot:#}");
    check(Document::Snapshot, &snapshot);

    let cleaned = |mode| {
        let output =
            audit(&["clean", "--format", "json", mode, "--program", &names.leak, "--root"])
                .arg(cgroup.path())
                .output()
                .unwrap();
        let json: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
        check(Document::Clean, &json);
        (output.status.code(), json)
    };
    let (status, planned) = cleaned("--dry-run");
    assert_eq!((status, &planned["dry_run"]), (Some(1), &true.into()), "{planned:#}");
    assert_eq!((&planned["summary"]["planned"], &planned["verdict"]), (&1.into(), &"leaks".into()));
    let step = &planned["steps"][0];
    assert_eq!((&step["outcome"], &step["action"]), (&"planned".into(), &"detach_program".into()));
    assert_eq!(step["cgroup"].as_str(), cgroup.relative().to_str());
    let (status, done) = cleaned("--yes");
    assert_eq!((status, &done["dry_run"]), (Some(0), &false.into()), "{done:#}");
    assert_eq!((&done["summary"]["removed"], &done["verdict"]), (&1.into(), &"clean".into()));
    assert_eq!(done["steps"][0]["program_id"], step["program_id"]);
    assert_eq!(attached(cgroup.path(), EGRESS), []);

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
}
