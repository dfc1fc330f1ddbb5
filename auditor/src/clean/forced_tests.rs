//! Tests forced steps that are wrong by the time of the act. Most need root.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use bpf::Owner;
use bpf::throttle::{Parts, load};
use kernel::link::Link;
use kernel::list::{AttachFlags, Scope, attach, query};
use kernel::{Program, ProgramId};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use super::*;
use crate::actions::{Action, Premise, Step, Target};
use crate::clean::Failure;
use crate::clean::act::Act;
use crate::facts::Object;
use crate::judge::Finding;

const INGRESS: AttachType = AttachType::INET_INGRESS;

#[test]
fn only_a_program_beside_others_of_its_own_list_guards_nothing() {
    for attach_type in AttachType::all() {
        let is_lsm = attach_type == AttachType::LSM;
        let guards = [0, 1, 2, 64].map(|count| guards(attach_type, count).is_some());
        assert_eq!(guards, [true, true, is_lsm, is_lsm], "{attach_type}");
    }
}

fn act() -> Act {
    Act::new(&kernel::cgroup::cgroup2_mount().unwrap(), kernel::probe::support().unwrap())
}

fn step(program: &Program, action: Action) -> Step {
    let info = program.info();
    let program = Target { identity: info.identity(), name: info.name.clone() };
    let (finding, premise) = (Finding::Unowned, Premise::Unowned);
    Step { finding, program: Some(program), premise, action, remains: None }
}

fn put(cgroup: &ScratchCgroup) -> Program {
    let program = Program::load_pass("chadtest_act", INGRESS).unwrap();
    let open = Cgroup::open(cgroup.path()).unwrap();
    attach(program.as_fd(), &open, INGRESS, AttachFlags::MULTI, None).unwrap();
    program
}

fn detach_from(cgroup: &ScratchCgroup) -> Action {
    Action::DetachLegacy {
        cgroup: cgroup.relative(),
        cgroup_id: Cgroup::open(cgroup.path()).unwrap().id(),
        attach_type: INGRESS,
    }
}

fn ids(cgroup: &ScratchCgroup) -> Vec<ProgramId> {
    let open = Cgroup::open(cgroup.path()).unwrap();
    let list = query(&open, INGRESS, Scope::Local, false).unwrap();
    list.programs.into_iter().map(|program| program.id).collect()
}

fn is_changed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(Failure::Changed(_)))
}

#[test]
fn root_a_program_that_names_an_owner_is_not_taken_for_nobodys() {
    let cgroup = ScratchCgroup::new("forced-owner");
    let here = Owner::this_process("test").unwrap();
    let program = load(&here, 0, Parts::TCP).unwrap().ingress;
    let open = Cgroup::open(cgroup.path()).unwrap();
    attach(program.as_fd(), &open, INGRESS, AttachFlags::MULTI, None).unwrap();
    assert!(is_changed(&act().take(&step(&program, detach_from(&cgroup)))));
    assert_eq!(ids(&cgroup), [program.info().id]);
}

#[test]
fn root_the_last_program_stays_as_long_as_a_process_is_there_or_below() {
    let cgroup = ScratchCgroup::new("forced-last");
    let (first, last) = (put(&cgroup), put(&cgroup));
    let below = cgroup.child("below");
    let entered = testkit::cgroup::enter(&below);
    assert_eq!(act().take(&step(&first, detach_from(&cgroup))), Outcome::Removed);
    let outcome = act().take(&step(&last, detach_from(&cgroup)));
    assert!(matches!(outcome, Outcome::Left(_)), "{outcome:?}");
    assert_eq!(ids(&cgroup), [last.info().id]);
    drop(entered);
    assert_eq!(act().take(&step(&last, detach_from(&cgroup))), Outcome::Removed);
    assert_eq!(ids(&cgroup), []);
}

#[test]
fn root_the_last_link_stays_as_long_as_a_process_is_there() {
    let cgroup = ScratchCgroup::new("forced-link");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let program = Program::load_pass("chadtest_act", INGRESS).unwrap();
    let link = Link::create(program.as_fd(), &open, INGRESS).unwrap();
    let action = Action::DetachLink { link: link.id(), cgroup_id: open.id(), attach_type: INGRESS };
    let entered = cgroup.enter();
    let outcome = act().take(&step(&program, action.clone()));
    assert!(matches!(outcome, Outcome::Left(_)), "{outcome:?}");
    assert_eq!(ids(&cgroup), [program.info().id]);
    drop(entered);
    assert_eq!(act().take(&step(&program, action)), Outcome::Removed);
    assert_eq!(ids(&cgroup), []);
}

#[test]
fn root_a_pin_in_a_folder_of_another_tool_is_not_removed_by_force() {
    isolate();
    let cgroup = ScratchCgroup::new("forced-pin");
    let program = put(&cgroup);
    let open = Cgroup::open(cgroup.path()).unwrap();
    let link = Link::create(program.as_fd(), &open, INGRESS).unwrap();
    let theirs = Path::new("/sys/fs/bpf/acme/1/fw");
    let ours = Path::new("/sys/fs/bpf/chadthrottle/1/fw");
    for path in [theirs, ours] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        link.pin(path).unwrap();
        let object = Object::Link(link.id());
        let outcome = act().take(&step(&program, Action::Unpin { path: path.to_owned(), object }));
        assert_eq!(is_changed(&outcome), path == theirs, "{outcome:?}");
        assert_eq!(path.exists(), path == theirs);
        if path == theirs {
            fs::remove_file(path).unwrap();
        }
    }
}
