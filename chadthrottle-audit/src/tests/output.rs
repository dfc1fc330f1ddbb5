//! Tests parts of the report and its text that are easy to get wrong.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

use auditor::facts::{Snapshot, Subject};
use auditor::judge::classify;
use auditor::report::{Report, report};
use kernel::AttachType;

use crate::formats::Rendition;
use crate::story::*;
use crate::text::render;

fn made(host: &Snapshot, all: bool) -> Report {
    report(host, &classify(host), all)
}

fn text(host: &Snapshot) -> String {
    render(&made(host, false), false, None)
}

/// Returns an orphan in a cgroup. The names of the cgroup and of a holder try to control a terminal.
fn hostile() -> Snapshot {
    let mut host = orphan();
    let path = OsString::from_vec(b"/a\n\x1b]0;x\x07\xff".to_vec());
    host.look().attachments.last_mut().unwrap().cgroup = path.into();
    host.look().programs.last_mut().unwrap().loaded.name = "chadthrottle\x1b[2".into();
    host.hold(99, &[program(41)]);
    host.look().holders.last_mut().unwrap().process.comm = "sh\x1b[8m\n".into();
    host.link(11, 41, 0, IN);
    host.pin("/sys/fs/bpf/\x1b[1m\u{202e}", link(11));
    host.gap(Subject::Pins);
    host.look().coverage.gaps[0].what = "/sys/fs/bpf/\x07".into();
    host.scope.programs = vec!["chad*".into()];
    host
}

#[test]
fn names_reach_a_terminal_escaped_only() {
    let host = hostile();
    for width in [None, Some(40)] {
        let text = render(&made(&host, false), false, width);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }
    insta::assert_snapshot!(text(&host));
}

#[test]
fn a_path_that_is_no_text_is_in_the_report_as_bytes_too() {
    let report = made(&hostile(), false);
    let cgroup = &report.leaks[0].cgroup.as_ref().unwrap();
    assert_eq!(cgroup.path, "/a\n\x1b]0;x\x07\u{fffd}");
    assert_eq!(cgroup.path_hex.as_deref(), Some("2f610a1b5d303b7807ff"));
    let ordinary = made(&orphan(), false).json().unwrap();
    assert!(!ordinary.contains("path_hex"));
}

#[test]
fn foreign_attachments_are_counted_always_and_listed_on_demand() {
    let (few, all) = (made(&orphan(), false), made(&orphan(), true));
    assert_eq!((few.attachments.len(), all.attachments.len()), (1, 4));
    assert_eq!(few.summary, all.summary);
    assert_eq!((few.summary.attachments, few.summary.foreign, few.summary.leaked), (4, 3, 1));
}

#[test]
fn attach_flags_have_names() {
    let mut host = orphan();
    let cases: [(u32, Option<u32>, &[&str]); 4] = [
        (0, None, &[]),
        (1, Some(1), &["override"]),
        (2, None, &["multi"]),
        (0, Some(2), &["multi"]),
    ];
    for (list, program, expected) in cases {
        let fact = host.look().attachments.last_mut().unwrap();
        (fact.list_flags, fact.program_flags) = (list, program);
        assert_eq!(made(&host, false).attachments[0].attach_flags, expected);
    }
}

#[test]
fn an_audit_below_a_cgroup_says_so() {
    let mut host = host();
    host.scope.root = "/system.slice".into();
    host.look().coverage.network_namespaces = None;
    assert!(text(&host).contains("29 attach types asked) below /system.slice; 0 active"));
}

#[test]
fn the_command_that_cleans_names_the_same_scope() {
    let advised = |root: &[u8], programs: &[&str], types: &[AttachType]| {
        let mut orphan = whole(orphan());
        if !types.is_empty() {
            orphan.scope.attach_types = types.to_vec();
        }
        orphan.scope.root = OsStr::from_bytes(root).into();
        orphan.scope.programs = programs.iter().map(|&glob| glob.to_owned()).collect();
        let text = text(&orphan);
        let line = text.lines().find_map(|line| line.strip_prefix("Remove what is leaked: "));
        line.map(ToOwned::to_owned).unwrap()
    };
    let command = |root: &[u8], programs: &[&str]| advised(root, programs, &[]);
    let ours = ["chadthrottle*"];
    assert_eq!(command(b"/", &ours), "chadthrottle-audit clean");
    assert_eq!(command(b"/a.slice", &ours), "chadthrottle-audit clean --root /a.slice");
    assert_eq!(command(b"/a b", &ours), "chadthrottle-audit clean --root '/a b'");
    assert_eq!(
        command(b"/it's\x1b\xff", &ours),
        r"chadthrottle-audit clean --root $'/it\'s\x1b\xff'"
    );
    assert_eq!(
        command(b"/", &["chad*", "x"]),
        "chadthrottle-audit clean --program 'chad*' --program x"
    );
    // Without the option the command would clean types that nobody has looked at.
    assert_eq!(
        advised(b"/", &ours, &[IN, EG]),
        "chadthrottle-audit clean --attach-type cgroup_inet_ingress --attach-type cgroup_inet_egress"
    );
    assert_eq!(
        advised(b"/a", &["chad*"], &[IN]),
        "chadthrottle-audit clean --root /a --program 'chad*' --attach-type cgroup_inet_ingress"
    );
}

#[test]
fn without_rows_there_is_no_table() {
    assert!(text(&host()).starts_with("clean: no leaked program in 212 cgroups"));
}

#[test]
fn numbers_are_grouped() {
    let mut host = host();
    host.look().coverage.cgroups_visited = 1_210_000;
    assert!(text(&host).contains("in 1,210,000 cgroups"));
}

#[test]
fn an_incomplete_audit_names_what_it_did_not_see() {
    let mut host = host();
    host.gap(Subject::Cgroups);
    insta::assert_snapshot!(text(&host));
}

/// Returns a host with a leak, a throttle and a gap.
fn mixed() -> Snapshot {
    let mut host = orphan();
    host.program(42, Some(&owner(4712)));
    host.owner_lives(&owner(4712), Some(true));
    // The kernel's order has the active attachment first.
    host.attach(42, 77, EG);
    host.look().attachments.reverse();
    host.gap(Subject::Pins);
    host
}

#[test]
fn leaks_come_first_and_are_red() {
    let text = render(&made(&mixed(), false), true, None);
    let row = text.lines().nth(1).unwrap();
    assert!(row.starts_with("\x1b[31morphaned_attachment"), "{row:?}");
    assert!(text.lines().nth(2).unwrap().starts_with("active"));
    assert!(text.contains("\x1b[1m\x1b[31mleaks: "));
    insta::assert_snapshot!(text.replace('\x1b', "ESC"));
}

#[test]
fn a_narrow_terminal_gets_a_list_with_whole_paths() {
    let text = render(&made(&mixed(), false), false, Some(60));
    assert!(text.starts_with("orphaned_attachment  /cgroup-9310\n"));
    insta::assert_snapshot!(text);
    assert_eq!(render(&made(&mixed(), false), false, Some(200)), self::text(&mixed()));
}
