//! The bugs of the history, each by its name, on the real kernel. Each of these tests was seen to fail
//! with its bug put into the engine.

use std::process::Command;

use bpf::LinuxBpf;
use bpf::boundary::Throttles as _;
use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::list::MAX_PROGRAMS;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use throttle_core::mode::Wish;
use throttle_core::target::{Target, ThisHost};
use throttle_core::{Error, Spec};

use crate::common::*;

/// Bug 1: detach was called without the program's fd, and the error was read as "already detached".
#[test]
fn root_bug_1_programs_do_not_pile_up_when_throttles_come_and_go() {
    isolate();
    let cgroup = ScratchCgroup::new("bug1");
    let mut engine = start();
    // The kernel has a place for one more.
    for _ in 1..MAX_PROGRAMS {
        plant_foreign(cgroup.path(), EGRESS, "neighbour");
    }
    for _ in 0..3 {
        let id = engine.add(&spec(cgroup.path(), Wish::Legacy)).unwrap().id;
        assert_eq!(names(cgroup.path()).len(), MAX_PROGRAMS + 2);
        engine.remove(id).unwrap();
        assert_eq!(names(cgroup.path()), ["neighbour"; MAX_PROGRAMS - 1]);
    }
}

/// Bug 2: the attach flags were passed to detach, which the kernel refuses.
#[test]
fn root_bug_2_a_program_among_others_is_detached() {
    isolate();
    let cgroup = ScratchCgroup::new("bug2");
    for attach_type in PLACES {
        plant_foreign(cgroup.path(), attach_type, "neighbour");
    }
    let mut engine = start();
    let id = engine.add(&spec(cgroup.path(), Wish::Legacy)).unwrap().id;
    engine.remove(id).unwrap();
    assert_eq!(names(cgroup.path()), ["neighbour"; 3]);
}

/// Bug 3: on removal the cgroup was looked up again through the process; a dead one meant no detach.
#[test]
fn root_bug_3_a_throttle_by_pid_is_removed_after_the_process_has_died() {
    isolate();
    let cgroup = ScratchCgroup::new("bug3");
    for wish in EVERY_MODE {
        let mut process = {
            let _inside = cgroup.enter();
            Command::new("sleep").arg("60").spawn().unwrap()
        };
        let target = Target::Process(process.id()).resolve(&ThisHost).unwrap();
        assert_eq!(target.cgroup, cgroup.path());
        assert!(target.neighbours.is_empty());
        let mut engine = start();
        let id = engine.add(&spec(&target.cgroup, wish)).unwrap().id;
        process.kill().unwrap();
        process.wait().unwrap();
        engine.remove(id).unwrap();
        assert!(names(cgroup.path()).is_empty(), "{wish:?}");
    }
}

/// Bug 4: a detach error was logged, and the record of the attachment dropped anyway.
#[test]
fn root_bug_4_a_removal_that_fails_keeps_its_record_and_can_be_tried_again() {
    isolate();
    let cgroup = ScratchCgroup::new("bug4");
    let mut engine = start();
    let id = engine.add(&spec(cgroup.path(), Wish::Legacy)).unwrap().id;
    let programs = names(cgroup.path());

    // Without the right to administer the network the kernel refuses to query and to detach.
    // What an error advises goes by the rights that its reader has.
    let error = without_rights(|| engine.remove(id).map_err(|error| error.to_string()));
    let error = error.unwrap_err();
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    assert_eq!(names(cgroup.path()), programs);
    assert_eq!(engine.list().len(), 1, "the record is kept");
    assert_eq!(ledger_files().len(), 1, "the ledger's entry is kept");

    engine.remove(id).unwrap();
    assert!(names(cgroup.path()).is_empty() && ledger_files().is_empty());
}

/// Shutting down goes on past a failure and reports it, instead of ending at the first one.
#[test]
fn root_shutting_down_goes_on_past_a_failure() {
    isolate();
    let (one, two) = (ScratchCgroup::new("one"), ScratchCgroup::new("two"));
    let mut engine = start();
    engine.add(&spec(one.path(), Wish::Legacy)).unwrap();
    engine.add(&spec(two.path(), Wish::Legacy)).unwrap();
    let error = without_rights(|| engine.shut_down()).unwrap_err();
    let Error::Several(errors) = &error else { panic!("{error}") };
    // The errors of both throttles, not of the first alone.
    assert_eq!(errors.len(), 2, "{error}");
    engine.shut_down().unwrap();
    assert!(names(one.path()).is_empty() && names(two.path()).is_empty());
}

/// One map entry for every cgroup: the second throttle overwrote the first one's rate, and removing one
/// cleared both.
#[test]
fn root_one_throttle_does_not_overwrite_or_clear_another() {
    isolate();
    let (one, two) = (ScratchCgroup::new("a"), ScratchCgroup::new("b"));
    let mut engine = start();
    let upload = |cgroup: &ScratchCgroup, bytes| Spec {
        upload: Some(rate(bytes)),
        download: None,
        ..spec(cgroup.path(), Wish::Link)
    };
    engine.add(&upload(&one, 1_000_000)).unwrap();
    let second = engine.add(&upload(&two, 7_000_000)).unwrap().id;
    // One load serves both.
    assert_eq!(attached(one.path(), EGRESS), attached(two.path(), EGRESS));
    assert_eq!((kernel_rate(&one), kernel_rate(&two)), (1_000_000, 7_000_000));
    engine.remove(second).unwrap();
    assert_eq!(kernel_rate(&one), 1_000_000);
}

/// A raw fd number was kept after its owner could close it: whatever was opened next got its number.
#[test]
fn root_descriptors_that_come_and_go_do_not_mislead_a_removal() {
    isolate();
    let cgroup = ScratchCgroup::new("fds");
    let mut engine = start();
    let mut ids = Vec::new();
    for round in 0..20 {
        let wish = EVERY_MODE[round % 3];
        ids.push(engine.add(&spec(cgroup.path(), wish)).unwrap().id);
        let _reused: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        if round % 2 == 1 {
            engine.remove(ids.remove(0)).unwrap();
        }
    }
    assert_eq!(names(cgroup.path()).len(), 3 * ids.len());
    engine.shut_down().unwrap();
    assert!(names(cgroup.path()).is_empty());
}

/// Throttles that come and go leave no descriptor, program or map in this process.
#[test]
fn root_throttles_leave_no_descriptor_behind() {
    isolate();
    let cgroup = ScratchCgroup::new("fdcount");
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut engine = start();
    let before = open();
    for wish in EVERY_MODE {
        for _ in 0..5 {
            let id = engine.add(&spec(cgroup.path(), wish)).unwrap().id;
            engine.remove(id).unwrap();
        }
    }
    assert_eq!(open(), before);
}

fn kernel_rate(cgroup: &ScratchCgroup) -> u64 {
    let kernel = LinuxBpf::new().unwrap();
    let open = kernel.open_cgroup(cgroup.path()).unwrap();
    let program = kernel.open_program(attached(cgroup.path(), EGRESS)[0].0).unwrap();
    kernel.state(&program, kernel.cgroup_id(&open), EGRESS).unwrap().unwrap().rate()
}

/// Runs something as nobody: the effective user, and with it every capability, is gone for the time.
fn without_rights<T>(run: impl FnOnce() -> T) -> T {
    use nix::unistd::{Uid, seteuid};
    seteuid(Uid::from_raw(65_534)).unwrap();
    let result = run();
    seteuid(Uid::from_raw(0)).unwrap();
    result
}
