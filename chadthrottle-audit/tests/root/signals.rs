//! Signals to the gate, to its command and from it.

use std::io::{BufRead, BufReader, Read};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use testkit::isolation::isolate;

use crate::common::*;
use crate::gate::{Gate, left, pid_of, piped};

#[test]
fn root_a_command_has_the_signals_blocked_and_ignored_that_it_has_without_the_gate() {
    let argv = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let alone = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    let (output, _) = Gate::new(&Names::new().leak).run(&argv);
    assert_eq!(output.stdout, alone.stdout, "{}", shown(&output));
}

#[test]
fn root_a_signal_is_passed_on_and_the_gate_still_reports() {
    let gate = Gate::new(&Names::new().leak);
    // Told to end, it ends in its own way; nothing but the signal ends it.
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = piped(&mut gate.command(&["sh", "-c", script]));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(pid_of(&child), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(3), "told\n"));
    assert_eq!(gate.report("")["verdict"], "clean");
}

#[test]
fn root_every_signal_that_is_for_a_program_is_passed_on() {
    for name in "HUP INT QUIT USR1 USR2 ALRM TERM VTALRM PROF IO PWR WINCH".split(' ') {
        let gate = Gate::new(&Names::new().leak);
        // It ends by itself, for nobody else ends it where the signal has ended the gate.
        let script = format!(
            "trap 'exit 3' {name}; kill -{name} $PPID; for i in $(seq 100); do sleep 0.05; done"
        );
        let (output, report) = gate.run(&["sh", "-c", &script]);
        let found = (output.status.code(), &report["verdict"]);
        assert_eq!(found, (Some(3), &"clean".into()), "{name}: {}", shown(&output));
    }
}

#[test]
fn root_a_signal_while_the_gate_waits_for_what_is_left_ends_it_without_a_verdict() {
    isolate();
    // Longer than any test may take.
    let gate = Gate { settle: "1h", ..Gate::new(&Names::new().leak) };
    let (child, _stdout) = gate.around_a_pin();
    kill(pid_of(&child), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let report = gate.report(&shown(&output));
    assert_eq!((&report["verdict"], left(&report)), (&"incomplete".into(), vec![]));
    let why = report["gaps"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("SIGTERM ended the gate before it had looked long enough"), "{why}");
    // What it had found by then is told, and not that there was nothing.
    assert!(why.contains("still there: pin /sys/fs/bpf/left of map "), "{why}");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("\nincomplete: nothing was shown to be left behind"), "{talk}");
}
