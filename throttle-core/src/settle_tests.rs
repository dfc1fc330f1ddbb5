use bpf::Owner;
use kernel::CgroupId;

use super::*;

fn entry(persist: bool, stage: Stage) -> Entry {
    Entry {
        schema_version: bpf::ledger::SCHEMA_VERSION,
        throttle: "1".to_owned(),
        owner: Owner {
            pid: 1,
            start_time: 1,
            pid_namespace: 1,
            boot_id: "now".to_owned(),
            version: "0".to_owned(),
        },
        stage,
        persist,
        cgroup_path: "/nowhere".into(),
        cgroup_id: CgroupId(1),
        attachments: Vec::new(),
        waiting: false,
        cgroup_namespace: 0,
        cgroup_top: None,
        displace: false,
    }
}

#[test]
fn a_living_owner_means_whatever_it_has_written() {
    for persist in [false, true] {
        for stage in [Stage::Intent, Stage::Attached, Stage::Removing] {
            assert!(is_meant(&entry(persist, stage), Some(true), true));
            // An owner with an unknown fate may be alive.
            assert!(is_meant(&entry(persist, stage), None, true));
        }
    }
}

#[test]
fn of_a_dead_owner_only_what_was_finished_and_is_to_persist_is_meant() {
    for (persist, stage, meant) in [
        (true, Stage::Attached, true),
        (true, Stage::Intent, false),
        (true, Stage::Removing, false),
        (false, Stage::Attached, false),
        (false, Stage::Intent, false),
        (false, Stage::Removing, false),
    ] {
        assert_eq!(
            is_meant(&entry(persist, stage), Some(false), true),
            meant,
            "{persist} {stage:?}"
        );
    }
}

#[test]
fn without_its_cgroup_what_was_to_persist_waits_if_it_can_be_armed_again() {
    let mut entry = entry(true, Stage::Attached);
    assert!(!is_meant(&entry, Some(false), false), "an older version's");
    entry.attachments.push(RecordedAttachment {
        attach_type: kernel::AttachType::INET_EGRESS,
        program_id: kernel::ProgramId(1),
        tag: "1".to_owned(),
        loaded_at_ns: 1,
        link_id: None,
        pin: None,
        limits: serde_json::from_str(r#"{"rate": 1000, "burst_ns": 1, "traffic": "all"}"#).unwrap(),
        former_cgroup: None,
    });
    assert!(is_meant(&entry, Some(false), false));
    for (persist, stage) in
        [(true, Stage::Intent), (true, Stage::Removing), (false, Stage::Attached)]
    {
        let entry = Entry { persist, stage, ..entry.clone() };
        assert!(!is_meant(&entry, Some(false), false), "{persist} {stage:?}");
    }
}
