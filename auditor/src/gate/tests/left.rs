//! Tests the judgement of what a command left behind.

use kernel::{MapId, process::Birth};
use nix::sys::signal::Signal;

use crate::compare::Kind;
use crate::facts::{Gap, Object, PinFact, Subject};
use crate::gate::{Aftermath, Origin, Processes, judge};
use crate::judge::Verdict;
use crate::story::*;
use crate::story::{Stock, everything};

#[test]
fn a_process_comes_from_the_command_if_the_gate_is_its_ancestor() {
    let processes = processes();
    let origins = [SYSTEMD, DAEMON, WORKER, STRANGER, 999].map(|pid| processes.origin(pid));
    let expected =
        [Origin::Earlier, Origin::Command, Origin::Command, Origin::Meanwhile, Origin::Unknown];
    assert_eq!(origins, expected);
}

#[test]
fn a_process_as_old_as_the_gate_is_no_earlier_one() {
    let mut processes = processes();
    processes.table.insert(400, Birth { parent: SYSTEMD, start_time: processes.started });
    assert_eq!(processes.origin(400), Origin::Meanwhile);
}

#[test]
fn who_started_the_gate_was_there_before_it_even_in_the_same_tick() {
    let mut processes = processes();
    let shell = Birth { parent: SYSTEMD, start_time: processes.started };
    processes.ancestors.insert(400, shell);
    // The ancestor's own parent has ended meanwhile.
    processes.table.insert(400, Birth { parent: 1, ..shell });
    assert_eq!(processes.origin(400), Origin::Earlier);
    processes.table.insert(400, Birth { start_time: processes.started + 1, ..shell });
    assert_eq!(processes.origin(400), Origin::Meanwhile, "another process by now");
}

#[test]
fn ancestors_that_go_in_a_circle_end_the_search() {
    let mut processes = processes();
    processes.table.insert(401, Birth { parent: 402, start_time: 9_500 });
    processes.table.insert(402, Birth { parent: 401, start_time: 9_500 });
    assert_eq!(processes.origin(401), Origin::Unknown);
}

#[test]
fn a_process_whose_parent_has_ended_may_be_the_commands() {
    let mut processes = processes();
    processes.table.insert(401, Birth { parent: 402, start_time: 9_500 });
    assert_eq!(processes.origin(401), Origin::Unknown);
    processes.table.insert(402, Birth { parent: 0, start_time: 9_400 });
    assert_eq!(processes.origin(401), Origin::Meanwhile, "from outside of the pid namespace");
}

#[test]
fn what_no_process_holds_counts_and_its_maker_is_unknown() {
    let mut after = loaded(&[]);
    after.attach(41, A, EG);
    let found = settled(&everything(), &after);
    assert_eq!(kinds(&found.left), [Kind::Attachment, Kind::Program]);
    assert_eq!(
        found.left[1].reason,
        "loaded 2026-11-23T05:26:40Z by uid 1000; maker unknown: no process holds it any more; \
         kept by its attachment to /cgroup-9310 (cgroup_inet_egress)"
    );
    after.gap(Subject::HiddenProcesses);
    let found = settled(&everything(), &after);
    assert!(found.left[0].reason.contains("no process that could be looked into holds it"));
    assert_eq!(found.gaps, [], "who holds it does not matter to what is left");
}

#[test]
fn a_process_of_the_command_that_still_runs_is_named() {
    let found = settled(&everything(), &loaded(&[WORKER]));
    let reason = &found.left[0].reason;
    let expected = "held by process 202 (somebody), started by the command and still running";
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(found.left[0].holders[0].origin, Origin::Command);
}

#[test]
fn what_keeps_a_program_in_a_slot_of_a_map_is_named() {
    let mut after = loaded(&[]);
    after.map(9, "jmp");
    after.slot("3", program(41));
    after.pin("/sys/fs/bpf/jmp", Object::Map(MapId(9)));
    let found = settled(&everything(), &after);
    let reason = &found.left.iter().find(|it| it.item.kind() == Kind::Program).unwrap().reason;
    let kept = "kept by entry 3 of map 9 (jmp), which is kept by its pin /sys/fs/bpf/jmp";
    assert!(reason.ends_with(kept), "{reason}");
    // Systemd holds the program through the map, so both may be somebody else's.
    after.hold(SYSTEMD, &[Object::Map(MapId(9))]);
    let found = settled(&everything(), &after);
    assert_eq!((kinds(&found.left), found.unclear.len()), (vec![], 3));
    after.hold(DAEMON, &[Object::Map(MapId(9))]);
    assert_eq!(settled(&everything(), &after).left.len(), 3);
}

#[test]
fn a_map_in_a_slot_of_another_one_is_kept_by_that() {
    let mut after = everything();
    after.map(8, "inner");
    after.map(9, "outer");
    after.slot("0", Object::Map(MapId(8)));
    after.hold(SYSTEMD, &[Object::Map(MapId(9))]);
    let found = settled(&everything(), &after);
    assert_eq!((kinds(&found.left), found.others.len()), (vec![], 2));
    let reason = &found.others[0].reason;
    assert!(reason.contains("kept by entry 0 of map 9 (outer)"), "{reason}");
}

#[test]
fn where_a_program_is_on_a_device_without_a_link_is_named() {
    let mut after = loaded(&[]);
    after.on_device(41, 2, "xdp", None);
    let found = settled(&everything(), &after);
    let kept = "kept by its attachment to device eth0 (2), xdp, in network namespace 4026532177 (/run/netns/blue)";
    assert!(found.left[0].reason.ends_with(kept), "{}", found.left[0].reason);
}

#[test]
fn a_pin_in_a_mount_namespace_of_what_the_command_left_running_explains_what_it_keeps() {
    let mut after = everything();
    after.load(41, "leaky", &[]);
    after.any_link(7, 41, "cgroup");
    let path = "/proc/201/root/sys/fs/bpf/l".into();
    let pins_elsewhere = vec![PinFact { path, object: link(7) }];
    let processes = Processes { pins_elsewhere, ..processes() };
    let found = judge(&everything(), &after, &all(), &processes).unwrap();
    let reason = &found.left[0].reason;
    assert!(reason.ends_with("kept by its pin /proc/201/root/sys/fs/bpf/l"), "{reason}");
}

#[test]
fn what_the_command_removed_of_others_is_told_and_does_not_count() {
    let mut before = loaded(&[]);
    // Nothing kept the program, so it was going already.
    assert_eq!(settled(&before, &everything()).gone, []);
    before.on_device(41, 2, "xdp", None);
    let found = settled(&before, &everything());
    assert_eq!((found.left.len(), found.gone.len(), found.is_settled()), (0, 1, true));
    assert_eq!(found.gone_of_others, []);
}

#[test]
fn what_only_things_keep_that_nobody_keeps_was_going_already() {
    let mut before = loaded(&[]);
    // An earlier gate leaves such objects: its program and its maps, one of them in a slot of another.
    before.load(42, "audit_bpf", &[9]);
    before.map(8, "inner");
    before.map(9, "audit_calls");
    before.slot("0", Object::Map(MapId(8)));
    before.slot("1", program(41));
    before.any_link(7, 42, "perf_event");
    assert_eq!(settled(&before, &everything()).gone, []);
    // A process that holds the program keeps all of these objects.
    let mut held = before.clone();
    held.hold(SYSTEMD, &[program(42)]);
    assert_eq!(settled(&held, &everything()).gone_of_others.len(), 4);
    before.pin("/sys/fs/bpf/calls", Object::Map(MapId(9)));
    let gone = settled(&before, &everything()).gone;
    assert_eq!(gone.len(), 4, "the pin, what it holds, and what is in its slots: {gone:?}");
}

#[test]
fn what_others_let_go_of_is_told_from_what_was_taken_from_them() {
    let mut before = loaded(&[SYSTEMD]);
    before.attach(41, A, EG);
    before.pin("/sys/fs/bpf/p", program(41));
    let gone = settled(&before, &everything());
    assert_eq!((gone.gone.len(), gone.gone_of_others.len()), (0, 3));
    // The program still exists and has its holder, so somebody has detached and unpinned it.
    let taken = settled(&before, &loaded(&[SYSTEMD]));
    assert_eq!((taken.gone.len(), taken.gone_of_others.len()), (2, 0));
}
#[test]
fn what_is_there_when_a_signal_ends_the_gate_is_told_and_no_leak_yet() {
    let mut after = loaded(&[]);
    after.load(42, "sd_devices", &[]);
    after.hold(SYSTEMD, &[program(42)]);
    let found = judged(&everything(), &after).confirmed_by(None);
    assert_eq!(found.left.len(), 2, "one look proves nothing");
    let told = found.clone().interrupted(Signal::SIGTERM);
    assert_eq!((told.left.len(), told.verdict()), (0, Verdict::Incomplete));
    let [gap] = &told.gaps[..] else { panic!("{told:?}") };
    assert!(gap.why.starts_with("SIGTERM ended the gate"), "{}", gap.why);
    assert!(
        gap.why.ends_with("new, and still there: program 41 (leaky), cgroup_skb"),
        "{}",
        gap.why
    );
    let nothing = Aftermath { others: found.left, ..Aftermath::default() };
    let told = nothing.clone().interrupted(Signal::SIGINT);
    assert_eq!((told.verdict(), &told.others), (Verdict::Incomplete, &nothing.others));
    assert!(told.gaps[0].why.ends_with("run it again"), "{}", told.gaps[0].why);
}

#[test]
fn only_where_nothing_is_left_unclear_or_unseen_there_is_nothing_to_wait_for() {
    let one = settled(&everything(), &loaded(&[])).left;
    let gap = Gap { about: Subject::Pins, what: "/x".into(), why: "denied".into() };
    for (left, unclear, gaps) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
        let aftermath = Aftermath {
            left: one.iter().filter(|_| left).cloned().collect(),
            unclear: one.iter().filter(|_| unclear).cloned().collect(),
            gaps: [&gap].into_iter().filter(|_| gaps).cloned().collect(),
            others: one.clone(),
            gone: vec![one[0].item.clone()],
            gone_of_others: vec![one[0].item.clone()],
        };
        assert_eq!(aftermath.is_settled(), !(left || unclear || gaps));
        assert_eq!(aftermath.gaps().len(), usize::from(unclear) + usize::from(gaps));
        let verdict = match (left, unclear || gaps) {
            (true, _) => Verdict::Leaks,
            (false, true) => Verdict::Incomplete,
            (false, false) => Verdict::Clean,
        };
        assert_eq!(aftermath.verdict(), verdict);
    }
}
