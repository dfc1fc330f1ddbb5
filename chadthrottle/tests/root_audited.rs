//! What the auditor, which knows nothing of the engine, says of the throttles of today.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use auditor::clean::{Cleaner, Outcome};
use auditor::collect::{DEFAULT_SETTLE, Options, collect};
use auditor::judge::{Finding, Verdict, classify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::process::Mortal;

/// `chadthrottle limit`, both directions, armed.
fn limit(cgroup: &Path, attach: &str) -> Mortal {
    let mut child: Mortal = Command::new(env!("CARGO_BIN_EXE_chadthrottle"))
        .args(["limit", "--download", "1M", "--upload", "1M", "--attach", attach, "--cgroup"])
        .arg(cgroup)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
        .into();
    let mut armed = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut armed).unwrap();
    assert!(armed.starts_with("limiting "), "{armed}");
    child
}

fn end(mut child: Mortal, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    child.wait().unwrap();
}

fn options(cgroup: &ScratchCgroup) -> Options {
    Options { root: cgroup.relative(), settle: Duration::from_millis(20), ..Options::default() }
}

fn audit(cgroup: &ScratchCgroup) -> (Verdict, Vec<Finding>) {
    let snapshot = collect(&options(cgroup)).unwrap();
    let classified = classify(&snapshot);
    (classified.verdict, classified.attachments.iter().map(|judged| judged.finding).collect())
}

#[test]
fn root_a_throttle_whose_process_runs_is_active() {
    isolate();
    let cgroup = ScratchCgroup::new("active");
    for attach in ["link", "legacy"] {
        let throttle = limit(cgroup.path(), attach);
        assert_eq!(audit(&cgroup), (Verdict::Clean, vec![Finding::Active; 3]), "{attach}");
        end(throttle, Signal::SIGTERM);
        assert_eq!(audit(&cgroup), (Verdict::Clean, vec![]), "{attach}");
    }
}

#[test]
fn root_a_pinned_throttle_is_pinned_and_without_its_record_an_orphaned_pin() {
    isolate();
    let cgroup = ScratchCgroup::new("pinned");
    limit(cgroup.path(), "pinned").wait().unwrap();
    assert_eq!(audit(&cgroup), (Verdict::Clean, vec![Finding::Pinned; 3]));
    std::fs::remove_file("/run/chadthrottle/1.json").unwrap();
    assert_eq!(audit(&cgroup), (Verdict::Leaks, vec![Finding::OrphanedPin; 3]));
}

#[test]
fn root_what_a_killed_legacy_throttle_left_is_an_orphan_and_is_cleaned() {
    isolate();
    let cgroup = ScratchCgroup::new("killed");
    end(limit(cgroup.path(), "legacy"), Signal::SIGKILL);
    assert_eq!(audit(&cgroup), (Verdict::Leaks, vec![Finding::OrphanedAttachment; 3]));

    let cleaner = Cleaner::new(&options(&cgroup)).unwrap();
    let scanned = cleaner.scan(DEFAULT_SETTLE).unwrap();
    cleaner.clean(&classify(&scanned), |done| assert_eq!(done.outcome, Outcome::Removed));
    assert_eq!(audit(&cgroup), (Verdict::Clean, vec![]));

    // What is left in the ledger is in nobody's way.
    end(limit(cgroup.path(), "legacy"), Signal::SIGTERM);
    assert!(bpf::ledger::read(Path::new("/run/chadthrottle")).unwrap().entries.is_empty());
}

#[test]
fn root_a_killed_throttle_in_link_mode_leaves_nothing_to_find() {
    isolate();
    let cgroup = ScratchCgroup::new("link");
    end(limit(cgroup.path(), "link"), Signal::SIGKILL);
    assert_eq!(audit(&cgroup), (Verdict::Clean, vec![]));
}
