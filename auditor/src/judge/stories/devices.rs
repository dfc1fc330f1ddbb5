//! Tests the rules for network devices of queues, and for programs on devices.

use bpf::Owner;
use kernel::LinkId;

use crate::actions::{Action, Obstacle, plan};
use crate::facts::{Snapshot, Subject};
use crate::judge::{Claim, Finding, Source, Verdict, classify};
use crate::report::report;
use crate::story::*;

fn found(host: &Snapshot) -> (Verdict, Vec<Finding>) {
    let classified = classify(host);
    (classified.verdict, classified.devices.iter().map(|judged| judged.finding).collect())
}

fn claim(host: &Snapshot) -> Option<Claim> {
    classify(host).devices[0].owner
}

fn actions(host: &Snapshot) -> Vec<Action> {
    plan(&classify(host)).into_iter().map(|step| step.action).collect()
}

#[test]
fn a_device_is_a_leak_once_its_owner_is_dead_and_not_before() {
    assert_eq!(found(&queue(Some(false))), (Verdict::Leaks, vec![Finding::OrphanedDevice]));
    assert_eq!(found(&queue(Some(true))), (Verdict::Clean, vec![Finding::Active]));
    let of_alias = Claim { pid: 4711, alive: Some(true), source: Source::Alias };
    assert_eq!(claim(&queue(Some(true))), Some(of_alias));
    let mut other_boot = host();
    other_boot.device(&Owner { boot_id: "x".into(), ..owner(4711) });
    assert_eq!(found(&other_boot), (Verdict::Leaks, vec![Finding::OrphanedDevice]));
}

#[test]
fn what_only_has_the_name_of_a_queue_is_foreign_and_has_no_step() {
    let dead = serde_json::to_string(&owner(4711)).unwrap();
    for (name, is_ifb, alias) in [
        ("chadq4711a", true, None),
        ("chadq4711a", true, Some("uplink")),
        ("chadq4712a", true, Some(&*dead)),
        ("chadq4711a", false, Some(&*dead)),
    ] {
        let mut host = queue(Some(false));
        let device = &mut host.look().devices[0];
        (device.name, device.is_ifb) = (name.into(), is_ifb);
        device.alias = alias.map(Into::into);
        assert_eq!(found(&host), (Verdict::Clean, vec![Finding::Foreign]), "{name} {alias:?}");
        assert_eq!(plan(&classify(&host)), []);
        let few = report(&host, &classify(&host), false);
        assert_eq!((few.devices.len(), few.coverage.notes.len()), (0, 1));
        assert!(few.coverage.notes[0].what.contains(name));
        assert_eq!(report(&host, &classify(&host), true).devices.len(), 1);
    }
}

#[test]
fn of_an_owner_in_another_pid_namespace_its_programs_tell_whether_it_lives() {
    let mut host = queue(None);
    host.device_program(41, &owner(4711));
    host.device_link(31, 41, 7);
    host.hold(99, &[link(31)]);
    let holder = Claim { pid: 99, alive: Some(true), source: Source::Holder };
    assert_eq!(found(&host), (Verdict::Clean, vec![Finding::Active]));
    assert_eq!(claim(&host), Some(holder));
    // Somebody else's program proves nothing about the device's owner.
    host.look().programs.last_mut().unwrap().owner = Some(owner(4712));
    host.owner_lives(&owner(4712), Some(true));
    assert_eq!(found(&host), (Verdict::Leaks, vec![Finding::OrphanedDevice]));
}

#[test]
fn nobody_is_the_owner_of_a_device_who_is_not_the_same_in_everything() {
    type Change = fn(&mut Owner);
    let changes: [(&str, Change); 5] = [
        ("pid", |owner| owner.pid += 1),
        ("start time", |owner| owner.start_time += 1),
        ("pid namespace", |owner| owner.pid_namespace += 1),
        ("boot", |owner| owner.boot_id = "another".into()),
        ("version", |owner| owner.version = "0.0.1".into()),
    ];
    for (what, change) in changes {
        let mut other = owner(4711);
        change(&mut other);
        // The other owner is running and holds a program of its own queue.
        let mut host = queue(None);
        host.owner_lives(&other, Some(true));
        host.device_program(41, &other);
        host.device_link(31, 41, 2);
        host.hold(99, &[link(31), program(41)]);
        assert_eq!(found(&host), (Verdict::Leaks, vec![Finding::OrphanedDevice]), "{what}");
        // The other owner has a device of its own beside the device of a dead owner.
        let mut host = queue(Some(false));
        host.owner_lives(&other, Some(true));
        host.device(&other);
        let expected = if what == "boot" { Finding::OrphanedDevice } else { Finding::Active };
        assert_eq!(found(&host).1, [Finding::OrphanedDevice, expected], "{what}");
    }
}

#[test]
fn any_program_of_the_owner_that_anybody_holds_tells_that_it_lives() {
    for held in 41..44 {
        let mut host = queue(None);
        for number in 41..44 {
            host.device_program(number, &owner(4711));
        }
        host.hold(99, &[program(held)]);
        assert_eq!(found(&host).1, [Finding::Active], "{held}");
    }
}

#[test]
fn whether_an_owner_lives_is_not_guessed_where_not_every_process_can_be_seen() {
    assert_eq!(found(&queue(None)), (Verdict::Leaks, vec![Finding::OrphanedDevice]));
    for about in [Subject::Processes, Subject::HiddenProcesses, Subject::Programs] {
        let mut host = queue(None);
        host.gap(about);
        assert_eq!(found(&host), (Verdict::Incomplete, vec![Finding::Unknown]), "{about:?}");
        assert!(classify(&host).gaps.iter().any(|gap| gap.why.contains("cannot be told")));
        assert_eq!(plan(&classify(&host)), []);
    }
    let mut container = queue(None);
    container.host.pid_namespace = 1;
    assert_eq!(found(&container), (Verdict::Incomplete, vec![Finding::Unknown]));
}

#[test]
fn devices_are_not_judged_below_a_cgroup_nor_where_others_programs_are_asked_for() {
    let mut below = queue(Some(false));
    below.scope.root = "/system.slice".into();
    assert_eq!(found(&below), (Verdict::Clean, vec![]));
    let mut others = queue(Some(false));
    others.scope.programs = vec!["sd_*".into()];
    assert_eq!(found(&others), (Verdict::Clean, vec![]));
    others.scope.programs = vec!["sd_*".into(), "chadthrottle_queue".into()];
    assert_eq!(found(&others), (Verdict::Leaks, vec![Finding::OrphanedDevice]));
}

#[test]
fn devices_that_could_not_be_looked_at_make_an_audit_incomplete() {
    let mut host = host();
    host.gap(Subject::Devices);
    assert_eq!(classify(&host).verdict, Verdict::Incomplete);
}

#[test]
fn a_device_that_is_a_suspect_only_since_the_last_look_is_still_changing() {
    let mut host = queue(Some(true));
    host.looks.push(queue(Some(false)).looks.remove(0));
    assert_eq!(found(&host), (Verdict::Incomplete, vec![Finding::Unknown]));
    host.looks.remove(0);
    host.looks.push(queue(Some(false)).looks.remove(0));
    assert_eq!(found(&host), (Verdict::Leaks, vec![Finding::OrphanedDevice]));
    // Another device has the number and name now.
    let other = Owner { start_time: 5, ..owner(4711) };
    let look = host.look();
    look.owners[0].owner = other.clone();
    look.devices[0].alias = Some(serde_json::to_string(&other).unwrap());
    assert_eq!(found(&host), (Verdict::Incomplete, vec![Finding::Unknown]));
}

#[test]
fn a_pinned_link_on_a_network_device_is_detached_before_its_pin_goes() {
    let mut host = on_device(false);
    host.look().devices.clear();
    host.pin("/sys/fs/bpf/x", link(31));
    assert_eq!(programs(&host), [Finding::OrphanedPin]);
    let detach = Action::DetachFromDevice { link: LinkId(31), device: 2 };
    let unpin = Action::Unpin { path: "/sys/fs/bpf/x".into(), object: link(31) };
    assert_eq!(actions(&host), [detach, unpin]);
}

#[test]
fn a_program_on_a_network_device_that_nothing_visible_holds_is_unreachable() {
    let mut host = on_device(false);
    host.look().devices.clear();
    assert_eq!(programs(&host), [Finding::UnreachableProgram]);
    assert!(matches!(actions(&host)[..], [Action::Cannot(_)]));
}

#[test]
fn without_the_list_of_links_nothing_on_a_network_device_is_judged_a_leak() {
    let mut host = on_device(false);
    host.look().devices.clear();
    host.hold(99, &[link(31)]);
    host.gap(Subject::Links);
    assert_eq!(programs(&host), []);
    assert_eq!(classify(&host).verdict, Verdict::Incomplete);
}

#[test]
fn a_program_of_a_queue_that_is_on_no_device_is_judged_like_any_other() {
    let mut host = on_device(false);
    host.look().devices.clear();
    host.look().device_links[0].device = 0;
    host.hold(99, &[link(31)]);
    assert_eq!(programs(&host), [Finding::UnattachedProgram]);
    assert!(
        matches!(&actions(&host)[..], [Action::Cannot(Obstacle::HeldOpen(by))] if by[0].pid == 99)
    );
    // The owner throttles, and keeps the program for its next queue.
    let mut host = on_device(true);
    host.look().device_links.clear();
    host.program(42, Some(&owner(4711)));
    host.attach(42, A, IN);
    assert_eq!(programs(&host), [Finding::Active]);
}
