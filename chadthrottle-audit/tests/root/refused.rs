//! What is said where `bpf(2)` is refused: by a policy (EPERM), or in a sandbox without it (ENOSYS).

use std::process::{Command, Output};

use testkit::isolation::isolate;

/// Runs the program; each of its calls of `bpf(2)` is answered with an errno.
fn refused(errno: &str, args: &[&str]) -> Output {
    let mut strace = Command::new("strace");
    strace.args(["-qqq", "-f", "-o", "/dev/null", "-e", "signal=none", "-e", "trace=bpf"]);
    strace.args(["-e", &format!("inject=bpf:error={errno}")]);
    strace.arg(env!("CARGO_BIN_EXE_chadthrottle-audit")).args(args);
    strace.output().expect("strace has to be here: run scripts/setup test")
}

/// What was not seen, in the report.
fn unseen(report: &str) -> &str {
    let paragraph = report.split("\n\n").find(|it| it.trim_start().starts_with("Not seen"));
    paragraph.unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn root_an_audit_that_a_policy_forbids_is_incomplete_and_names_the_policy_once() {
    isolate();
    for (errno, reason) in [("EPERM", "a security policy"), ("ENOSYS", "has no bpf()")] {
        let output = refused(errno, &["scan"]);
        let report = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2), "{report}");
        let unseen = unseen(&report);
        assert_eq!(unseen.matches(reason).count(), 1, "{report}");
        assert!(!unseen.contains("run as root") && !unseen.contains("join"), "{report}");
    }
}

#[test]
fn root_a_gate_that_a_policy_blinds_does_not_run_the_command() {
    isolate();
    for errno in ["EPERM", "ENOSYS"] {
        let output = refused(errno, &["gate", "--", "touch", "/run/was-run"]);
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(!std::path::Path::new("/run/was-run").exists(), "{talk}");
        assert!(talk.contains("incomplete: the command was not run"), "{talk}");
    }
}
