//! Tests the steps against leaks.

use kernel::{CgroupId, LinkId, ProgramId};

use crate::actions::{Action, Obstacle, Premise, Remains, Step, plan};
use crate::facts::{Object, Snapshot, Subject};
use crate::judge::{Finding, classify};
use crate::story::*;

fn steps(host: &Snapshot) -> Vec<Step> {
    plan(&classify(host))
}

fn actions(host: &Snapshot) -> Vec<Action> {
    steps(host).into_iter().map(|step| step.action).collect()
}

fn detach_legacy() -> Action {
    let cgroup = "/cgroup-9310".into();
    Action::DetachLegacy { cgroup, cgroup_id: CgroupId(A), attach_type: IN }
}

fn detach_link() -> Action {
    Action::DetachLink { link: LinkId(11), cgroup_id: CgroupId(A), attach_type: IN }
}

fn unpin(object: Object) -> Action {
    Action::Unpin { path: "/sys/fs/bpf/x".into(), object }
}

#[test]
fn an_orphan_is_detached_if_it_is_still_the_same_and_still_ownerless() {
    let steps = steps(&orphan());
    let [step] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(step.finding, Finding::OrphanedAttachment);
    assert_eq!(step.premise, Premise::OwnerGone);
    assert_eq!(step.action, detach_legacy());
    assert_eq!(step.remains, None);
    let program = step.program.as_ref().unwrap();
    assert_eq!((program.identity.id, program.identity.loaded_at_ns), (ProgramId(41), 1_041));
    assert_eq!(
        (&program.name[..], &program.identity.tag[..]),
        ("chadthrottle_in", "6b1f9c0a7e5d4321")
    );
}

#[test]
fn the_link_of_an_orphaned_pin_is_detached_before_its_pin_is_removed() {
    let mut host = orphan();
    host.link(11, 41, A, IN);
    host.pin("/sys/fs/bpf/x", link(11));
    assert_eq!(actions(&host), [detach_link(), unpin(link(11))]);
}

#[test]
fn what_a_process_keeps_of_it_is_noted_with_each_way_of_detaching() {
    type Place = fn(&mut Snapshot) -> Object;
    let places: [(Place, Remains); 3] = [
        (|_| program(41), Remains::Program(vec![somebody(99)])),
        (
            |host| {
                host.link(11, 41, A, IN);
                link(11)
            },
            Remains::DefunctLink(vec![somebody(99)]),
        ),
        (
            |host| {
                host.look().attachments.pop();
                host.look().programs.pop();
                host.device_program(41, &owner(4711));
                host.device_link(31, 41, 2);
                link(31)
            },
            Remains::DefunctLink(vec![somebody(99)]),
        ),
    ];
    for (place, remains) in places {
        let mut host = orphan();
        let held = place(&mut host);
        host.hold(99, &[held]);
        let told = steps(&host);
        let [step] = &told[..] else { panic!("{told:?}") };
        assert_eq!(step.remains, Some(remains), "{step:?}");
        // A process that holds only the program does not keep the link.
        if held != program(41) {
            host.look().holders.last_mut().unwrap().objects = vec![program(41)];
            assert!(steps(&host).iter().all(|step| step.remains.is_none()), "{:?}", steps(&host));
        }
    }
}

#[test]
fn the_pin_of_a_program_that_is_attached_nowhere_is_removed() {
    let mut host = orphan();
    host.look().attachments.pop();
    host.pin("/sys/fs/bpf/x", program(41));
    assert_eq!(actions(&host), [unpin(program(41))]);
    host.look().owners[0].alive = Some(true);
    assert_eq!(actions(&host), [unpin(program(41))], "unattached, its owner lives");
}

#[test]
fn a_pin_that_several_leaks_share_is_removed_once() {
    let mut host = orphan();
    host.attach(41, A, EG);
    host.pin("/sys/fs/bpf/x", program(41));
    let actions = actions(&host);
    assert_eq!(actions.len(), 3);
    assert_eq!(actions.iter().filter(|action| **action == unpin(program(41))).count(), 1);
}

#[test]
fn a_pin_of_a_program_that_is_meant_elsewhere_stays() {
    let mut host = orphan();
    host.pin("/sys/fs/bpf/x", program(41));
    host.attach(41, 77, IN);
    host.record(&owner(4711), 41, 77);
    assert_eq!(actions(&host), [detach_legacy()]);
}

#[test]
fn a_pin_of_a_program_that_is_meant_elsewhere_stays_beside_an_orphaned_pin_of_its_link() {
    let mut host = orphan();
    host.link(11, 41, A, IN);
    host.pin("/sys/fs/bpf/x", link(11));
    host.pin("/sys/fs/bpf/y", program(41));
    host.attach(41, 77, IN);
    host.record(&owner(4711), 41, 77);
    assert_eq!(actions(&host), [detach_link(), unpin(link(11))]);
}

#[test]
fn what_a_living_owner_left_presumes_that_it_lives_and_says_what_stays() {
    let mut host = orphan();
    host.link(11, 41, A, IN);
    host.look().owners[0].alive = Some(true);
    host.look().attachments.last_mut().unwrap().state = Some(state(false));
    host.hold(4711, &[link(11)]);
    let steps = steps(&host);
    let [step] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((step.finding, step.premise), (Finding::DisarmedAttachment, Premise::OwnerLives));
    assert_eq!(step.action, detach_link());
    assert_eq!(step.remains, Some(Remains::DefunctLink(vec![somebody(4711)])));
}

#[test]
fn what_a_process_holds_open_only_that_process_can_end() {
    let mut host = orphan();
    host.look().attachments.pop();
    host.link(11, 41, 0, IN);
    host.hold(99, &[link(11)]);
    assert_eq!(actions(&host), [Action::Cannot(Obstacle::HeldOpen(vec![somebody(99)]))]);
}

#[test]
fn what_nothing_visible_holds_is_said_to_be_out_of_reach() {
    let mut host = orphan();
    host.look().attachments.pop();
    assert_eq!(actions(&host), [Action::Cannot(Obstacle::OutOfReach)]);
}

#[test]
fn a_link_that_nothing_visible_holds_is_left_to_whoever_holds_it() {
    let mut host = orphan();
    host.link(11, 41, A, IN);
    assert_eq!(actions(&host), [Action::Cannot(Obstacle::MeantOutOfSight)]);
}

#[test]
fn nothing_is_removed_whose_owner_could_have_been_missed() {
    let mut host = host();
    host.program(41, None);
    host.attach(41, A, IN);
    assert_eq!(actions(&host), [detach_legacy()]);
    host.gap(Subject::Processes);
    assert_eq!(actions(&host), [], "it is not judged");
    let mut twice = host.clone();
    twice.attach(41, A, IN);
    twice.link(11, 41, A, IN);
    twice.look().coverage.gaps.clear();
    twice.gap(Subject::Processes);
    let in_doubt = [Action::Cannot(Obstacle::MayBeMeant)];
    assert_eq!(actions(&twice), in_doubt, "one too many, whose owner is unknown");

    let mut hiding = host.clone();
    hiding.looks[0].coverage.gaps.clear();
    hiding.gap(Subject::HiddenProcesses);
    assert_eq!(actions(&hiding), [detach_legacy()], "one process that hides is no reason");

    let mut dead = orphan();
    dead.gap(Subject::Processes);
    assert_eq!(actions(&dead), [detach_legacy()], "the metadata's owner is known to be dead");
}

#[test]
fn what_is_no_confirmed_leak_has_no_step() {
    assert_eq!(steps(&host()), []);
    let mut alive = orphan();
    alive.look().owners[0].alive = Some(true);
    assert_eq!(steps(&alive), []);
    let mut unsettled = orphan();
    unsettled.looks.insert(0, host().looks.remove(0));
    assert_eq!(steps(&unsettled), []);
}

#[test]
fn a_pin_in_a_folder_of_another_tool_stays_where_only_a_name_says_that_the_program_is_ours() {
    let named = |path: &str| {
        let mut host = host();
        host.program(41, None);
        host.attach(41, A, IN);
        host.link(11, 41, A, IN);
        host.pin(path, link(11));
        host
    };
    let pinned = Obstacle::Pinned { path: "/sys/fs/bpf/acme/x".into(), is_named_as_ours: true };
    assert_eq!(actions(&named("/sys/fs/bpf/acme/x")), [Action::Cannot(pinned)]);
    assert_eq!(actions(&named("/sys/fs/bpf/chadthrottle/1/x")).len(), 2);
    let mut recorded = named("/sys/fs/bpf/acme/x");
    recorded.record(&owner(4711), 41, A).persist = false;
    recorded.owner_lives(&owner(4711), Some(false));
    assert_eq!(actions(&recorded).len(), 2, "a record proves that it is ours");
}
