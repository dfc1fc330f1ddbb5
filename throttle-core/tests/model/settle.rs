//! What dead owners left behind: settled at the next start, or removed by its name.

use bpf::Owner;
use bpf::ledger::Stage;
use kernel::boundary::{Cgroups as _, Links as _, Pins as _, Programs as _};
use sim::World;
use throttle_core::mode::Wish;
use throttle_core::settle::remove_recorded;
use throttle_core::{Action, Error};
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;

#[test]
fn the_next_start_says_what_it_removed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Legacy);
    let settlement = host.settle();
    assert_eq!(settlement.removed, [("1".to_owned(), cgroup)]);
    assert!(host.is_clean());
    assert_removed(&host.settle(), &[]);
}

/// As `clean` leaves it.
#[test]
fn what_others_have_taken_off_is_not_said_to_be_removed() {
    for (with_cgroup, by_name) in [(true, false), (false, false), (true, true)] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        // It keeps the programs loaded.
        let other = host.cgroup("b");
        host.crash_with(&[spec(&cgroup, Wish::Legacy), spec(&other, Wish::Pinned)]);
        let open = host.kernel.open_cgroup(&cgroup).unwrap();
        for recorded in &host.entries()[0].attachments {
            let program = host.kernel.open_program(recorded.program_id).unwrap();
            host.kernel.detach(&program, &open, recorded.attach_type, None).unwrap();
        }
        if !with_cgroup {
            host.remove_recorded("2").unwrap();
            host.kernel.remove_cgroup(&cgroup).unwrap();
        }
        if by_name {
            assert!(host.remove_recorded("1").unwrap().was_only_record);
        } else {
            assert_forgotten(&host.settle(), &["1"]);
        }
        let kept = if with_cgroup { (3, 1) } else { (0, 0) };
        assert_eq!((host.attached(&other), host.entries().len()), kept);
    }
}

#[test]
fn a_file_that_is_no_entry_is_told_of_and_left_alone() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(|entry| entry.schema_version = 99);
    let settlement = host.settle();
    assert_eq!(settlement.unreadable.len(), 1, "{settlement:?}");
    assert_eq!(host.attached(&cgroup), 3);
}

#[test]
fn a_record_that_cannot_be_read_is_not_said_to_be_none() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(|entry| entry.schema_version = 99);
    let told = [host.remove_recorded("1").map(drop), host.process().start().rearm("1").map(drop)];
    for told in told {
        let error = told.unwrap_err();
        assert!(matches!(error, Error::Ledger { action: Action::Read, .. }), "{error}");
        assert!(error.to_string().contains("99"), "{error}");
    }
    assert!(matches!(host.remove_recorded("2"), Err(Error::NoSuchRecord(_))));
    assert_eq!(host.attached(&cgroup), 3);
}

#[test]
fn an_entry_of_another_boot_is_forgotten_and_nothing_is_removed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Legacy);
    host.edit(|entry| entry.owner.boot_id = "another".to_owned());
    assert_forgotten(&host.settle(), &["1"]);
    assert!(host.entries().is_empty());
    assert_eq!(host.attached(&cgroup), 3);
}

#[test]
fn a_pinned_throttle_that_was_not_finished_is_removed() {
    for stage in [Stage::Intent, Stage::Removing] {
        let host = Host::boot();
        host.crash(&host.cgroup("a"), Wish::Pinned);
        host.edit(|entry| entry.stage = stage);
        assert_removed(&host.settle(), &["1"]);
        assert!(host.is_clean(), "{stage:?}");
    }
}

#[test]
fn a_pinned_throttle_waits_without_its_cgroup_until_it_is_removed_by_its_name() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.kernel.remove_cgroup(&cgroup).unwrap();
    // Another one of that name is not its.
    host.cgroup("a");
    assert_removed(&host.settle(), &[]);
    assert_eq!((host.attached(&cgroup), host.entries().len()), (0, 1));
    host.remove_recorded("1").unwrap();
    assert!(host.is_clean());
}

/// An older version has not written what it allows, so that nobody can arm it again.
#[test]
fn a_pinned_throttle_whose_limits_nobody_knows_ends_with_its_cgroup() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(|entry| entry.attachments.iter_mut().for_each(|it| it.limits = None));
    assert_removed(&host.settle(), &[]);
    host.kernel.remove_cgroup(&cgroup).unwrap();
    assert_removed(&host.settle(), &["1"]);
    assert!(host.is_clean());
}

#[test]
fn what_a_living_owner_has_is_not_settled() {
    for wish in [Wish::Pinned, Wish::Legacy] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let mut engine = host.process().start();
        engine.add(&spec(&cgroup, wish)).unwrap();
        assert_removed(&host.settle(), &[]);
        assert_eq!((host.attached(&cgroup), host.entries().len()), (3, 1));
    }
}

#[test]
fn by_its_name_only_that_throttle_of_this_boot_is_removed() {
    let host = Host::boot();
    assert!(matches!(host.remove_recorded("1"), Err(Error::NoSuchRecord(_))));
    assert!(!host.ledger().exists());
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    host.crash(&one, Wish::Pinned);
    host.crash(&two, Wish::Pinned);
    let removed = host.remove_recorded("2").unwrap().entry;
    assert_eq!((removed.throttle.as_str(), removed.cgroup_path), ("2", two.clone()));
    assert_eq!((host.attached(&one), host.attached(&two), host.entries().len()), (3, 0, 1));
    assert!(matches!(host.remove_recorded("2"), Err(Error::NoSuchRecord(_))));
    host.edit(|entry| entry.owner.boot_id = "another".to_owned());
    assert!(matches!(host.remove_recorded("1"), Err(Error::NoSuchRecord(_))));
    assert_eq!((host.attached(&one), host.entries().len()), (3, 1));
}

#[test]
fn what_is_in_a_living_owners_hands_is_not_removed_by_its_name() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    engine.add(&spec(&cgroup, Wish::Pinned)).unwrap();
    for (stage, persist) in
        [(Stage::Intent, true), (Stage::Removing, true), (Stage::Attached, false)]
    {
        host.edit(|entry| (entry.stage, entry.persist) = (stage, persist));
        let error = host.remove_recorded("1").unwrap_err();
        let pid = process.kernel.process();
        assert!(matches!(error, Error::OwnerLives { pid: told, .. } if told == pid), "{error}");
        assert_eq!((host.attached(&cgroup), host.entries().len()), (3, 1));
    }
    host.edit(|entry| (entry.stage, entry.persist) = (Stage::Attached, true));
    host.remove_recorded("1").unwrap();
    assert_eq!((host.attached(&cgroup), host.entries().len()), (0, 0));
}

/// Where its owner is dead, nobody else can.
#[test]
fn what_a_dead_owner_has_not_finished_can_be_removed_by_its_name() {
    for wish in [Wish::Pinned, Wish::Legacy] {
        let host = Host::boot();
        host.crash(&host.cgroup("a"), wish);
        host.edit(|entry| entry.stage = Stage::Removing);
        host.remove_recorded("1").unwrap();
        assert!(host.is_clean(), "{wish:?}");
    }
}

/// Should it die half way, the next start finishes the removal.
#[test]
fn a_removal_by_name_that_fails_is_marked_as_one() {
    let host = Host::boot();
    host.crash(&host.cgroup("a"), Wish::Pinned);
    let process = host.process();
    let remove = |nth| {
        process.control.plan(Some(Fault { nth, mishap: Mishap::Fail(Fail::EPERM) }));
        remove_recorded(&process.faulty(), &host.ledger(), "1", BOOT).unwrap_err();
        host.entries()[0].stage
    };
    assert_eq!((1..9).map(remove).find(|it| *it == Stage::Removing), Some(Stage::Removing));
    assert_removed(&host.settle(), &["1"]);
    assert!(host.is_clean());
}

#[test]
fn a_pin_of_anothers_link_is_not_touched() {
    let host = Host::boot();
    let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
    host.crash(&cgroup, Wish::Pinned);
    host.crash(&other, Wish::Pinned);
    let entries = host.entries();
    for attachment in &entries[0].attachments {
        host.kernel.unpin(attachment.pin.as_ref().unwrap()).unwrap();
    }
    host.edit(|entry| {
        entry.stage = Stage::Removing;
        for (ours, theirs) in entry.attachments.iter_mut().zip(&entries[1].attachments) {
            ours.pin.clone_from(&theirs.pin);
        }
    });
    assert_forgotten(&host.settle(), &["1"]);
    assert_eq!(host.attached(&other), 3);
    host.remove_recorded("2").unwrap();
    assert!(host.is_clean());
}

/// As if ours had gone, and the kernel had given its id to another.
#[test]
fn a_program_that_has_the_id_of_ours_is_not_touched() {
    for wish in [Wish::Pinned, Wish::Legacy] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, wish);
        host.edit(|entry| {
            entry.stage = Stage::Removing;
            for attachment in &mut entry.attachments {
                attachment.loaded_at_ns += 1;
            }
        });
        assert_forgotten(&host.settle(), &["1"]);
        assert_eq!(host.attached(&cgroup), 3, "{wish:?}");
        assert!(host.entries().is_empty());
    }
}

#[test]
fn the_folder_of_pins_that_were_never_made_is_removed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(|entry| entry.stage = Stage::Intent);
    for attachment in &host.entries()[0].attachments {
        let pin = attachment.pin.as_ref().unwrap();
        // Keeps the folder.
        let link = host.kernel.link_open_pinned(pin).unwrap();
        host.kernel.link_pin(&link, &pin.with_file_name("keeps")).ok();
        host.kernel.unpin(pin).unwrap();
        host.kernel.link_detach(&link).unwrap();
    }
    assert_forgotten(&host.settle(), &["1"]);
    assert!(host.entries().is_empty());
}

/// Of the dead one's number another process may have been given.
#[test]
fn a_removal_by_name_needs_no_owner_that_can_be_asked_for() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    let living = host.process().config.owner;
    host.edit(|entry| entry.owner = Owner { pid: living.pid, ..entry.owner.clone() });
    let process = host.process();
    remove_recorded(&process.faulty(), &process.config.ledger, "1", BOOT).unwrap();
    assert!(host.is_clean());
}
