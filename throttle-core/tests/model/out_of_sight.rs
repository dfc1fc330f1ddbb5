//! Settling where something that a record names cannot be seen: its owner is in another pid namespace, its cgroup or its
//! pins are mounted elsewhere. What may live is left as it is.

use bpf::ledger::{Entry, Stage};
use kernel::boundary::{Links as _, Pins as _};
use sim::World;
use throttle_core::Error;
use throttle_core::mode::Wish;
use throttle_core::settle::settle;
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;

/// As if cgroup2 were mounted elsewhere now.
fn mounted_elsewhere(entry: &mut Entry) {
    entry.cgroup_path = "/nowhere".into();
}

/// As if the bpffs were.
fn pins_elsewhere(entry: &mut Entry) {
    for attachment in &mut entry.attachments {
        attachment.pin = Some("/sys/fs/bpf/nowhere/x".into());
    }
}

/// As if the owner of the first entry were in another pid namespace.
fn owner_elsewhere(entry: &mut Entry) {
    entry.owner.pid_namespace += 1;
}

#[test]
fn an_owner_of_another_pid_namespace_is_not_said_to_run_and_keeps_what_it_may_have() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Legacy);
    host.edit(owner_elsewhere);
    let error = host.remove_recorded("1").unwrap_err();
    assert!(matches!(error, Error::OwnerUnknown { elsewhere: true, .. }), "{error}");
    assert_removed(&host.settle(), &[]);
    assert_eq!((host.attached(&cgroup), host.entries().len()), (3, 1));
    assert_eq!(host.entries()[0].stage, Stage::Attached);
}

/// Whoever it was held them for as long as it lived.
#[test]
fn a_record_whose_programs_are_all_gone_is_dropped_whoever_its_owner_is() {
    for by_name in [true, false] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, Wish::Legacy);
        host.edit(owner_elsewhere);
        host.kernel.remove_cgroup(&cgroup).unwrap();
        if by_name {
            assert!(host.remove_recorded("1").unwrap().was_only_record);
        } else {
            assert_forgotten(&host.settle(), &["1"]);
        }
        assert!(host.is_clean(), "{by_name}");
    }
}

/// One program is enough for a throttle that may live, attached or not.
#[test]
fn a_record_with_a_program_that_exists_stays_its_owners() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    let id = engine.add(&spec(&cgroup, Wish::Link)).unwrap().id;
    host.kernel.remove_cgroup(&cgroup).unwrap();
    engine.wait_for_cgroup(id).unwrap();
    host.edit(owner_elsewhere);
    assert!(matches!(host.remove_recorded("1"), Err(Error::OwnerUnknown { .. })));
    assert_removed(&host.settle(), &[]);
    assert_eq!(host.entries().len(), 1);
    host.edit(|entry| entry.attachments.iter_mut().for_each(|it| it.loaded_at_ns += 1));
    assert!(host.remove_recorded("1").unwrap().was_only_record, "the ids are others'");
}

/// Where the bpffs is mounted, it is meant and can be removed.
#[test]
fn a_throttle_whose_pins_are_out_of_sight_is_left_as_it_is() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(pins_elsewhere);
    let before = host.entries();
    let error = host.remove_recorded("1").unwrap_err();
    assert!(matches!(error, Error::PinOutOfSight { .. }), "{error}");
    assert!(host.process().start().rearm("1").unwrap().is_none(), "it is armed");
    assert_eq!((host.entries(), host.attached(&cgroup)), (before, 3));
    for attachment in &host.entries()[0].attachments {
        let link = host.kernel.link_open(attachment.link_id.unwrap()).unwrap();
        host.kernel.link_detach(&link).unwrap();
    }
    let rearmed = host.process().start().rearm("1");
    assert!(matches!(rearmed, Err(Error::PinOutOfSight { .. })), "it could not let go of the pins");
    host.remove_recorded("1").unwrap();
    assert!(host.entries().is_empty());
}

/// Another start, where the bpffs is not mounted: whoever sees the pins lets go of them when their last socket is closed.
#[test]
fn what_a_throttle_was_before_stays_recorded_while_its_links_live_out_of_sight() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    for is_same in [false, true] {
        host.edit(|entry| {
            pins_elsewhere(entry);
            let former = kernel::CgroupId(entry.cgroup_id.0 + u64::from(!is_same));
            entry.attachments.iter_mut().for_each(|it| it.former_cgroup = Some(former));
        });
        let before = host.entries();
        assert_removed(&host.settle(), &[]);
        assert_eq!((host.entries(), host.attached(&cgroup)), (before, 3), "{is_same}");
    }
}

/// Nobody says of an owner that it has died who may not even look for its programs.
#[test]
fn who_may_not_look_at_programs_leaves_an_owner_of_another_pid_namespace_alone() {
    let host = Host::boot();
    host.crash(&host.cgroup("a"), Wish::Legacy);
    host.edit(owner_elsewhere);
    let process = host.process();
    let settled = |nth| {
        process.control.plan(Some(Fault { nth, mishap: Mishap::Fail(Fail::EPERM) }));
        let settlement = settle(&process.faulty(), &host.ledger(), BOOT).unwrap();
        assert!(settlement.removed.is_empty() && settlement.forgotten.is_empty(), "{settlement:?}");
        settlement.failed
    };
    let failed: Vec<_> = (0..9).flat_map(settled).collect();
    let is_of_a_program = |error: &Error| format!("{error:?}").contains("FdById");
    assert!(!failed.iter().any(|(_, error)| is_of_a_program(error)), "{failed:?}");
    assert_eq!(host.entries().len(), 1);
}

#[test]
fn a_pinned_throttle_stays_where_only_its_cgroup_is_mounted_elsewhere() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(mounted_elsewhere);
    assert_removed(&host.settle(), &[]);
    assert_eq!((host.attached(&cgroup), host.entries().len()), (3, 1));
    // Its pins are enough to take it off.
    host.edit(|entry| entry.stage = Stage::Removing);
    assert_removed(&host.settle(), &["1"]);
    assert!(host.is_clean());
}

/// A ledger that was written in one namespace, and is read in another.
#[test]
fn another_cgroup_at_the_recorded_path_is_left_alone_and_told_of() {
    let host = Host::boot();
    let (cgroup, namesake) = (host.cgroup("a"), host.cgroup("b"));
    host.crash(&cgroup, Wish::Legacy);
    host.edit(|entry| entry.cgroup_path.clone_from(&namesake));
    let (mut engine, _) = host.process().try_start().unwrap();
    engine.add(&spec(&namesake, Wish::Link)).unwrap();
    let settlement = host.settle();
    assert_failed(&settlement);
    let said = settlement.failed[0].1.to_string();
    assert!(said.contains("that is another one here, id"), "{said}");
    assert_eq!((host.attached(&cgroup), host.attached(&namesake)), (3, 3));
    assert_eq!(host.entries().len(), 1);
}

#[test]
fn a_program_whose_cgroup_cannot_be_found_is_not_taken_for_gone() {
    for wish in [Wish::Pinned, Wish::Legacy] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, wish);
        host.edit(|entry| {
            mounted_elsewhere(entry);
            if wish == Wish::Pinned {
                pins_elsewhere(entry);
                entry.stage = Stage::Removing;
            }
        });
        let settlement = host.settle();
        assert_failed(&settlement);
        assert!(settlement.failed[0].1.to_string().contains("cannot be found as /nowhere"));
        assert_eq!((host.attached(&cgroup), host.entries().len()), (3, 1), "{wish:?}");
    }
}

#[test]
fn where_its_cgroup_cannot_be_found_a_program_that_is_gone_was_taken_off() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Legacy);
    host.kernel.remove_cgroup(&cgroup).unwrap();
    assert_forgotten(&host.settle(), &["1"]);
    assert!(host.is_clean());
}

/// The other throttle keeps the programs, which are the same, so that only the links can tell.
#[test]
fn where_its_cgroup_cannot_be_found_a_program_whose_link_is_gone_was_taken_off() {
    for elsewhere in [false, true] {
        let host = Host::boot();
        let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
        host.crash_with(&[spec(&cgroup, Wish::Pinned), spec(&other, Wish::Pinned)]);
        for attachment in &host.entries()[0].attachments {
            let pin = attachment.pin.as_ref().unwrap();
            if elsewhere {
                // Defunct, while its pin is there still, where nobody looks.
                let link = host.kernel.link_open_pinned(pin).unwrap();
                host.kernel.link_detach(&link).unwrap();
            } else {
                host.kernel.unpin(pin).unwrap();
            }
        }
        host.edit(|entry| {
            entry.stage = Stage::Removing;
            mounted_elsewhere(entry);
            pins_elsewhere(entry);
        });
        assert_forgotten(&host.settle(), &["1"]);
        assert_eq!(host.attached(&other), 3);
    }
}

/// Its owner died before it wrote down which links there are.
#[test]
fn where_its_cgroup_cannot_be_found_a_program_whose_pinned_link_was_detached_was_taken_off() {
    let host = Host::boot();
    let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
    host.crash_with(&[spec(&cgroup, Wish::Pinned), spec(&other, Wish::Pinned)]);
    host.edit(|entry| {
        mounted_elsewhere(entry);
        entry.stage = Stage::Intent;
        for attachment in &mut entry.attachments {
            attachment.link_id = None;
        }
    });
    assert_removed(&host.settle(), &["1"]);
    assert_eq!((host.attached(&cgroup), host.attached(&other)), (0, 3));
}

/// A number can be given to another link, of another program.
#[test]
fn a_link_that_has_the_number_of_ours_is_not_taken_for_it() {
    let host = Host::boot();
    let (cgroup, other, third) = (host.cgroup("a"), host.cgroup("b"), host.cgroup("c"));
    host.crash_with(&[spec(&cgroup, Wish::Pinned), spec(&other, Wish::Pinned)]);
    host.crash(&third, Wish::Pinned);
    let entries = host.entries();
    for attachment in &entries[0].attachments {
        host.kernel.unpin(attachment.pin.as_ref().unwrap()).unwrap();
    }
    host.edit(|entry| {
        entry.stage = Stage::Removing;
        mounted_elsewhere(entry);
        pins_elsewhere(entry);
        for (ours, theirs) in entry.attachments.iter_mut().zip(&entries[2].attachments) {
            ours.link_id = theirs.link_id;
        }
    });
    assert_forgotten(&host.settle(), &["1"]);
    assert_eq!((host.attached(&other), host.attached(&third)), (3, 3));
}

/// Its pins are gone, but somebody holds its links: said to be removed it must not be.
#[test]
fn a_program_that_is_on_its_cgroup_still_is_told_of() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.edit(|entry| {
        entry.stage = Stage::Removing;
        pins_elsewhere(entry);
    });
    let settlement = host.settle();
    assert_failed(&settlement);
    let said = settlement.failed[0].1.to_string();
    assert!(said.contains("not mounted here"), "{said}");
    assert_eq!(host.entries().len(), 1);
}

#[test]
fn one_that_cannot_be_settled_keeps_no_other_from_it() {
    let host = Host::boot();
    let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
    host.crash_with(&[spec(&cgroup, Wish::Legacy), spec(&other, Wish::Legacy)]);
    host.edit(mounted_elsewhere);
    let settlement = host.settle();
    let removed: Vec<_> = settlement.removed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((removed, settlement.failed.len()), (vec!["2"], 1), "{settlement:?}");
    assert_eq!((host.attached(&cgroup), host.attached(&other)), (3, 0));
}
