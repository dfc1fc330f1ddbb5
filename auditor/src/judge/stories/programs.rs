//! Tests the rules for programs without an attachment.

use bpf::ledger::{RecordedLimits, Stage};
use kernel::{CgroupId, LinkId};

use crate::facts::{Snapshot, Subject};
use crate::judge::Finding::{
    Active, DefunctLink, OrphanedPin, UnattachedProgram, UnreachableProgram, Waiting,
};
use crate::judge::{Source, Verdict, classify};
use crate::story::*;

/// Returns a host with program 41 of a running owner, attached nowhere.
fn idle() -> Snapshot {
    let mut host = host();
    let owner = owner(4711);
    host.program(41, Some(&owner));
    host.owner_lives(&owner, Some(true));
    host.hold(4711, &[program(41)]);
    host
}

#[test]
fn a_program_of_an_owner_without_a_throttle_is_unattached() {
    assert_eq!(programs(&idle()), [UnattachedProgram]);
    let owner = classify(&idle()).programs[0].owner.unwrap();
    assert_eq!((owner.pid, owner.alive, owner.source), (4711, Some(true), Source::Metadata));
}

#[test]
fn the_other_direction_of_a_throttle_is_active() {
    let mut host = idle();
    host.program(42, Some(&owner(4711)));
    host.attach(42, A, EG);
    assert_eq!(programs(&host), [Active]);
    host.gap(Subject::Links);
    assert_eq!(programs(&host), [Active], "attached or not, its owner has use for it");
}

#[test]
fn anothers_throttle_does_not_excuse_an_idle_program() {
    let mut host = idle();
    host.program(42, Some(&owner(4712)));
    host.owner_lives(&owner(4712), Some(true));
    host.attach(42, A, EG);
    assert_eq!(programs(&host), [UnattachedProgram]);
}

#[test]
fn nothing_is_said_below_another_cgroup() {
    let mut host = idle();
    host.scope.root = "/system.slice".into();
    host.link(11, 41, 0, IN);
    assert_eq!(programs(&host), []);
    assert_eq!(classify(&host).verdict, Verdict::Clean);
}

#[test]
fn nothing_is_said_when_an_attach_type_of_the_program_was_not_asked_for() {
    let mut host = idle();
    host.scope.attach_types = vec![IN];
    host.look().coverage.attach_types = vec![IN];
    assert_eq!(programs(&host), []);
    host.scope.attach_types = vec![IN, EG];
    assert_eq!(programs(&host), [UnattachedProgram], "asked, even if this kernel knows only one");
}

#[test]
fn what_was_not_asked_for_is_in_doubt_only_where_a_pin_would_be_orphaned() {
    let mut host = idle();
    host.look().owners[0].alive = Some(false);
    host.scope.attach_types = vec![IN];
    host.gap(Subject::Links);
    assert_eq!(classify(&host).gaps.len(), 1);
    host.pin("/sys/fs/bpf/x", program(41));
    assert_eq!(classify(&host).gaps.len(), 2);
    assert_eq!(programs(&host), []);
}

#[test]
fn nothing_is_said_of_programs_that_may_be_attached_outside_of_cgroups() {
    for kind in ["lsm", "kprobe"] {
        let mut host = idle();
        host.look().programs.last_mut().unwrap().loaded.kind = kind.into();
        assert_eq!(programs(&host), [], "{kind}");
    }
}

#[test]
fn a_cgroup_that_could_not_be_seen_makes_it_a_gap_and_not_a_leak() {
    let mut host = idle();
    host.look().coverage.cgroups_denied = 1;
    let classified = classify(&host);
    assert_eq!(programs(&host), []);
    assert_eq!(classified.verdict, Verdict::Incomplete);
    assert!(classified.gaps.iter().any(|gap| gap.what == "program 41 (chadthrottle_in)"));

    host.look().coverage.cgroups_denied = 0;
    host.gap(Subject::Cgroups);
    assert_eq!(programs(&host), []);

    host.look().coverage.gaps.clear();
    host.look().coverage.cgroups_visited = 0;
    assert_eq!(programs(&host), []);
}

#[test]
fn what_an_owner_who_lives_left_idle_rests_on_no_pin_record_or_other_process() {
    for about in [Subject::Pins, Subject::Ledger, Subject::Processes] {
        let mut host = idle();
        host.gap(about);
        assert_eq!(programs(&host), [UnattachedProgram], "{about:?}");
    }
}

#[test]
fn a_pinned_program_is_orphaned_with_its_owner_and_unattached_before() {
    let mut host = idle();
    host.look().holders.pop();
    host.pin("/sys/fs/bpf/x", program(41));
    assert_eq!(programs(&host), [UnattachedProgram]);
    host.look().owners[0].alive = Some(false);
    assert_eq!(programs(&host), [OrphanedPin]);
    host.look().pins.clear();
    assert_eq!(programs(&host), [UnreachableProgram]);
}

#[test]
fn each_defunct_link_is_reported_beside_live_ones() {
    let mut host = idle();
    host.attach(41, A, IN);
    host.link(11, 41, A, IN);
    host.link(12, 41, 0, IN);
    host.link(13, 41, 0, EG);
    assert_eq!(programs(&host), [DefunctLink, DefunctLink]);
    assert_eq!(attachments(&host), [Active]);
}

#[test]
fn a_link_to_a_cgroup_that_is_not_in_the_tree_is_defunct() {
    let mut host = idle();
    host.link(11, 41, 5555, IN);
    assert_eq!(programs(&host), [DefunctLink]);
}

#[test]
fn a_link_that_could_be_alive_is_not_defunct() {
    let mut unseen = idle();
    unseen.link(11, 41, 5555, IN);
    unseen.gap(Subject::Cgroups);
    assert_eq!(programs(&unseen), [], "its cgroup may not have been seen");

    let mut unasked = idle();
    unasked.link(11, 41, 5555, IN);
    unasked.look().coverage.attach_types = vec![EG];
    assert_eq!(programs(&unasked), [], "its attach type was not asked for");

    let mut unknown = idle();
    unknown.link(11, 41, 5555, IN);
    unknown.look().links[0].attach_type = None;
    assert_eq!(programs(&unknown), [], "its attach type is unknown");

    let mut present = idle();
    present.link(11, 41, 1893, IN);
    assert_eq!(programs(&present), [], "its cgroup has other programs, so it exists");
}

#[test]
fn a_pinned_defunct_link_of_a_dead_owner_is_an_orphaned_pin_unless_recorded() {
    let mut host = idle();
    host.look().owners[0].alive = Some(false);
    host.link(11, 41, 0, IN);
    host.pin("/sys/fs/bpf/x", link(11));
    assert_eq!(programs(&host), [OrphanedPin]);
    host.record(&owner(4711), 41, A);
    assert_eq!(programs(&host), [DefunctLink]);
}

#[test]
fn a_pin_of_the_program_is_no_defunct_links_as_long_as_somebody_stands_for_the_program() {
    let mut host = idle();
    host.link(11, 41, 0, IN);
    host.pin("/sys/fs/bpf/x", program(41));
    assert_eq!(programs(&host), [DefunctLink]);
    assert!(classify(&host).programs[0].pins.is_empty());
    host.look().owners[0].alive = Some(false);
    assert_eq!(programs(&host), [OrphanedPin]);
}

#[test]
fn a_program_whose_owner_may_live_out_of_sight_is_a_gap_and_not_a_leak() {
    let mut host = idle();
    host.look().owners[0].alive = None;
    host.look().holders.clear();
    assert_eq!(programs(&host), [UnreachableProgram]);
    host.gap(Subject::Processes);
    assert_eq!(programs(&host), []);
    assert!(classify(&host).gaps.iter().any(|gap| gap.what == "program 41 (chadthrottle_in)"));
}

#[test]
fn programs_of_others_are_not_judged() {
    let mut host = host();
    host.look().attachments.clear();
    assert_eq!(programs(&host), []);
}

fn limits() -> RecordedLimits {
    serde_json::from_str(r#"{"rate": 125000, "burst_ns": 20000000, "traffic": "all"}"#).unwrap()
}

/// Returns a host with a pinned throttle that has a dead owner and a defunct link.
fn pinned_without_cgroup() -> Snapshot {
    let mut host = host();
    let owner = owner(4711);
    host.program(41, Some(&owner));
    host.owner_lives(&owner, Some(false));
    host.link(11, 41, 0, IN);
    host.pin("/sys/fs/bpf/chadthrottle/backup/download", link(11));
    let entry = host.record(&owner, 41, A);
    entry.attachments[0].link_id = Some(LinkId(11));
    entry.attachments[0].limits = Some(limits());
    host.look().removed_cgroups.push(CgroupId(A));
    host
}

#[test]
fn a_pinned_throttle_waits_only_if_its_cgroup_was_removed_and_it_is_its_link() {
    let waits = pinned_without_cgroup();
    assert_eq!(programs(&waits), [Waiting]);
    assert_eq!(classify(&waits).verdict, Verdict::Clean);
    let reason = classify(&waits).programs[0].reason.clone();
    assert!(reason.contains("'backup' waits for another cgroup at /sys/fs/cgroup/"), "{reason}");

    // Somebody has detached the link from a cgroup that still exists.
    let mut detached = pinned_without_cgroup();
    detached.look().removed_cgroups.clear();
    assert_eq!(programs(&detached), [DefunctLink]);
    let mut anothers = pinned_without_cgroup();
    anothers.look().ledger[0].attachments[0].link_id = Some(LinkId(12));
    assert_eq!(programs(&anothers), [DefunctLink]);
    // An older version did not record the limits, so nobody can arm the throttle again.
    let mut old = pinned_without_cgroup();
    old.look().ledger[0].attachments[0].limits = None;
    assert_eq!(programs(&old), [DefunctLink]);
    for stage in [Stage::Intent, Stage::Removing] {
        let mut unfinished = pinned_without_cgroup();
        unfinished.look().ledger[0].stage = stage;
        assert_eq!(programs(&unfinished), [OrphanedPin], "{stage:?}");
    }
}

/// Open sockets of the removed cgroup keep the cgroup's id on the link.
#[test]
fn a_pinned_throttle_waits_also_while_sockets_of_its_cgroup_are_open() {
    let mut host = pinned_without_cgroup();
    host.look().links[0].cgroup_id = CgroupId(A);
    assert_eq!(programs(&host), [Waiting]);
}

/// Returns a host with a running owner that has recorded that it waits for a cgroup.
fn waiting_owner() -> Snapshot {
    let mut host = idle();
    let entry = host.record(&owner(4711), 41, A);
    (entry.persist, entry.waiting) = (false, true);
    entry.attachments[0].link_id = Some(LinkId(11));
    host
}

#[test]
fn what_an_owner_keeps_that_waits_for_a_cgroup_is_no_leak() {
    let mut host = waiting_owner();
    assert_eq!(programs(&host), [Waiting]);
    assert_eq!(crate::story::made(&host).summary.waiting, 1);
    // No record names the program for the other direction.
    host.program(42, Some(&owner(4711)));
    host.hold(4711, &[program(42)]);
    assert_eq!(programs(&host), [Waiting, Active]);
    host.link(11, 41, 0, IN);
    host.hold(4711, &[link(11)]);
    assert_eq!(programs(&host), [Waiting, Active]);
    assert_eq!(classify(&host).verdict, Verdict::Clean);

    // The owner has ended, and another process holds its objects.
    host.look().owners[0].alive = Some(false);
    assert!(programs(&host).iter().all(|finding| finding.is_leak()), "{:?}", programs(&host));
}
