//! What a crash leaves, and who tidies up after it.

use std::fs;
use std::path::Path;

use bpf::ledger::{Entry, Stage};
use bpf::{LinuxBpf, Owner};
use testkit::cgroup::{ScratchCgroup, remove_tree};
use testkit::isolation::isolate;
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::Wish;
use throttle_core::settle::remove_recorded;
use throttle_core::{Config, Engine, Error};

use crate::common::*;

/// Adds a throttle whose owner then dies at once, without a chance to tidy up.
fn crash(cgroup: &Path, wish: Wish) {
    crash_as(&dead_owner(), cgroup, wish);
}

fn crash_as(owner: &Owner, cgroup: &Path, wish: Wish) {
    let config = Config { owner: owner.clone(), ..config() };
    let (mut engine, _) = Engine::start(LinuxBpf::new().unwrap(), config).unwrap();
    engine.add(&spec(cgroup, wish)).unwrap();
    // Neither detached nor dropped. (Its links stay open in this process: `link` is tried in the tests of
    // the program, with a real SIGKILL.)
    std::mem::forget(engine);
}

/// The only entry of the ledger.
fn entry() -> Entry {
    bpf::ledger::parse(&fs::read(&ledger_files()[0]).unwrap()).unwrap()
}

/// Rewrites it.
fn edit(edit: impl FnOnce(&mut Entry)) {
    let mut entry = entry();
    edit(&mut entry);
    fs::write(&ledger_files()[0], serde_json::to_vec(&entry).unwrap()).unwrap();
}

#[test]
fn root_the_next_start_detaches_what_a_crash_left_the_legacy_way() {
    isolate();
    let cgroup = ScratchCgroup::new("legacy");
    plant_foreign(cgroup.path(), EGRESS, "neighbour");
    crash(cgroup.path(), Wish::Legacy);
    assert_eq!(names(cgroup.path()).len(), 4);
    let (_engine, settlement) = start_and_settle();
    assert_eq!(settlement.removed, [("1".to_owned(), cgroup.path().to_owned())]);
    assert_eq!(names(cgroup.path()), ["neighbour"]);
    assert!(ledger_files().is_empty());
}

#[test]
fn root_a_pinned_throttle_outlives_its_owner_and_is_removed_by_name() {
    isolate();
    let cgroup = ScratchCgroup::new("pinned");
    crash(cgroup.path(), Wish::Pinned);
    let _engine = start();
    assert_eq!((names(cgroup.path()).len(), pins().len(), ledger_files().len()), (3, 3, 1));

    let (kernel, ledger) = (LinuxBpf::new().unwrap(), LedgerDir::new("/run/chadthrottle"));
    let boot = config().owner.boot_id;
    assert!(matches!(
        remove_recorded(&kernel, &ledger, "2", &boot),
        Err(Error::NoSuchRecord(name)) if name == "2"
    ));
    remove_recorded(&kernel, &ledger, "1", &boot).unwrap();
    assert!(names(cgroup.path()).is_empty() && pins().is_empty() && ledger_files().is_empty());
    assert!(!Path::new("/sys/fs/bpf/chadthrottle/1").exists());
}

#[test]
fn root_a_pinned_throttle_whose_owner_died_half_way_is_removed() {
    isolate();
    for stage in [Stage::Intent, Stage::Removing] {
        let cgroup = ScratchCgroup::new("halfway");
        crash(cgroup.path(), Wish::Pinned);
        edit(|entry| entry.stage = stage);
        let (_engine, settlement) = start_and_settle();
        assert_eq!(settlement.removed.len(), 1, "{stage:?}");
        assert!(names(cgroup.path()).is_empty() && pins().is_empty() && ledger_files().is_empty());
    }
}

#[test]
fn root_a_pinned_throttle_waits_without_its_cgroup_until_it_is_armed_again_or_removed() {
    isolate();
    for made_again in [false, true] {
        let cgroup = ScratchCgroup::new("gone");
        crash(cgroup.path(), Wish::Pinned);
        remove_tree(cgroup.path()).unwrap();
        let (mut engine, settlement) = start_and_settle();
        assert!(settlement.removed.is_empty() && settlement.failed.is_empty(), "{settlement:?}");
        assert!(engine.rearm("1").is_err(), "there is no cgroup");
        if made_again {
            // The same path, but not the cgroup that it was on: nothing arms it by itself.
            std::fs::create_dir(cgroup.path()).unwrap();
            assert!(names(cgroup.path()).is_empty());
            let started = engine.rearm("1").unwrap().unwrap().started;
            engine.release(started.id).unwrap();
            assert_eq!((names(cgroup.path()).len(), ledger_files().len()), (3, 1));
        }
        drop(engine);
        let (kernel, ledger) = (LinuxBpf::new().unwrap(), LedgerDir::new("/run/chadthrottle"));
        remove_recorded(&kernel, &ledger, "1", &config().owner.boot_id).unwrap();
        assert!(pins().is_empty() && ledger_files().is_empty());
    }
}

#[test]
fn root_pins_without_an_entry_are_not_in_the_way() {
    isolate();
    let cgroup = ScratchCgroup::new("lost");
    crash(cgroup.path(), Wish::Pinned);
    fs::remove_file(&ledger_files()[0]).unwrap();
    let mut engine = start();
    let started = engine.add(&spec(cgroup.path(), Wish::Pinned)).unwrap();
    assert_eq!(started.name.as_deref(), Some("2"));
    engine.remove(started.id).unwrap();
    assert_eq!((names(cgroup.path()).len(), pins().len()), (3, 3));
}

#[test]
fn root_a_legacy_throttle_whose_cgroup_was_removed_is_settled_once_its_program_is_gone() {
    isolate();
    let cgroup = ScratchCgroup::new("removed");
    crash(cgroup.path(), Wish::Legacy);
    // The engine that crashed keeps its programs open in this process: only the record is looked at.
    remove_tree(cgroup.path()).unwrap();
    let (_engine, settlement) = start_and_settle();
    assert_eq!((settlement.removed.len(), settlement.failed.len()), (0, 1), "{settlement:?}");
    assert!(matches!(settlement.failed[0].1, Error::Several(_)), "{settlement:?}");
    assert_eq!(ledger_files().len(), 1);
    edit(|entry| {
        for attachment in &mut entry.attachments {
            attachment.program_id = kernel::ProgramId(u32::MAX);
        }
    });
    let (_engine, settlement) = start_and_settle();
    assert_eq!((settlement.forgotten.len(), settlement.failed.len()), (1, 0), "{settlement:?}");
}

#[test]
fn root_a_program_whose_cgroup_cannot_be_found_is_not_taken_for_gone() {
    isolate();
    let cgroup = ScratchCgroup::new("elsewhere");
    for wish in [Wish::Legacy, Wish::Pinned] {
        crash(cgroup.path(), wish);
        let recorded = entry().attachments;
        // As if cgroup2 (and bpffs) were mounted elsewhere now.
        edit(|entry| {
            entry.stage = Stage::Removing;
            entry.cgroup_path = "/nowhere".into();
            for attachment in &mut entry.attachments {
                attachment.pin = attachment.pin.as_ref().map(|_| "/sys/fs/bpf/nowhere/x".into());
            }
        });
        let (_engine, settlement) = start_and_settle();
        assert_eq!((settlement.removed.len(), settlement.failed.len()), (0, 1), "{settlement:?}");
        assert!(settlement.failed[0].1.to_string().contains("cannot be found as /nowhere"));
        assert_eq!((names(cgroup.path()).len(), ledger_files().len()), (3, 1), "{wish:?}");

        edit(|entry| {
            entry.cgroup_path = cgroup.path().to_owned();
            entry.attachments = recorded;
        });
        let (_engine, settlement) = start_and_settle();
        assert_eq!(settlement.removed.len(), 1, "{settlement:?}");
        assert!(names(cgroup.path()).is_empty() && pins().is_empty(), "{wish:?}");
    }
}

#[test]
fn root_what_its_owner_is_still_making_or_removing_is_not_removed_by_name() {
    isolate();
    let cgroup = ScratchCgroup::new("making");
    let mut engine = start();
    let name = engine.add(&spec(cgroup.path(), Wish::Pinned)).unwrap().name.unwrap();
    let (kernel, ledger) = (LinuxBpf::new().unwrap(), LedgerDir::new("/run/chadthrottle"));
    let rm = || remove_recorded(&kernel, &ledger, &name, &config().owner.boot_id);
    for stage in [Stage::Intent, Stage::Removing] {
        edit(|entry| entry.stage = stage);
        assert!(matches!(rm(), Err(Error::OwnerLives { .. })), "{stage:?}");
        assert_eq!((names(cgroup.path()).len(), ledger_files().len()), (3, 1));
    }
    edit(|entry| entry.stage = Stage::Attached);
    rm().unwrap();
    assert!(names(cgroup.path()).is_empty());
}

#[test]
fn root_a_name_that_was_given_to_another_throttle_is_not_written_or_removed() {
    isolate();
    let (one, two) = (ScratchCgroup::new("one"), ScratchCgroup::new("two"));
    let mut engine = start();
    let id = engine.add(&spec(one.path(), Wish::Pinned)).unwrap().id;
    let (kernel, ledger) = (LinuxBpf::new().unwrap(), LedgerDir::new("/run/chadthrottle"));
    remove_recorded(&kernel, &ledger, "1", &config().owner.boot_id).unwrap();
    crash(two.path(), Wish::Pinned);
    // This engine's throttle is gone, and "1" is another's.
    engine.remove(id).unwrap();
    assert_eq!((names(two.path()).len(), pins().len(), ledger_files().len()), (3, 3, 1));
}

#[test]
fn root_folders_for_pins_that_were_never_made_are_removed() {
    isolate();
    let cgroup = ScratchCgroup::new("folder");
    crash(cgroup.path(), Wish::Pinned);
    for pin in pins() {
        fs::remove_file(pin).unwrap();
    }
    edit(|entry| entry.stage = Stage::Intent);
    for attach_type in PLACES {
        let open = kernel::cgroup::Cgroup::open(cgroup.path()).unwrap();
        for link in kernel::objects::cgroup_links().unwrap().links {
            if link.cgroup_id == Some(open.id()) && link.attach_type == Some(attach_type) {
                kernel::link::Link::open(link.id).unwrap().detach().unwrap();
            }
        }
    }
    let (_engine, settlement) = start_and_settle();
    assert_eq!(settlement.forgotten.len(), 1, "{settlement:?}");
    assert!(!Path::new("/sys/fs/bpf/chadthrottle/1").exists());
}

#[test]
fn root_an_intent_that_came_to_nothing_is_forgotten() {
    isolate();
    let cgroup = ScratchCgroup::new("intent");
    crash(cgroup.path(), Wish::Legacy);
    for attach_type in PLACES {
        let (id, _) = attached(cgroup.path(), attach_type)[0];
        detach(cgroup.path(), attach_type, id);
    }
    edit(|entry| entry.stage = Stage::Intent);
    let (_engine, settlement) = start_and_settle();
    assert_eq!((settlement.removed.len(), settlement.forgotten.len()), (0, 1), "{settlement:?}");
    assert!(ledger_files().is_empty());
}

#[test]
fn root_a_program_that_has_the_id_of_ours_is_not_touched() {
    isolate();
    let cgroup = ScratchCgroup::new("reused");
    let id = plant_foreign(cgroup.path(), EGRESS, "stranger");
    let other = ScratchCgroup::new("other");
    crash(other.path(), Wish::Legacy);
    for attach_type in PLACES {
        let (id, _) = attached(other.path(), attach_type)[0];
        detach(other.path(), attach_type, id);
    }
    // As if ours had gone, and the kernel had given its id to the stranger.
    edit(|entry| {
        entry.cgroup_path = cgroup.path().to_owned();
        entry.cgroup_id = kernel::cgroup::Cgroup::open(cgroup.path()).unwrap().id();
        for attachment in &mut entry.attachments {
            attachment.program_id = id;
        }
    });
    let (_engine, settlement) = start_and_settle();
    assert!(settlement.failed.is_empty());
    assert_eq!(names(cgroup.path()), ["stranger"]);
    assert!(ledger_files().is_empty());
}

#[test]
fn root_an_entry_of_another_boot_is_void() {
    isolate();
    let cgroup = ScratchCgroup::new("boot");
    crash(cgroup.path(), Wish::Legacy);
    edit(|entry| entry.owner.boot_id = "another".to_owned());
    let (_engine, settlement) = start_and_settle();
    // What is attached now cannot be what that entry was about.
    assert!(settlement.removed.is_empty());
    assert_eq!(names(cgroup.path()).len(), 3);
    assert!(ledger_files().is_empty());
}

#[test]
fn root_an_owner_in_another_pid_namespace_may_live() {
    isolate();
    let cgroup = ScratchCgroup::new("pidns");
    crash_as(&Owner { pid_namespace: 1, ..dead_owner() }, cgroup.path(), Wish::Legacy);
    let (_engine, settlement) = start_and_settle();
    assert!(settlement.removed.is_empty());
    assert_eq!(names(cgroup.path()).len(), 3);
}

#[test]
fn root_a_torn_entry_is_told_and_survived() {
    isolate();
    let cgroup = ScratchCgroup::new("torn");
    fs::create_dir_all("/run/chadthrottle").unwrap();
    fs::write("/run/chadthrottle/1.json", "{\"schema_ver").unwrap();
    crash(cgroup.path(), Wish::Legacy);
    let (_engine, settlement) = start_and_settle();
    assert_eq!(settlement.unreadable.len(), 1);
    assert_eq!(settlement.removed, [("2".to_owned(), cgroup.path().to_owned())]);
    assert!(names(cgroup.path()).is_empty());
    assert!(Path::new("/run/chadthrottle/1.json").exists());
}

#[test]
fn root_a_living_owner_is_not_settled() {
    isolate();
    let cgroup = ScratchCgroup::new("living");
    for wish in [Wish::Legacy, Wish::Pinned] {
        let mut engine = start();
        engine.add(&spec(cgroup.path(), wish)).unwrap();
        let (_other, settlement) = start_and_settle();
        assert!(settlement.removed.is_empty());
        assert_eq!(names(cgroup.path()).len(), 3);
        engine.shut_down().unwrap();
    }
}

#[test]
fn root_a_legacy_throttle_of_a_living_owner_is_not_removed_by_name() {
    isolate();
    let cgroup = ScratchCgroup::new("refuse");
    let mut engine = start();
    let name = engine.add(&spec(cgroup.path(), Wish::Legacy)).unwrap().name.unwrap();
    let (kernel, ledger) = (LinuxBpf::new().unwrap(), LedgerDir::new("/run/chadthrottle"));
    let error = remove_recorded(&kernel, &ledger, &name, &config().owner.boot_id).unwrap_err();
    assert!(matches!(error, Error::OwnerLives { pid, .. } if pid == std::process::id()));
    assert_eq!(names(cgroup.path()).len(), 3);
}
