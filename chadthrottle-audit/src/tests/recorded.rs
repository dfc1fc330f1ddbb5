//! Tests recorded snapshots, one for each finding, from the file to the text and the JSON.

use auditor::facts::Snapshot;
use auditor::judge::{Classified, Finding, classify};
use auditor::report::{Report, report};

use crate::text::render;
use crate::{remedy, story};

fn findings(classified: &Classified<'_>) -> Vec<Finding> {
    let judged = classified.attachments.iter().chain(&classified.programs);
    let devices = classified.devices.iter().map(|judged| judged.finding);
    judged.map(|judged| judged.finding).chain(devices).collect()
}

/// Checks the finding and both outputs as a user would see them.
fn check(finding: Finding) {
    let name = finding.name();
    let snapshot = story::recorded(name);
    let classified = classify(&snapshot);
    assert!(findings(&classified).contains(&finding), "{:?}", findings(&classified));
    let leaks = classified.leaks().count() + classified.leaked_devices().count();
    assert_eq!(leaks > 0, finding.is_leak());
    let report = report(&snapshot, &classified, finding == Finding::Foreign);
    insta::assert_snapshot!(format!("{name}-text"), render(&report, false, None));
    insta::assert_json_snapshot!(
        format!("{name}-json"),
        report.map_remedies(|steps| remedy::of_leak(&steps))
    );
}

macro_rules! recorded {
    ($($test:ident: $finding:ident,)*) => {
        $(#[test] fn $test() { check(Finding::$finding); })*
        #[test]
        fn there_is_a_recorded_snapshot_for_every_finding() {
            assert_eq!([$(Finding::$finding),*], Finding::ALL);
        }
    };
}

recorded! {
    a_throttle_whose_owner_lives_is_active: Active,
    a_throttle_that_is_recorded_as_meant_to_stay_is_pinned: Pinned,
    a_pinned_throttle_whose_cgroup_was_removed_waits: Waiting,
    programs_of_systemd_are_foreign: Foreign,
    what_names_no_owner_and_is_not_named_as_ours_is_unowned: Unowned,
    what_could_not_be_judged_is_unknown_and_not_active: Unknown,
    a_legacy_attachment_whose_owner_was_killed_is_orphaned: OrphanedAttachment,
    older_programs_of_a_process_that_attached_a_new_one_are_duplicates: StackedDuplicate,
    a_disarmed_throttle_of_a_living_owner_is_left_over: DisarmedAttachment,
    a_pinned_link_of_a_dead_owner_that_got_no_further_than_its_intent_is_orphaned: OrphanedPin,
    a_link_whose_cgroup_died_is_defunct: DefunctLink,
    programs_of_an_owner_that_throttles_nothing_are_unattached: UnattachedProgram,
    what_nothing_visible_holds_is_unreachable: UnreachableProgram,
    the_queue_of_an_owner_that_was_killed_leaves_its_device: OrphanedDevice,
}

#[test]
fn a_snapshot_and_a_report_come_back_from_json_as_they_were() {
    for finding in Finding::ALL {
        let snapshot = story::recorded(finding.name());
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
        let written = Report {
            root: String::new(),
            scope_options: String::new(),
            has_every_type: false,
            ..report(&snapshot, &classify(&snapshot), true)
                .map_remedies(|steps| remedy::of_leak(&steps))
        };
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Report<String>>(&text).unwrap(), written);
    }
}
