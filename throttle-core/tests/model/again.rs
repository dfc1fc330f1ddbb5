//! Throttles whose cgroup was removed: they wait, and are armed again on another one at its path.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use bpf::boundary::Throttles as _;
use bpf::ledger::Stage;
use kernel::boundary::{Cgroups as _, Links as _, Pins as _, Programs as _};
use kernel::list::AttachFlags;
use kernel::{AttachType, CgroupId};
use sim::World;
use throttle_core::mode::Wish;
use throttle_core::{Change, Error, Health, Rearmed, Spec};
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;
use crate::neighbours::plant;

/// How much a throttle lets through on a cgroup, in each direction.
fn rates(host: &Host, cgroup: &Path) -> [u64; 2] {
    let open = host.kernel.open_cgroup(cgroup).unwrap();
    [AttachType::INET_INGRESS, AttachType::INET_EGRESS].map(|at| {
        let [id] = host.programs(cgroup, at)[..] else { panic!("one program for each direction") };
        let program = host.kernel.open_program(id).unwrap();
        let state = host.kernel.state(&program, host.kernel.cgroup_id(&open), at).unwrap();
        state.map_or(0, |state| state.rate())
    })
}

pub(crate) fn rearm(host: &Host, name: &str) -> throttle_core::Result<bool> {
    let mut engine = host.process().start();
    let rearmed = engine.rearm(name)?;
    if let Some(Rearmed { started, forgotten }) = &rearmed {
        assert!(forgotten.is_ok(), "{forgotten:?}");
        engine.release(started.id).unwrap();
    }
    Ok(rearmed.is_some())
}

#[test]
fn while_a_throttle_waits_for_a_cgroup_its_programs_are_loaded_and_recorded() {
    for wish in EVERY_MODE {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let mut engine = host.process().start();
        let first = engine.add(&spec(&cgroup, wish)).unwrap().id;
        assert!(matches!(engine.cgroup_health(first), Some(Health::Attached)));
        host.kernel.remove_cgroup(&cgroup).unwrap();
        assert!(matches!(engine.cgroup_health(first), Some(Health::CgroupVanished)));
        assert!(!engine.wait_for_cgroup(first).unwrap());
        let entries = host.entries();
        assert!(entries.len() == 1 && entries[0].waiting, "{wish:?}: {entries:?}");
        assert_eq!((entries[0].attachments.len(), host.loaded()), (3, 3), "{wish:?}");
        // Nothing is left of the links.
        assert!(host.kernel.census().links.is_empty(), "{wish:?}");
        assert!(matches!(engine.cgroup_health(first), Some(Health::CgroupVanished)));

        host.cgroup("a");
        let second = engine.add(&spec(&cgroup, wish)).unwrap().id;
        assert_eq!((host.attached(&cgroup), host.loaded()), (3, 3), "{wish:?}: the same load");
        engine.remove(first).unwrap();
        engine.remove(second).unwrap();
        assert!(host.is_clean(), "{wish:?}");
    }
}

#[test]
fn what_sockets_of_a_removed_cgroup_keep_stays_until_they_are_closed() {
    for wish in EVERY_MODE {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let mut engine = host.process().start();
        let id = engine.add(&spec(&cgroup, wish)).unwrap().id;
        let socket = host.kernel.open_socket(&cgroup).unwrap();
        host.kernel.remove_cgroup(&cgroup).unwrap();
        let status = engine.list().remove(0);
        for direction in &status.directions {
            assert!(matches!(direction.health, Health::SocketsRemain), "{wish:?} {status:?}");
        }
        assert!(matches!(engine.cgroup_health(id), Some(Health::SocketsRemain)), "{wish:?}");
        assert!(engine.wait_for_cgroup(id).unwrap(), "{wish:?}");
        assert_eq!(engine.list()[0].directions.len(), 2, "{wish:?}");
        drop(socket);
        assert!(!engine.wait_for_cgroup(id).unwrap(), "{wish:?}");
        engine.remove(id).unwrap();
        assert!(host.is_clean(), "{wish:?}");
    }
}

#[test]
fn what_an_owner_that_was_killed_waited_for_is_forgotten_at_the_next_start() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    let id = engine.add(&spec(&cgroup, Wish::Link)).unwrap().id;
    host.kernel.remove_cgroup(&cgroup).unwrap();
    engine.wait_for_cgroup(id).unwrap();
    // Another start leaves it alone while its owner lives.
    assert!(host.settle().removed.is_empty());
    assert_eq!(host.entries().len(), 1);
    process.kill(engine);
    assert_eq!(host.settle().forgotten.len(), 1);
    assert!(host.is_clean());
}

#[test]
fn a_pinned_throttle_is_armed_again_with_the_limits_of_its_record() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    assert!(!rearm(&host, "1").unwrap(), "it is armed");
    let before = rates(&host, &cgroup);
    host.kernel.remove_cgroup(&cgroup).unwrap();
    let away = rearm(&host, "1").unwrap_err();
    assert!(matches!(&away, Error::Kernel(_)), "{away}");
    assert_eq!(host.entries().len(), 1);

    host.cgroup("a");
    assert!(rearm(&host, "1").unwrap());
    assert_eq!((host.attached(&cgroup), rates(&host, &cgroup)), (3, before));
    assert_eq!(host.loaded(), 3, "nothing of the old one is left");
    assert!(!rearm(&host, "1").unwrap());
    assert!(host.settle().removed.is_empty());
    assert_eq!(host.attached(&cgroup), 3);
    host.remove_recorded("1").unwrap();
    assert!(host.is_clean());
}

#[test]
fn a_throttle_that_was_changed_is_armed_again_with_what_it_was_changed_to() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let id = engine.add(&spec(&cgroup, Wish::Pinned)).unwrap().id;
    let change = Change { upload: Some(rate(7_000_000)), ..Change::default() };
    engine.change(id, &change).unwrap();
    engine.release(id).unwrap();
    host.kernel.remove_cgroup(&cgroup).unwrap();
    host.cgroup("a");
    assert!(rearm(&host, "1").unwrap());
    assert_eq!(rates(&host, &cgroup), [1_000_000, 7_000_000]);
}

#[test]
fn a_change_leaves_a_record_as_it_is_of_which_half_is_removed_or_which_is_damaged() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let id = engine.add(&spec(&cgroup, Wish::Pinned)).unwrap().id;
    host.edit(|entry| entry.stage = Stage::Removing);
    engine.change(id, &Change { upload: Some(rate(7_000_000)), ..Change::default() }).unwrap();
    let entry = host.entries().remove(0);
    let upload = entry.attachments[1].limits.as_ref().unwrap();
    assert_eq!((entry.stage, upload.rate), (Stage::Removing, rate(7_000_000)));
    host.edit(|entry| entry.schema_version = 99);
    engine.change(id, &Change { upload: Some(rate(8_000_000)), ..Change::default() }).unwrap();
    assert_eq!(host.ledger().read().unwrap().unreadable.len(), 1);
}

#[test]
fn only_what_is_recorded_to_stay_and_says_what_it_allows_is_armed_again() {
    let host = Host::boot();
    assert!(matches!(rearm(&host, "1"), Err(Error::NoSuchRecord(_))));
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    assert!(matches!(rearm(&host, "2"), Err(Error::NoSuchRecord(_))));
    host.edit(|entry| entry.attachments.iter_mut().for_each(|it| it.limits = None));
    assert!(matches!(rearm(&host, "1"), Err(Error::NoLimits(_))));
    host.edit(|entry| entry.cgroup_namespace += 1);
    assert!(matches!(rearm(&host, "1"), Err(Error::Elsewhere(_))));
    host.edit(|entry| entry.cgroup_namespace -= 1);
    host.edit(|entry| entry.owner.pid_namespace += 1);
    assert!(matches!(rearm(&host, "1"), Err(Error::Elsewhere(_))));
    let process = host.process();
    let mut engine = process.start();
    host.edit(|entry| (entry.stage, entry.owner) = (Stage::Removing, process.config.owner.clone()));
    assert!(matches!(engine.rearm("1"), Err(Error::NoSuchRecord(_))));
}

/// Each call of arming again fails once, or is the process's last: the throttle goes on waiting, or is armed.
#[test]
fn whatever_happens_while_it_is_armed_again_the_record_stays() {
    for mishap in [Mishap::Fail(Fail::EPERM), Mishap::DieBefore, Mishap::DieAfter] {
        let mut call = 1;
        loop {
            let host = Host::boot();
            let cgroup = host.cgroup("a");
            host.crash(&cgroup, Wish::Pinned);
            host.kernel.remove_cgroup(&cgroup).unwrap();
            host.cgroup("a");
            let struck = interrupt(&host, call, mishap);
            assert!(rearm(&host, "1").is_ok(), "call {call}, {mishap:?}");
            assert_eq!(host.attached(&cgroup), 3, "call {call}, {mishap:?}");
            host.remove_recorded("1").unwrap();
            assert!(host.is_clean(), "call {call}, {mishap:?}");
            if !struck {
                break;
            }
            call += 1;
        }
        assert!(call > 10, "{call}");
    }
}

/// All that there is of throttles: the records and what the kernel holds.
fn everything(host: &Host) -> (Vec<bpf::ledger::Entry>, sim::Census) {
    (host.entries(), host.kernel.census())
}

#[test]
fn if_it_cannot_be_armed_again_all_is_as_it_was() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    host.kernel.remove_cgroup(&cgroup).unwrap();
    host.cgroup("a");
    let before = everything(&host);
    let mut call = 1;
    while interrupt(&host, call, Mishap::Fail(Fail::EPERM)) {
        if host.attached(&cgroup) == 3 {
            break;
        }
        assert_eq!(everything(&host), before, "call {call}");
        call += 1;
    }
    assert!(call > 10, "{call}");
}

/// What it was before may be left, but then it is armed, and told to be.
#[test]
fn it_is_told_to_be_armed_whenever_it_is() {
    let mut left = 0;
    for nth in 1.. {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, Wish::Pinned);
        host.kernel.remove_cgroup(&cgroup).unwrap();
        host.cgroup("a");
        let process = host.process();
        let mut engine = process.start();
        process.control.plan(Some(Fault { nth, mishap: Mishap::Fail(Fail::EPERM) }));
        let again = engine.rearm("1");
        let struck = process.control.struck();
        process.control.plan(None);
        assert_eq!(host.attached(&cgroup), if again.is_ok() { 3 } else { 0 }, "call {nth}");
        assert_eq!(engine.list().len(), usize::from(again.is_ok()), "call {nth}");
        if let Ok(Some(Rearmed { started, forgotten })) = again {
            left += usize::from(forgotten.is_err());
            assert!(forgotten.is_err() || host.loaded() == 3, "call {nth}");
            engine.release(started.id).unwrap();
            assert!(host.settle().failed.is_empty());
            assert_eq!(host.loaded(), 3, "the next start lets go of it");
        }
        if !struck {
            break;
        }
    }
    assert!(left > 3, "{left}");
}

/// Somebody has taken a part of it off: what is left limits until all of it is armed again.
#[test]
fn a_throttle_that_lost_a_part_keeps_the_rest_until_it_is_whole_again() {
    for mishap in [Mishap::Fail(Fail::EPERM), Mishap::DieBefore, Mishap::DieAfter] {
        let mut call = 1;
        loop {
            let host = Host::boot();
            let cgroup = host.cgroup("a");
            host.crash(&cgroup, Wish::Pinned);
            let upload = host.entries()[0].attachments[1].pin.clone().unwrap();
            host.kernel.link_detach(&host.kernel.link_open_pinned(&upload).unwrap()).unwrap();
            let struck = interrupt(&host, call, mishap);
            assert!(host.attached(&cgroup) >= 2, "call {call}, {mishap:?}");
            assert!(rearm(&host, "1").is_ok(), "call {call}, {mishap:?}");
            assert_eq!((host.attached(&cgroup), host.loaded()), (3, 3), "call {call}, {mishap:?}");
            host.remove_recorded("1").unwrap();
            assert!(host.is_clean(), "call {call}, {mishap:?}");
            if !struck {
                break;
            }
            call += 1;
        }
        assert!(call > 10, "{call}");
    }
}

#[test]
fn only_below_the_top_of_the_mount_that_is_recorded_it_is_armed_again() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    let recorded = host.entries()[0].cgroup_top;
    assert!(recorded.is_some());
    for top in [Some(CgroupId(77)), None] {
        host.edit(|entry| entry.cgroup_top = top);
        assert!(!rearm(&host, "1").unwrap(), "it is the same cgroup");
    }
    host.kernel.remove_cgroup(&cgroup).unwrap();
    host.cgroup("a");
    for top in [Some(CgroupId(77)), None] {
        host.edit(|entry| entry.cgroup_top = top);
        let before = everything(&host);
        let refused = rearm(&host, "1").unwrap_err();
        assert!(matches!(refused, Error::AnotherTop { .. }), "{refused}");
        assert_eq!((host.attached(&cgroup), everything(&host)), (0, before));
    }
    host.edit(|entry| entry.cgroup_top = recorded);
    assert!(rearm(&host, "1").unwrap());
}

/// Another cgroup takes the path after any call.
#[test]
fn the_cgroup_that_was_looked_at_is_armed_or_none() {
    let mut refused = 0;
    for nth in 1..12 {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, Wish::Pinned);
        host.kernel.remove_cgroup(&cgroup).unwrap();
        host.cgroup("a");
        let (kernel, path) = (host.kernel.clone(), cgroup.clone());
        let process = host.process_with(move || {
            kernel.remove_cgroup(&path).unwrap();
            kernel.create_cgroup(&path).unwrap();
        });
        let mut engine = process.start();
        let before = everything(&host);
        process.control.plan(Some(Fault { nth, mishap: Mishap::DieAfter }));
        if matches!(engine.rearm("1"), Err(Error::AnotherCgroup { .. })) {
            assert_eq!(everything(&host), before, "call {nth}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[test]
fn it_displaces_others_only_if_it_was_allowed_to_when_it_was_made() {
    for displace in [false, true] {
        let host = Host::boot();
        let above = host.cgroup("a");
        let cgroup = host.cgroup("a/b");
        host.crash_with(&[Spec { displace, ..spec(&cgroup, Wish::Pinned) }]);
        host.kernel.remove_cgroup(&cgroup).unwrap();
        host.cgroup("a/b");
        let _firewall = plant(&host.kernel, &above, AttachType::INET_EGRESS, AttachFlags::OVERRIDE);
        let mut engine = host.process().start();
        let again = engine.rearm("1").map(Option::unwrap);
        match (displace, again) {
            (false, Err(Error::WouldDisplace { .. })) => assert_eq!(host.attached(&cgroup), 0),
            (true, Ok(again)) => assert_eq!(again.started.displaced.len(), 1),
            (_, again) => panic!("{displace} {again:?}"),
        }
    }
}

/// Arms it again by a process that something happens to at a call; whether it came to that.
fn interrupt(host: &Host, nth: u16, mishap: Mishap) -> bool {
    let process = host.process_with(|| resume_unwind(Box::new("it dies")));
    let mut engine = process.start();
    process.control.plan(Some(Fault { nth, mishap }));
    let done = catch_unwind(AssertUnwindSafe(|| engine.rearm("1")));
    let struck = process.control.struck();
    process.control.plan(None);
    match done {
        Ok(Ok(Some(again))) => engine.release(again.started.id).unwrap(),
        Ok(_) => {}
        Err(_) => process.kill(engine),
    }
    struck
}
