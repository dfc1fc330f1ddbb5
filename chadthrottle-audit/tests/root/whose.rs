//! Whose is what is new after a command: what others load, make and hold meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::Command;

use kernel::{AttachType, Program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;
use crate::gate::{Gate, left, piped, text};

#[test]
fn root_what_an_earlier_process_makes_meanwhile_is_told_and_does_not_count() {
    let names = Names::new();
    let gate = Gate::new(&names.leak);
    let mut child = piped(&mut gate.command(&["sh", "-c", "echo ready; cat"]));
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let program = Program::load_pass(&names.leak, AttachType::INET_EGRESS).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(report["others"][0]["program"]["id"], program.info().id.0);
    assert_eq!(report["others"][0]["holders"][0]["pid"], std::process::id());
    assert!(program.as_fd().try_clone_to_owned().is_ok(), "it is held until here");
}

#[test]
fn root_what_a_process_makes_that_others_start_meanwhile_is_told_and_does_not_count() {
    let cgroup = ScratchCgroup::new("stranger");
    let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
    let stranger = compiled(&folder, "tests/root/daemon.c");
    let gate = Gate::new(&names.leak);
    let mut child = piped(&mut gate.command(&["sh", "-c", "echo ready; cat"]));
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    // Started by this test while the command runs; what stays of it becomes a child of another process.
    let started =
        Command::new(&stranger).args([text(cgroup.path()), &names.leak]).output().unwrap();
    let pid: i32 = String::from_utf8_lossy(&started.stdout).trim().parse().unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let others = report["others"].as_array().unwrap();
    let kinds: Vec<&Value> = others.iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["attachment", "link", "program"]);
    let evidence: Vec<&Value> = others.iter().map(|it| &it["evidence"]).collect();
    assert_eq!(evidence, ["not_asked", "not_asked", "loader"]);
    for other in others {
        assert_eq!(other["holders"][0]["pid"], pid);
        assert_eq!(other["holders"][0]["origin"], "meanwhile");
    }
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("), which the command did not start"), "{talk}");
}

#[test]
fn root_what_others_leave_attached_meanwhile_does_not_count_though_nobody_holds_it() {
    let (cgroup, names) = (ScratchCgroup::new("forgotten"), Names::new());
    let gate = Gate::new(&names.leak);
    let mut child = piped(&mut gate.command(&["sh", "-c", "echo ready; cat"]));
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let theirs = plant(cgroup.path(), &names.leak, EGRESS, kernel::list::AttachFlags::MULTI);
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!((output.status.code(), left(&report)), (Some(0), vec![]), "{}", shown(&output));
    let others = report["others"].as_array().unwrap();
    let evidence: Vec<&Value> = others.iter().map(|it| &it["evidence"]).collect();
    assert_eq!(evidence, ["not_asked", "loader"], "{others:?}");
    assert!(others.iter().any(|it| it["program"]["id"] == theirs.0), "{}", shown(&output));
    let by = format!("process {} (", std::process::id());
    assert!(others[0]["reason"].as_str().unwrap().contains(&by), "{others:?}");
}

#[test]
fn root_what_a_command_attaches_that_others_have_loaded_meanwhile_is_not_passed_over() {
    isolate();
    let (cgroup, names) = (ScratchCgroup::new("handed"), Names::new());
    let gate = Gate { settle: "300ms", ..Gate::new(&names.leak) };
    let attach = format!(
        "echo ready; read -r _; bpftool cgroup attach {} egress pinned /sys/fs/bpf/p multi",
        text(cgroup.path())
    );
    let mut child = piped(&mut gate.command(&["sh", "-c", &attach]));
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let program = Program::load_pass(&names.leak, EGRESS).unwrap();
    let id = program.info().id;
    let pin = ["prog", "pin", "id", &id.to_string(), "/sys/fs/bpf/p"];
    assert!(Command::new("bpftool").args(pin).status().unwrap().success());
    drop((program, child.stdin.take()));
    let output = child.wait_with_output().unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!(attached(cgroup.path(), EGRESS), [id]);
    assert_eq!((output.status.code(), left(&report)), (Some(2), vec![]), "{}", shown(&output));
    let gaps = report["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let what = format!("program {id} ({}) on ", names.leak);
    assert!(gaps[0]["what"].as_str().unwrap().starts_with(&what), "{gaps:?}");
    // It has pinned nothing, so the pin is not its own.
    let others: Vec<&Value> =
        report["others"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(others, ["pin", "program"]);
}

#[test]
fn root_what_a_command_leaves_attached_is_its_own_though_a_monitor_has_it_open() {
    let (cgroup, folder) = (ScratchCgroup::new("monitored"), tempfile::tempdir().unwrap());
    let names = Names::new();
    let daemon = compiled(&folder, "tests/root/daemon.c");
    let gate = Gate { settle: "3s", ..Gate::new(&names.leak) };
    // It ends when somebody else has opened its link, and so keeps it.
    let script = format!("{daemon} {} {}; read -r _", text(cgroup.path()), names.leak);
    let mut child = piped(&mut gate.command(&["sh", "-c", &script]));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut pid = String::new();
    stdout.read_line(&mut pid).unwrap();
    let id = attached(cgroup.path(), EGRESS)[0];
    let links = kernel::objects::cgroup_links().unwrap().links;
    let link = links.iter().find(|link| link.program_id == id).unwrap().id;
    let _monitor = kernel::link::Link::open(link).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(left(&report), ["attachment", "link", "program"], "{}", shown(&output));
    let holder = &report["left"][1]["holders"][0];
    assert_eq!(
        (&holder["pid"], &holder["origin"]),
        (&std::process::id().into(), &"earlier".into())
    );
    let reason = report["left"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(", which the command started"), "{reason}");
}

#[test]
fn root_what_others_leave_when_the_command_is_over_does_not_count_though_nobody_holds_it() {
    let cgroup = ScratchCgroup::new("after");
    let names = Names::new();
    isolate();
    let gate = Gate { settle: "1m", ..Gate::new(&names.leak) };
    let (mut child, _stdout) = gate.around_a_pin();
    let mut talk = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The second look from now on begins after now, and each begins with a look whether anything of the command runs.
    let mut look_twice = || {
        let looks = talk.by_ref().filter(|line| line.contains("the host was looked at"));
        assert_eq!(looks.take(2).count(), 2);
    };
    look_twice();
    let theirs = plant(cgroup.path(), &names.leak, EGRESS, kernel::list::AttachFlags::MULTI);
    look_twice();
    std::fs::remove_file("/sys/fs/bpf/left").unwrap();
    // It would wait until somebody reads what it says.
    talk.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!((output.status.code(), left(&report)), (Some(0), vec![]), "{}", shown(&output));
    let others = report["others"].as_array().unwrap();
    let is_theirs = |it: &Value| it["evidence"] == "loaded_after" || it["evidence"] == "not_asked";
    assert!(others.iter().all(is_theirs), "{others:?}");
    assert!(others.iter().any(|it| it["program"]["id"] == theirs.0), "{}", shown(&output));
}
