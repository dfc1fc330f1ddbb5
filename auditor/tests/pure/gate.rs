//! What a command left behind, judged.

use std::collections::HashMap;

use auditor::classify::Verdict;
use auditor::diff::Kind;
use auditor::formats::{Medium, Rendition};
use auditor::gate::{
    Aftermath, CommandInfo, Ended, Evidence, GateReport, Left, LoadedBy, Origin, Processes,
    SCHEMA_VERSION, judge,
};
use auditor::report::Host;
use auditor::results::Outcome;
use auditor::snapshot::{Gap, Object, PinFact, Snapshot, Subject, Tool};
use bpf::{Birth, MapId};
use nix::sys::signal::Signal;

use crate::common::*;
use crate::diff::{Stock, everything};

const GATE: u32 = 100;
/// Running since before the gate.
pub(crate) const SYSTEMD: u32 = 1;
/// A child of the gate, as every orphan of the command is by now.
pub(crate) const DAEMON: u32 = 201;
/// A child of that.
pub(crate) const WORKER: u32 = 202;
/// Started since by somebody else.
pub(crate) const STRANGER: u32 = 300;

pub(crate) fn processes() -> Processes {
    let born = |pid, parent, start_time| (pid, Birth { parent, start_time });
    let table = HashMap::from([
        born(SYSTEMD, 0, 3),
        born(DAEMON, GATE, 9_100),
        born(WORKER, DAEMON, 9_200),
        born(STRANGER, SYSTEMD, 9_150),
    ]);
    Processes { gate: GATE, started: 9_000, table, ..Processes::default() }
}

pub(crate) fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

pub(crate) fn judged(before: &Snapshot, after: &Snapshot) -> Aftermath {
    judge(before, after, &all(), &processes()).unwrap()
}

/// The judgement of the second of two looks that see the same.
pub(crate) fn settled(before: &Snapshot, after: &Snapshot) -> Aftermath {
    let first = judged(before, after).confirmed_by(None);
    judged(before, after).confirmed_by(Some(&first))
}

/// A new program 41, held by these.
pub(crate) fn loaded(holders: &[u32]) -> Snapshot {
    let mut after = everything();
    after.load(41, "leaky", &[]);
    for pid in holders {
        after.hold(*pid, &[program(41)]);
    }
    after
}

pub(crate) fn kinds<'a>(left: impl IntoIterator<Item = &'a auditor::gate::Left>) -> Vec<Kind> {
    left.into_iter().map(|left| left.item.kind()).collect()
}

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
    // Its own parent has ended meanwhile.
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
    // Held by somebody else through the map, and so perhaps somebody else's.
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
    // Nobody kept it: it was going already.
    assert_eq!(settled(&before, &everything()).gone, []);
    before.on_device(41, 2, "xdp", None);
    let found = settled(&before, &everything());
    assert_eq!((found.left.len(), found.gone.len(), found.is_settled()), (0, 1, true));
    assert_eq!(found.gone_of_others, []);
}

#[test]
fn what_only_things_keep_that_nobody_keeps_was_going_already() {
    let mut before = loaded(&[]);
    // As a gate before leaves it: its program and maps, one in a slot of another.
    before.load(42, "audit_bpf", &[9]);
    before.map(8, "inner");
    before.map(9, "audit_calls");
    before.slot("0", Object::Map(MapId(8)));
    before.slot("1", program(41));
    before.any_link(7, 42, "perf_event");
    assert_eq!(settled(&before, &everything()).gone, []);
    // One process that holds the program keeps all of it.
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
    // The program is still there and held: somebody has detached and unpinned it.
    let taken = settled(&before, &loaded(&[SYSTEMD]));
    assert_eq!((taken.gone.len(), taken.gone_of_others.len()), (2, 0));
}

#[test]
fn many_things_of_others_take_one_line_each() {
    let (mut before, mut after) = (everything(), everything());
    for id in 50..70 {
        before.load(id, "sd_gone", &[]);
        before.hold(SYSTEMD, &[program(id)]);
        after.load(id + 100, "sd_devices", &[]);
        after.hold(SYSTEMD, &[program(id + 100)]);
    }
    let text = report(settled(&before, &after), Some(Ended::Exited(0))).text(Medium::FILE);
    let expected = "Made meanwhile by others (20):
  20 programs (sd_devices)
    held by process 1 (somebody), running since before the command

Gone with the processes that held them: 20 programs (sd_gone)

clean: the command left nothing behind; it ended with status 0; 20 made meanwhile by others do not count
";
    assert_eq!(text, expected);
    for id in 50..70 {
        before.load(id + 200, "left", &[]);
        before.on_device(id + 200, 2, "xdp", None);
    }
    let text = report(settled(&before, &after), Some(Ended::Exited(0))).text(Medium::FILE);
    assert!(text.contains("Gone, though the command had not made them (20):"), "{text}");
    assert!(text.contains("\n  and 15 programs; --format json names them\n"), "{text}");
}

fn report(aftermath: Aftermath, ended: Option<Ended>) -> GateReport {
    let host = everything().host;
    let gaps = aftermath.gaps();
    GateReport {
        schema_version: SCHEMA_VERSION,
        tool: Tool { name: "chadthrottle-audit".into(), version: "0.0.0".into() },
        host: Host { kernel: host.kernel, hostname: host.hostname, boot_id: host.boot_id },
        taken_at: "2026-11-23T17:30:02.500Z".into(),
        duration_ms: 2_500.0,
        command: CommandInfo {
            argv: vec!["make".into(), "check".into()],
            ended,
            not_run: None,
            duration_ms: 400.0,
        },
        programs: all(),
        settled_ms: 2_000.0,
        verdict: aftermath.verdict(),
        left: aftermath.left,
        others: aftermath.others,
        gone: aftermath.gone,
        gone_of_others: aftermath.gone_of_others,
        still_running: Vec::new(),
        gaps: gaps.into_iter().map(Into::into).collect(),
    }
}

#[test]
fn leaks_and_blindness_come_before_the_commands_own_status() {
    let status = |aftermath: &Aftermath, ended| report(aftermath.clone(), ended).exit_status();
    let leaks = settled(&everything(), &loaded(&[]));
    let mut after = everything();
    after.gap(Subject::Pins);
    let blind = settled(&everything(), &after);
    let clean = settled(&everything(), &everything());
    for (ended, own) in [
        (Ended::Exited(0), 0),
        (Ended::Exited(7), 7),
        (Ended::Killed(9), 137),
        (Ended::Killed(64), 192),
    ] {
        assert_eq!(status(&leaks, Some(ended)), 1);
        assert_eq!(status(&blind, Some(ended)), 2);
        assert_eq!(status(&clean, Some(ended)), own);
    }
    assert_eq!(status(&clean, None), 2, "what was not run was not seen to be clean");
}

/// With something of everything.
pub(crate) fn reported() -> GateReport {
    let mut before = everything();
    before.load(40, "sd_gone", &[]);
    before.on_device(40, 2, "xdp", None);
    let mut after = loaded(&[WORKER]);
    after.attach(41, A, EG);
    after.load(42, "sd_devices", &[]);
    after.hold(SYSTEMD, &[program(42)]);
    report(settled(&before, &after), Some(Ended::Exited(0)))
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
fn the_text_says_who_made_what_others_did_and_how_that_is_known() {
    let one = settled(&everything(), &loaded(&[SYSTEMD])).others.remove(0);
    let by = |is_of_command| LoadedBy { pid: 77, comm: "loader".into(), is_of_command };
    let others = "loaded by process 77 (loader), which the command did not start";
    for (evidence, loader, expected) in [
        (Evidence::Holders, Some(by(false)), "held by process 1 (somebody), running since before"),
        (Evidence::LoadedBefore, Some(by(false)), "loaded before the command was started"),
        (Evidence::LoadedAfter, None, "loaded when the command and all that it started was over"),
        (Evidence::Loader, Some(by(false)), others),
        (Evidence::Loader, None, "loaded by a process that the command did not start"),
        (Evidence::NotAsked, Some(by(false)), others),
        // It has loaded the program, and not attached it.
        (Evidence::NotAsked, Some(by(true)), "the command has made nothing of the kind"),
        (Evidence::NotAsked, None, "the command has made nothing of the kind"),
        (Evidence::Owner, None, "its owner was not started by the command"),
    ] {
        let left = Left { evidence: Some(evidence), loader, ..one.clone() };
        let aftermath = Aftermath { others: vec![left], ..Aftermath::default() };
        let text = report(aftermath, Some(Ended::Exited(0))).text(Medium::FILE);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected), "{evidence:?}: {text}");
    }
}

/// One thing that is left, or may be, or a gap; nothing for any other number.
pub(crate) fn of_kind(kind: usize) -> GateReport {
    let one = settled(&everything(), &loaded(&[])).left;
    let gap = Gap { about: Subject::Pins, what: "/x".into(), why: "denied".into() };
    report(
        Aftermath {
            left: one.iter().filter(|_| kind == 0).cloned().collect(),
            unclear: one.iter().filter(|_| kind == 1).cloned().collect(),
            gaps: [gap].into_iter().filter(|_| kind == 2).collect(),
            others: one.clone(),
            ..Aftermath::default()
        },
        Some(Ended::Exited(0)),
    )
}

#[test]
fn what_is_told_as_left_or_as_a_gap_counts_in_the_verdict_and_the_status_and_nothing_else_does() {
    for kind in 0..4 {
        let told = of_kind(kind);
        assert_eq!((told.left.len(), told.gaps.len()), [(1, 0), (0, 1), (0, 1), (0, 0)][kind]);
        let verdicts = [Verdict::Leaks, Verdict::Incomplete, Verdict::Incomplete, Verdict::Clean];
        assert_eq!(told.verdict, verdicts[kind]);
        for (ended, own) in [(Ended::Exited(0), 0), (Ended::Exited(7), 7), (Ended::Killed(9), 137)]
        {
            let mut told = of_kind(kind);
            told.command.ended = Some(ended);
            assert_eq!(told.exit_status(), [1, 2, 2, own][kind], "{ended:?}");
        }
        let mut not_run = of_kind(kind);
        not_run.command.ended = None;
        assert_eq!(not_run.exit_status(), [1, 2, 2, 2][kind]);
    }
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

#[test]
fn the_report_reads_as_it_should_and_comes_back_from_json() {
    let leaks = reported();
    insta::assert_snapshot!("gate-text", leaks.text(Medium::FILE));
    insta::assert_json_snapshot!("gate-json", leaks);
    let back: GateReport = serde_json::from_str(&leaks.json().unwrap()).unwrap();
    assert_eq!(back.json().unwrap(), leaks.json().unwrap());
    let results = leaks.results();
    assert!(matches!(results.checks[0].outcome, Outcome::Failed(_)));
    assert_eq!(results.checks[5].outcome, Outcome::Passed);
    let last = |report: GateReport| report.text(Medium::FILE).lines().last().unwrap().to_owned();
    assert_eq!(
        last(report(Aftermath::default(), Some(Ended::Killed(15)))),
        "clean: the command left nothing behind; it was ended by SIGTERM"
    );
    assert!(last(report(Aftermath::default(), None)).starts_with("incomplete: "));
}
