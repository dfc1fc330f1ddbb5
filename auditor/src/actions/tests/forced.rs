//! Tests the steps against unowned programs if the user insists, and the refusals.

use kernel::{CgroupId, LinkId};

use crate::actions::{Action, Obstacle, Premise, Step, doubt, forced};
use crate::facts::{Snapshot, Subject};
use crate::judge::{Finding, classify};
use crate::story::*;

fn steps(host: &Snapshot) -> Vec<Step> {
    let classified = classify(host);
    classified.unowned().flat_map(|judged| forced(judged, &classified)).collect()
}

fn actions(host: &Snapshot) -> Vec<Action> {
    steps(host).into_iter().map(|step| step.action).collect()
}

/// Returns the reason for a refusal.
fn refusal(host: &Snapshot) -> Obstacle {
    match &actions(host)[..] {
        [Action::Cannot(obstacle)] => obstacle.clone(),
        other => panic!("{other:?}"),
    }
}

fn pinned(path: &str) -> Obstacle {
    Obstacle::Pinned { path: path.into(), is_named_as_ours: false }
}

fn linked() -> Snapshot {
    let mut host = unowned();
    host.link(11, 41, A, IN);
    host
}

#[test]
fn a_legacy_attachment_that_nobody_holds_is_detached_if_it_is_still_nobodys() {
    let steps = steps(&unowned());
    let [step] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((step.finding, step.premise), (Finding::Unowned, Premise::Unowned));
    let cgroup = "/cgroup-9310".into();
    let expected = Action::DetachLegacy { cgroup, cgroup_id: CgroupId(A), attach_type: IN };
    assert_eq!(step.action, expected);
}

#[test]
fn what_a_process_holds_stays() {
    let mut host = unowned();
    host.hold(99, &[program(41)]);
    assert_eq!(refusal(&host), Obstacle::AnsweredFor(vec![somebody(99)]));
}

#[test]
fn what_a_process_that_could_not_be_looked_at_may_hold_stays() {
    let mut host = unowned();
    host.gap(Subject::Processes);
    assert_eq!(refusal(&host), Obstacle::MayBeHeld);
    host.look().coverage.gaps.clear();
    host.gap(Subject::HiddenProcesses);
    assert_eq!(actions(&host).len(), 1, "one process that hides is no reason");
    assert!(matches!(actions(&host)[0], Action::DetachLegacy { .. }));
    let told = doubt(&classify(&host)).unwrap();
    assert!(told.contains("one of them may hold it"), "who is asked is told: {told}");
    assert_eq!(doubt(&classify(&unowned())), None);
}

#[test]
fn a_pin_in_a_folder_of_another_tool_stays_and_so_does_its_link() {
    for path in ["/sys/fs/bpf/acme/fw", "/sys/fs/bpf/fw", "/sys/fs/bpf/chadthrottle/fw"] {
        let mut attached = linked();
        attached.pin(path, link(11));
        let mut defunct = whole(unowned());
        defunct.look().attachments.pop();
        defunct.link(11, 41, 0, IN);
        defunct.pin(path, link(11));
        let mut loose = whole(unowned());
        loose.look().attachments.pop();
        loose.pin(path, program(41));
        for host in [attached, defunct, loose] {
            assert_eq!(refusal(&host), pinned(path));
        }
    }
}

#[test]
fn any_pin_of_another_tool_among_several_keeps_it() {
    for theirs in 0..3 {
        let mut host = linked();
        for number in 0..3 {
            let folder = if number == theirs { "acme" } else { "chadthrottle" };
            host.pin(&format!("/sys/fs/bpf/{folder}/{number}/fw"), link(11));
        }
        assert_eq!(refusal(&host), pinned(&format!("/sys/fs/bpf/acme/{theirs}/fw")));
        host.look().pins.remove(theirs);
        assert_eq!(actions(&host).len(), 3, "the link, and both of its pins");
    }
}

#[test]
fn a_pin_in_our_own_folder_goes_after_its_link_was_detached() {
    let path = "/sys/fs/bpf/chadthrottle/1/fw";
    let mut host = linked();
    host.pin(path, link(11));
    let expected = [
        Action::DetachLink { link: LinkId(11), cgroup_id: CgroupId(A), attach_type: IN },
        Action::Unpin { path: path.into(), object: link(11) },
    ];
    assert_eq!(actions(&host), expected);
}

#[test]
fn the_pin_of_an_attached_program_is_left_where_it_is() {
    let mut host = unowned();
    host.pin("/sys/fs/bpf/acme/prog", program(41));
    assert!(matches!(actions(&host)[..], [Action::DetachLegacy { .. }]));
}

#[test]
fn what_nothing_visible_keeps_stays() {
    assert_eq!(refusal(&linked()), Obstacle::KeptOutOfSight);
    let mut loose = whole(unowned());
    loose.look().attachments.pop();
    assert_eq!(refusal(&loose), Obstacle::KeptOutOfSight);
}
