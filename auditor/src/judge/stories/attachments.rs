//! Tests the rules for attachments.

use bpf::Owner;
use bpf::ledger::Stage;

use crate::facts::Snapshot;
use crate::judge::Finding::{
    Active, DisarmedAttachment, Foreign, OrphanedAttachment, OrphanedPin, Pinned, StackedDuplicate,
    Unknown, UnreachableProgram,
};
use crate::judge::{Finding, Source, Verdict, classify};
use crate::story::*;

#[test]
fn a_process_that_merely_holds_a_dead_owners_program_is_not_its_owner() {
    let mut host = orphan();
    host.hold(99, &[program(41)]);
    assert_eq!(attachments(&host), [OrphanedAttachment]);
    let reason = reason(&host);
    assert!(reason.contains("process 4711, is dead"), "{reason}");
    assert!(reason.contains("99 (somebody) did not make it"), "{reason}");
}

#[test]
fn without_metadata_a_holder_is_the_owner() {
    let mut host = host();
    host.program(41, None);
    host.attach(41, A, IN);
    assert_eq!(attachments(&host), [OrphanedAttachment]);
    host.hold(99, &[program(41)]);
    assert_eq!(attachments(&host), [Active]);
    let classified = classify(&host);
    let owner = classified.attachments.last().unwrap().owner.unwrap();
    assert_eq!((owner.pid, owner.alive, owner.source), (99, Some(true), Source::Holder));
}

/// Returns a host with a legacy attachment whose owner is in another pid namespace.
fn from_a_container() -> Snapshot {
    let mut host = host();
    let owner = Owner { pid_namespace: 1, ..owner(7) };
    host.program(41, Some(&owner));
    host.owner_lives(&owner, None);
    host.attach(41, A, IN);
    host
}

#[test]
fn an_owner_in_another_pid_namespace_lives_as_long_as_somebody_holds_the_program() {
    let mut host = from_a_container();
    assert_eq!(attachments(&host), [OrphanedAttachment]);
    host.hold(30_007, &[program(41)]);
    assert_eq!(attachments(&host), [Active]);
}

#[test]
fn an_owner_that_may_live_out_of_sight_is_a_gap_and_not_a_leak() {
    let mut inside = from_a_container();
    inside.host.pid_namespace = 4_026_532_000;
    assert_eq!(attachments(&inside), [Unknown]);
    assert_eq!(classify(&inside).verdict, Verdict::Incomplete);
}

#[test]
fn an_owner_of_another_boot_is_dead_whoever_has_its_pid() {
    let mut host = host();
    let owner = Owner { boot_id: "another".into(), ..owner(4711) };
    host.program(41, Some(&owner));
    host.owner_lives(&owner, Some(true));
    host.attach(41, A, IN);
    assert_eq!(attachments(&host), [OrphanedAttachment]);
}

#[test]
fn what_the_ledger_records_as_meant_to_stay_is_pinned() {
    let mut host = orphan();
    host.record(&owner(4711), 41, A);
    assert_eq!(attachments(&host), [Pinned]);
}

#[test]
fn an_entry_of_the_ledger_stands_for_nothing_but_what_it_names() {
    type Change = fn(&mut bpf::ledger::Entry);
    let changes: [(&str, Change); 8] = [
        ("boot", |entry| entry.owner.boot_id = "another".into()),
        ("cgroup", |entry| entry.cgroup_id.0 += 1),
        ("attach type", |entry| entry.attachments[0].attach_type = EG),
        ("program", |entry| entry.attachments[0].program_id.0 += 1),
        ("tag", |entry| entry.attachments[0].tag = "0000000000000000".into()),
        ("load time", |entry| entry.attachments[0].loaded_at_ns += 1),
        ("stage", |entry| entry.stage = Stage::Removing),
        ("persist", |entry| entry.persist = false),
    ];
    for (what, change) in changes {
        let mut host = orphan();
        change(host.record(&owner(4711), 41, A));
        assert_eq!(attachments(&host), [OrphanedAttachment], "{what}");
    }
}

#[test]
fn a_record_keeps_what_it_has_attached_to_stay_and_nothing_half_done() {
    type Place = fn(&mut Snapshot);
    // Three places: a legacy attachment, one through a pinned link, and a device program through a pinned link.
    let places: [(&str, Place, Finding); 3] = [
        ("legacy", |_| {}, OrphanedAttachment),
        (
            "link",
            |host| {
                host.link(11, 41, A, IN);
                host.pin("/sys/fs/bpf/chadthrottle/1/in", link(11));
            },
            OrphanedPin,
        ),
        (
            "device",
            |host| {
                host.look().attachments.pop();
                host.look().programs.pop();
                host.device_program(41, &owner(4711));
                host.device_link(31, 41, 2);
                host.pin("/sys/fs/bpf/chadthrottle/1/queue", link(31));
            },
            OrphanedPin,
        ),
    ];
    for (what, place, leak) in places {
        for stage in [Stage::Intent, Stage::Attached, Stage::Removing] {
            for persist in [false, true] {
                for lives in [false, true] {
                    let mut host = orphan();
                    place(&mut host);
                    host.look().owners[0].alive = Some(lives);
                    let entry = host.record(&owner(4711), 41, A);
                    (entry.stage, entry.persist) = (stage, persist);
                    let expected = match (lives, persist, stage) {
                        // A pinned link counts as pinned, whether or not the owner is running.
                        (_, true, Stage::Attached) if what == "link" => Pinned,
                        (true, ..) => Active,
                        (false, true, Stage::Attached) => Pinned,
                        _ => leak,
                    };
                    let found = [attachments(&host), programs(&host)].concat();
                    assert_eq!(found, [expected], "{what} {stage:?} {persist} {lives}");
                }
            }
        }
    }
}

#[test]
fn any_of_several_records_keeps_it() {
    for kept in 0..3 {
        let mut host = orphan();
        for number in 0..3 {
            let entry = host.record(&owner(4711), 41, A);
            entry.stage = if number == kept { Stage::Attached } else { Stage::Removing };
        }
        assert_eq!(attachments(&host), [Pinned], "{kept}");
    }
}

#[test]
fn a_living_owner_in_the_ledger_stands_for_it_at_any_stage() {
    let mut host = orphan();
    let heir = owner(4712);
    host.owner_lives(&heir, Some(true));
    let entry = host.record(&heir, 41, A);
    (entry.stage, entry.persist) = (Stage::Removing, false);
    assert_eq!(attachments(&host), [Active]);
}

/// Returns a host with a dead owner's program 41 on cgroup A through link 11.
fn linked() -> Snapshot {
    let mut host = orphan();
    host.link(11, 41, A, IN);
    host
}

#[test]
fn a_link_that_nothing_visible_holds_is_unreachable() {
    assert_eq!(attachments(&linked()), [UnreachableProgram]);
}

#[test]
fn a_link_that_a_stranger_holds_for_a_dead_owner_is_orphaned() {
    let mut host = linked();
    host.hold(99, &[link(11)]);
    assert_eq!(attachments(&host), [OrphanedAttachment]);
}

#[test]
fn a_pin_is_orphaned_unless_it_is_recorded_or_its_owner_lives() {
    let mut host = linked();
    host.pin("/sys/fs/bpf/x", link(11));
    assert_eq!(attachments(&host), [OrphanedPin]);

    let mut recorded = host.clone();
    recorded.record(&owner(4711), 41, A);
    assert_eq!(attachments(&recorded), [Pinned]);

    host.look().owners[0].alive = Some(true);
    assert_eq!(attachments(&host), [Active]);
}

#[test]
fn a_pin_of_the_program_that_serves_another_cgroup_does_not_excuse_an_orphan() {
    let mut host = orphan();
    host.pin("/sys/fs/bpf/x", program(41));
    assert_eq!(attachments(&host), [OrphanedPin]);
    host.attach(41, 77, IN);
    host.record(&owner(4711), 41, 77);
    assert_eq!(attachments(&host), [OrphanedAttachment, Pinned]);
}

#[test]
fn a_throttle_that_its_living_owner_disarmed_is_left_over() {
    let mut host = linked();
    host.look().owners[0].alive = Some(true);
    host.look().attachments.last_mut().unwrap().state = Some(state(false));
    assert_eq!(attachments(&host), [DisarmedAttachment]);
    host.look().attachments.last_mut().unwrap().state = Some(state(true));
    assert_eq!(attachments(&host), [Active]);
}

#[test]
fn of_one_program_at_one_place_a_link_is_kept_over_a_legacy_attachment() {
    let mut host = linked();
    host.look().owners[0].alive = Some(true);
    host.attach(41, A, IN);
    for fact in &mut host.look().attachments {
        fact.state = Some(state(true));
    }
    assert_eq!(attachments(&host), [StackedDuplicate, Active]);
    let classified = classify(&host);
    assert_eq!(classified.leaks().next().unwrap().link, None);
}

#[test]
fn of_two_links_of_one_program_at_one_place_the_recorded_one_is_kept() {
    let mut host = linked();
    host.look().owners[0].alive = Some(true);
    host.attach(41, A, IN);
    host.link(12, 41, A, IN);
    assert_eq!(attachments(&host), [StackedDuplicate, Active]);
    host.record(&owner(4711), 41, A).attachments[0].link_id = Some(kernel::LinkId(11));
    assert_eq!(attachments(&host), [Active, StackedDuplicate]);
}

/// Returns a host with two programs of one process on the same cgroup and attach type. Neither has throttle state.
fn reloaded() -> Snapshot {
    let mut host = host();
    host.program(41, None);
    host.program(42, None);
    host.attach(42, A, IN);
    host.attach(41, A, IN);
    host.hold(99, &[program(41), program(42)]);
    host
}

#[test]
fn of_an_owners_programs_without_a_state_the_one_that_was_loaded_last_is_meant() {
    let mut host = reloaded();
    assert_eq!(attachments(&host), [Active, StackedDuplicate]);
    for fact in &mut host.look().programs {
        fact.loaded.loaded_at_ns = 5;
    }
    assert_eq!(attachments(&host), [Active, StackedDuplicate], "of the same age, the higher id");
    host.look()
        .programs
        .iter_mut()
        .find(|fact| fact.loaded.id.0 == 41)
        .unwrap()
        .loaded
        .loaded_at_ns = 6;
    assert_eq!(attachments(&host), [StackedDuplicate, Active]);
}

#[test]
fn programs_with_a_state_are_all_meant() {
    let mut host = reloaded();
    for fact in &mut host.look().attachments {
        fact.state = Some(state(true));
    }
    assert_eq!(attachments(&host), [Active, Active]);
}

#[test]
fn what_differs_in_name_place_or_owner_is_no_duplicate() {
    let mut named = reloaded();
    named.look().programs.last_mut().unwrap().loaded.name = "chadthrottle_eg".into();
    assert_eq!(attachments(&named), [Active, Active], "name");

    let mut elsewhere = reloaded();
    elsewhere.look().attachments.last_mut().unwrap().attach_type = EG;
    assert_eq!(attachments(&elsewhere), [Active, Active], "attach type");
    elsewhere.look().attachments.last_mut().unwrap().attach_type = IN;
    elsewhere.look().attachments.last_mut().unwrap().cgroup_id.0 += 1;
    assert_eq!(attachments(&elsewhere), [Active, Active], "cgroup");

    let mut shared = reloaded();
    shared.look().holders.pop();
    shared.hold(99, &[program(41)]);
    shared.hold(100, &[program(42)]);
    assert_eq!(attachments(&shared), [Active, Active], "owner");
}

#[test]
fn what_the_ledger_records_is_meant_beside_a_newer_one() {
    let mut host = reloaded();
    host.record(&owner(4711), 41, A);
    assert_eq!(attachments(&host), [Active, Active]);
}

#[test]
fn a_program_whose_info_was_not_read_is_left_alone_and_is_a_gap() {
    let mut host = host();
    host.attach(41, A, IN);
    let classified = classify(&host);
    assert_eq!(classified.attachments.last().unwrap().finding, Foreign);
    assert_eq!(classified.verdict, Verdict::Incomplete);
    assert_eq!(classified.gaps[0].what, "program 41 on /cgroup-9310, cgroup_inet_ingress");
}
