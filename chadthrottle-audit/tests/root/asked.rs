//! What `clean` asks at a terminal, and what becomes of the answers.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use kernel::list::AttachFlags;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, openpty};
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::process::Mortal;

use crate::common::*;

const MULTI: AttachFlags = AttachFlags::MULTI;

/// Ctrl-D: there is no answer.
const END: &str = "\u{4}";

fn command(root: &Path, program: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit"));
    command.args(["clean", "--program", program]).args(more).arg("--root").arg(root);
    command
}

/// How it ended, what it wrote to standard output, and what the terminal showed.
struct Session {
    status: i32,
    stdout: String,
    shown: String,
}

/// No other child of this process gets it.
fn pseudo_terminal() -> OpenptyResult {
    let pty = openpty(None, None).unwrap();
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    pty
}

/// Runs `clean` at a terminal, with its output in a pipe. It finds what is typed when it asks.
fn at_terminal(mut command: Command, typed: &str) -> Session {
    let OpenptyResult { master, slave } = pseudo_terminal();
    command.stdin(slave.try_clone().unwrap()).stderr(slave).stdout(Stdio::piped());
    let mut child = Mortal::from(command.spawn().unwrap());
    // It has the terminal now, and nobody else does.
    drop(command);
    let mut master = File::from(master);
    master.write_all(typed.as_bytes()).unwrap();
    let mut shown = Vec::new();
    let end = master.read_to_end(&mut shown).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(nix::libc::EIO), "a terminal that nobody has open");
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    Session {
        status: child.wait().unwrap().code().unwrap(),
        stdout,
        shown: String::from_utf8(shown).unwrap(),
    }
}

#[test]
fn root_only_after_a_yes_is_anything_removed() {
    let cgroup = ScratchCgroup::new("asked");
    let names = Names::new();
    for (typed, is_yes) in
        [("y\n", true), (" YES \n", true), ("n\n", false), ("yesterday\n", false), (END, false)]
    {
        let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
        let session = at_terminal(command(cgroup.path(), &names.leak, &[]), typed);
        let Session { status, stdout, shown } = &session;
        assert!(shown.contains("Do this? [y/N] "), "{typed:?}: {shown}");
        assert!(shown.contains(&format!("would detach program {leak} ")), "{typed:?}: {shown}");
        assert_eq!(shown.contains("Nothing was done."), !is_yes, "{typed:?}: {shown}");
        if is_yes {
            assert_eq!((*status, attached(cgroup.path(), INGRESS)), (0, vec![]), "{shown}");
            // The step, and the verdict of the scan after it.
            assert!(stdout.starts_with(&format!("detached program {leak} ")), "{stdout}");
            assert!(stdout.contains("\n\n") && stdout.contains("clean"), "{stdout}");
        } else {
            assert_eq!((*status, attached(cgroup.path(), INGRESS)), (1, vec![leak]), "{shown}");
            assert_eq!(stdout, "");
            assert_eq!(clean(cgroup.path(), &names.leak).status.code(), Some(0));
        }
    }
}

#[test]
fn root_what_is_declined_is_told_in_json_as_left() {
    let cgroup = ScratchCgroup::new("declined");
    let names = Names::new();
    let leaks = [INGRESS, EGRESS].map(|it| plant(cgroup.path(), &names.leak, it, MULTI));
    let session = at_terminal(command(cgroup.path(), &names.leak, &["--format", "json"]), "n\n");
    assert!(session.shown.contains("Do these 2 things? [y/N] "), "{}", session.shown);
    let report: Value = serde_json::from_str(&session.stdout).unwrap();
    assert_eq!((session.status, &report["summary"]["left"]), (1, &2.into()), "{report}");
    for step in report["steps"].as_array().unwrap() {
        assert_eq!(
            (&step["outcome"], &step["why"]),
            (&"left".into(), &"nobody agreed to it".into())
        );
    }
    assert_eq!(attached(cgroup.path(), INGRESS), [leaks[0]]);
    assert_eq!(attached(cgroup.path(), EGRESS), [leaks[1]]);
}

#[test]
fn root_each_program_that_is_to_go_by_force_is_asked_about() {
    let cgroup = ScratchCgroup::new("each");
    let names = Names::new();
    let unowned = [(); 3].map(|()| plant(cgroup.path(), &names.foreign, INGRESS, MULTI));
    let ids = unowned.map(|id| id.to_string());
    let more = ["--force", &ids[0], "--force", &ids[1]];
    let session = at_terminal(command(cgroup.path(), &names.foreign, &more), "n\ny\n");
    let Session { status, stdout, shown } = &session;
    for id in &ids[..2] {
        assert!(shown.contains(&format!("Remove program {id} ")), "{shown}");
    }
    assert!(!shown.contains("Do this"), "there is no leak: {shown}");
    assert!(stdout.starts_with(&format!("detached program {} ", ids[1])), "{stdout}");
    assert_eq!((*status, attached(cgroup.path(), INGRESS)), (0, vec![unowned[0], unowned[2]]));
}

#[test]
fn root_who_cannot_see_the_question_or_not_answer_it_is_not_asked() {
    let cgroup = ScratchCgroup::new("blind");
    let names = Names::new();
    let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let refused = |mut command: Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", shown(&output));
    };
    let OpenptyResult { master, slave } = pseudo_terminal();
    File::from(master.try_clone().unwrap()).write_all(b"y\n").unwrap();
    let mut blind = command(cgroup.path(), &names.leak, &[]);
    blind.stdin(slave.try_clone().unwrap());
    refused(blind);
    let mut mute = command(cgroup.path(), &names.leak, &[]);
    mute.stdin(Stdio::null()).stderr(slave);
    refused(mute);
    assert_eq!(attached(cgroup.path(), INGRESS), [leak]);
}
