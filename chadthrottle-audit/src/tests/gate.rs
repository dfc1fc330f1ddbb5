//! Tests the report about what a command left behind, in every format.

use auditor::facts::{Gap, Subject, Tool};
use auditor::gate::{Aftermath, Evidence, Left, LoadedBy};
use auditor::judge::Verdict;
use terminal::Medium;

use crate::documents::{CommandInfo, Ended, GateReport};
use crate::formats::Rendition;
use crate::results::Outcome;
use crate::story::*;

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
        schema_version: GateReport::SCHEMA_VERSION,
        tool: Tool { name: "chadthrottle-audit".into(), version: "0.0.0".into() },
        host: host.host,
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
        left: aftermath.left.into_iter().map(Into::into).collect(),
        others: aftermath.others.into_iter().map(Into::into).collect(),
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

/// Returns a report with something in every part.
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
        // The command loaded the program, but did not attach it.
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

/// Returns a report with one thing that is left (0), one that may be (1), or a gap (2); otherwise nothing.
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
