//! Tests steps that are out of date by the time of the act. Most need root.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bpf::Owner;
use bpf::throttle::{Parts, load};
use kernel::ProgramId;
use kernel::link::Way;
use kernel::list::attach;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::tcx::{assert_refused, has_tcx};

use super::*;
use crate::judge::Finding;

const INGRESS: AttachType = AttachType::INET_INGRESS;

fn act() -> Act {
    Act::new(&kernel::cgroup::cgroup2_mount().unwrap(), kernel::probe::support().unwrap())
}

fn put(cgroup: &ScratchCgroup, name: &str, flags: AttachFlags) -> Program {
    let program = Program::load_pass(name, INGRESS).unwrap();
    let open = Cgroup::open(cgroup.path()).unwrap();
    attach(program.as_fd(), &open, INGRESS, flags, None).unwrap();
    program
}

fn step(program: &Program, action: Action) -> Step {
    let info = program.info();
    Step {
        finding: Finding::OrphanedAttachment,
        program: Some(Target { identity: info.identity(), name: info.name.clone() }),
        premise: Premise::OwnerGone,
        action,
        remains: None,
    }
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

fn is_gone(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Gone(_))
}

fn is_changed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(Failure::Changed(_)))
}

#[test]
fn root_a_program_with_the_same_id_but_another_identity_stays() {
    let cgroup = ScratchCgroup::new("identity");
    let program = put(&cgroup, "chadtest_act", AttachFlags::MULTI);
    let right = step(&program, detach_from(&cgroup));
    let mut later = right.clone();
    later.program.as_mut().unwrap().identity.loaded_at_ns += 1;
    let mut tagged = right.clone();
    tagged.program.as_mut().unwrap().identity.tag = "0".repeat(16);
    for wrong in [later, tagged] {
        assert!(is_gone(&act().take(&wrong)));
        assert_eq!(ids(&cgroup), [program.info().id]);
    }
    assert_eq!(act().take(&right), Outcome::Removed);
    assert_eq!(ids(&cgroup), []);
}

#[test]
fn root_another_cgroup_at_the_path_is_not_touched() {
    let cgroup = ScratchCgroup::new("path");
    let program = put(&cgroup, "chadtest_act", AttachFlags::MULTI);
    let Action::DetachLegacy { cgroup: path, cgroup_id, attach_type } = detach_from(&cgroup) else {
        unreachable!()
    };
    let cgroup_id = CgroupId(cgroup_id.0 + 1_000_000);
    let wrong = Action::DetachLegacy { cgroup: path, cgroup_id, attach_type };
    assert!(is_gone(&act().take(&step(&program, wrong))));
    assert_eq!(ids(&cgroup), [program.info().id]);
}

#[test]
fn root_a_foreign_program_in_a_list_that_is_not_multi_stays() {
    for flags in [AttachFlags::OVERRIDE, AttachFlags::empty()] {
        let cgroup = ScratchCgroup::new("single");
        let ours = put(&cgroup, "chadtest_act", flags);
        let foreign = put(&cgroup, "chadtest_other", flags);
        assert!(is_gone(&act().take(&step(&ours, detach_from(&cgroup)))), "{flags:?}");
        assert_eq!(ids(&cgroup), [foreign.info().id]);
    }
}

/// Since Linux 6.17 the kernel refuses to change a list that has changed since the query.
#[test]
fn root_in_a_list_that_others_change_it_is_tried_again() {
    let cgroup = ScratchCgroup::new("busy");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let other = Program::load_pass("chadtest_other", INGRESS).unwrap();
    let is_over = AtomicBool::new(false);
    let outcomes: Vec<_> = std::thread::scope(|threads| {
        let other = other.as_fd();
        let (is_over, open) = (&is_over, &open);
        threads.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                attach(other, open, INGRESS, AttachFlags::MULTI, None).unwrap();
                detach(other, open, INGRESS, None).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        // Ends the other thread even if the test fails below.
        let _over = Over(is_over);
        let outcomes = (0..100).map(|_| {
            let ours = put(&cgroup, "chadtest_act", AttachFlags::MULTI);
            let outcome = act().take(&step(&ours, detach_from(&cgroup)));
            let is_there = ids(&cgroup).contains(&ours.info().id);
            if is_there {
                detach(ours.as_fd(), open, INGRESS, None).unwrap();
            }
            (outcome, is_there)
        });
        outcomes.collect()
    });
    assert!(outcomes.iter().any(|(outcome, _)| *outcome == Outcome::Removed));
    for (outcome, is_there) in outcomes {
        // The other thread may have been quicker ten times in a row.
        assert!(outcome == Outcome::Removed || is_changed(&outcome), "{outcome:?}");
        assert_eq!(is_there, outcome != Outcome::Removed);
    }
}

/// Ends the other thread.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_list_that_changes_is_tried_again_but_not_for_ever() {
    for changes in [0, 1, ATTEMPTS - 1, ATTEMPTS, ATTEMPTS + 1] {
        let mut tries = 0;
        let done = again_if_it_changes(|| {
            tries += 1;
            Ok((tries > changes).then_some(()))
        });
        assert_eq!(done.is_ok(), changes < ATTEMPTS, "{changes}");
        assert_eq!(tries, ATTEMPTS.min(changes + 1), "{changes}");
    }
    let mut tries = 0;
    let failed = again_if_it_changes(|| {
        tries += 1;
        Err(gone("gone"))
    });
    assert!(tries == 1 && matches!(failed, Err(Stop::Gone(_))));
}

#[test]
fn root_of_one_program_only_the_legacy_attachment_goes_and_the_link_stays() {
    let cgroup = ScratchCgroup::new("mixed");
    let program = put(&cgroup, "chadtest_act", AttachFlags::MULTI);
    let open = Cgroup::open(cgroup.path()).unwrap();
    let link = Link::create(program.as_fd(), &open, INGRESS).unwrap();
    let step = step(&program, detach_from(&cgroup));
    assert_eq!(act().take(&step), Outcome::Removed);
    assert!(is_gone(&act().take(&step)));
    assert_eq!(ids(&cgroup), [program.info().id]);
    assert_eq!(link.info().unwrap().cgroup_id, Some(open.id()));
}

#[test]
fn root_a_program_whose_owner_lives_is_not_taken_for_an_orphan() {
    let cgroup = ScratchCgroup::new("premise");
    let here = Owner::this_process("test").unwrap();
    let dead = Owner { start_time: here.start_time + 1, ..here.clone() };
    let open = Cgroup::open(cgroup.path()).unwrap();
    for (owner, wrong, right) in [
        (here, Premise::OwnerGone, Premise::OwnerLives),
        (dead, Premise::OwnerLives, Premise::OwnerGone),
    ] {
        let program = load(&owner, 0, Parts::TCP).unwrap().ingress;
        attach(program.as_fd(), &open, INGRESS, AttachFlags::MULTI, None).unwrap();
        let mut step = step(&program, detach_from(&cgroup));
        step.premise = wrong;
        assert!(is_changed(&act().take(&step)), "{wrong:?}");
        assert_eq!(ids(&cgroup), [program.info().id]);
        step.premise = right;
        assert_eq!(act().take(&step), Outcome::Removed, "{right:?}");
    }
}

#[test]
fn root_a_link_that_is_not_the_one_that_was_judged_stays() {
    let cgroup = ScratchCgroup::new("link");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let program = Program::load_pass("chadtest_act", INGRESS).unwrap();
    let other = Program::load_pass("chadtest_act", INGRESS).unwrap();
    let link = Link::create(program.as_fd(), &open, INGRESS).unwrap();
    let detach =
        |cgroup_id, attach_type| Action::DetachLink { link: link.id(), cgroup_id, attach_type };
    let elsewhere = CgroupId(open.id().0 + 1_000_000);
    for wrong in [
        step(&other, detach(open.id(), INGRESS)),
        step(&program, detach(elsewhere, INGRESS)),
        step(&program, detach(open.id(), AttachType::INET_EGRESS)),
    ] {
        assert!(is_changed(&act().take(&wrong)), "{wrong:?}");
        assert_eq!(ids(&cgroup), [program.info().id]);
    }
    let right = step(&program, detach(open.id(), INGRESS));
    assert_eq!(act().take(&right), Outcome::Removed);
    assert_eq!(ids(&cgroup), []);
    assert!(is_gone(&act().take(&right)));
}

#[test]
fn root_a_pin_of_something_else_stays() {
    isolate();
    let cgroup = ScratchCgroup::new("unpin");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let program = Program::load_pass("chadtest_act", INGRESS).unwrap();
    let path = Path::new("/sys/fs/bpf/pin");
    let link = Link::create(program.as_fd(), &open, INGRESS).unwrap();
    link.pin(path).unwrap();
    let unpin = |object| step(&program, Action::Unpin { path: path.to_owned(), object });
    for wrong in [Object::Link(LinkId(link.id().0 + 1)), Object::Program(program.info().id)] {
        assert!(is_changed(&act().take(&unpin(wrong))), "{wrong:?}");
        assert!(path.exists());
    }
    assert_eq!(act().take(&unpin(Object::Link(link.id()))), Outcome::Removed);
    assert!(!path.exists());
    assert!(is_gone(&act().take(&unpin(Object::Link(link.id())))));
}

#[test]
fn root_a_symbolic_link_that_took_the_place_of_a_pin_stays_and_so_does_what_it_leads_to() {
    isolate();
    let cgroup = ScratchCgroup::new("symlink");
    let open = Cgroup::open(cgroup.path()).unwrap();
    let program = Program::load_pass("chadtest_act", INGRESS).unwrap();
    let link = Link::create(program.as_fd(), &open, INGRESS).unwrap();
    let (path, moved) = (Path::new("/sys/fs/bpf/pin"), Path::new("/sys/fs/bpf/moved"));
    link.pin(moved).unwrap();
    std::os::unix::fs::symlink(moved, path).unwrap();
    let object = Object::Link(link.id());
    let unpin = step(&program, Action::Unpin { path: path.to_owned(), object });
    assert!(is_changed(&act().take(&unpin)));
    assert!(path.is_symlink() && moved.exists());
}

/// The interface index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

#[test]
fn root_a_program_on_a_network_device_is_detached_by_the_link_that_was_judged() {
    if !has_tcx() {
        return assert_refused();
    }
    isolate();
    let here = Owner::this_process("test").unwrap();
    let dead = Owner { start_time: here.start_time + 1, ..here };
    let queue = load(&dead, 0, Parts { tcp: false, queue: true }).unwrap().queue.unwrap();
    let link = Link::create_on_device(queue.redirect.as_fd(), LOOPBACK, Way::Ingress).unwrap();
    let detach = |device| Action::DetachFromDevice { link: link.id(), device };
    for wrong in
        [step(&queue.redirect, detach(LOOPBACK + 1)), step(&queue.depart, detach(LOOPBACK))]
    {
        assert!(is_changed(&act().take(&wrong)), "{wrong:?}");
        assert_eq!(link.device_info().unwrap().device, Some(LOOPBACK));
    }
    let right = step(&queue.redirect, detach(LOOPBACK));
    assert_eq!(act().take(&right), Outcome::Removed);
    assert_eq!(link.device_info().unwrap().device, None);
    assert!(is_gone(&act().take(&right)));
}

/// Runs `ip`.
fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an `ifb` device named after an owner's pid, and returns the fact that a scan would find.
fn make_device(pid: u32, alias: &str) -> DeviceFact {
    let name = format!("chadq{pid}a");
    ip(&["link", "add", &name, "type", "ifb"]);
    ip(&["link", "set", &name, "alias", alias]);
    let shown = ip(&["-o", "link", "show", &name]);
    DeviceFact {
        network_namespace: std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino(),
        namespace_path: None,
        index: shown.split(':').next().unwrap().parse().unwrap(),
        name,
        is_ifb: true,
        alias: Some(alias.to_owned()),
    }
}

fn is_there(device: &DeviceFact) -> bool {
    let start = format!("{}: ", device.index);
    ip(&["-o", "link", "show"]).lines().any(|line| line.starts_with(&start))
}

fn remove(device: &DeviceFact) -> Outcome {
    act().take(&Step {
        finding: Finding::OrphanedDevice,
        program: None,
        premise: Premise::OwnerGone,
        action: Action::RemoveDevice(device.clone()),
        remains: None,
    })
}

#[test]
fn root_a_network_device_that_is_not_the_one_that_was_judged_stays() {
    isolate();
    let here = Owner::this_process("test").unwrap();
    let json = |owner: &Owner| serde_json::to_string(owner).unwrap();
    let dead = Owner { start_time: here.start_time + 1, ..here.clone() };
    let left = make_device(here.pid, &json(&dead));

    let elsewhere = DeviceFact { network_namespace: 1, ..left.clone() };
    let another = DeviceFact { index: left.index + 1, ..left.clone() };
    for gone in [elsewhere, another] {
        assert!(is_gone(&remove(&gone)), "{gone:?}");
    }
    let renamed = DeviceFact { name: "chadq1a".to_owned(), ..left.clone() };
    let rewritten = DeviceFact { alias: Some(json(&here)), ..left.clone() };
    let loopback = DeviceFact { index: LOOPBACK, ..left.clone() };
    for wrong in [renamed, rewritten, loopback] {
        assert!(is_changed(&remove(&wrong)), "{wrong:?}");
    }
    // Somebody has given the device another purpose.
    ip(&["link", "set", &left.name, "name", "uplink"]);
    assert!(is_changed(&remove(&left)));
    ip(&["link", "set", "uplink", "name", &left.name]);
    assert!(is_there(&left));

    assert_eq!(remove(&left), Outcome::Removed);
    assert!(!is_there(&left));
    assert!(is_gone(&remove(&left)));
    // Another device has the name now.
    let next = make_device(here.pid, &json(&dead));
    assert!(is_gone(&remove(&left)), "{left:?} {next:?}");
    assert!(is_there(&next));
}

#[test]
fn root_a_network_device_whose_owner_lives_or_is_not_ours_stays() {
    isolate();
    let here = Owner::this_process("test").unwrap();
    let alive = make_device(here.pid, &serde_json::to_string(&here).unwrap());
    let foreign = make_device(here.pid + 1, "somebody's");
    for device in [alive, foreign] {
        assert!(is_changed(&remove(&device)), "{device:?}");
        assert!(is_there(&device));
    }
}
