//! Runs `chadthrottle-audit clean` beside three processes that attach and detach.
//!
//! Runs for some seconds, or as many as `GATE_CLEAN_SECONDS` says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kernel::AttachType;
use testkit::binaries;
use testkit::bystander::{Account, list};
use testkit::cgroup::ScratchCgroup;
use testkit::env;
use testkit::leak::{foreign_name, own_name};

const SECONDS: u64 = 3;

const BYSTANDERS: u64 = 3;

/// How often to clean at most when nobody leaks any more.
const LAST_CLEANS: usize = 20;

/// A process that attaches, detaches and leaks.
struct Bystander {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Bystander {
    fn new(arguments: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bystander"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut bystander = Self { child, to, from };
        assert_eq!(bystander.line(), "ready\n");
        bystander
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }

    /// Whether it has found that something of its own is gone, or failed otherwise: it has said so.
    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Tells it to stop, and asks what it has done. What it has attached stays until it is dropped.
    fn stop(&mut self) -> Account {
        // One that has ended does not read it, and does not answer.
        let _ = self.to.as_mut().unwrap().write_all(b"stop\n");
        let line = self.line();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("a bystander failed: {error}: {line:?}"))
    }

    fn end(&mut self) {
        drop(self.to.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of all cleans.
#[derive(Debug, Default)]
struct Cleaned {
    times: u64,
    /// How often each exit status.
    statuses: BTreeMap<i32, u64>,
    removed: u64,
    /// Of these, from the list of one.
    removed_alone: u64,
    failed: u64,
}

impl Cleaned {
    fn add(&mut self, output: &Output) -> i32 {
        let status = output.status.code().expect("it was not killed");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!((0..=2).contains(&status), "{status}: {talk}");
        let text = String::from_utf8_lossy(&output.stdout);
        let removed = || text.lines().filter(|line| line.starts_with("detached program"));
        self.times += 1;
        *self.statuses.entry(status).or_default() += 1;
        self.removed += removed().count() as u64;
        self.removed_alone += removed().filter(|line| line.contains("/Single,")).count() as u64;
        self.failed += text.lines().filter(|line| line.starts_with("FAILED")).count() as u64;
        status
    }
}

#[test]
fn root_cleaning_beside_others_who_attach_and_detach_removes_every_leak_and_nothing_else() {
    let time = Duration::from_secs(env::number("GATE_CLEAN_SECONDS").unwrap_or(SECONDS));
    let cgroup = ScratchCgroup::new("beside");
    let (ours, foreign) = (own_name(), foreign_name());
    let shared = ["a", "a/b"].map(|name| cgroup.child(name));
    // Before 6.17 nobody can detach from such a list, and be sure of what is detached, while others use it.
    let has_revisions = kernel::probe::support().unwrap().expected_revision;
    // By its name it is cleaned before those where its programs are as well.
    let single = has_revisions.then(|| cgroup.child("Single"));
    let mut bystanders: Vec<Bystander> = (1..=BYSTANDERS)
        .map(|seed| {
            let seed = seed.to_string();
            let mut arguments: Vec<String> =
                ["--seed", &seed, "--ours", &ours, "--foreign", &foreign].map(str::to_owned).into();
            if let (Some(single), "1") = (&single, &*seed) {
                arguments.extend(["--single".to_owned(), single.to_str().unwrap().to_owned()]);
            }
            arguments.extend(shared.iter().map(|it| it.to_str().unwrap().to_owned()));
            Bystander::new(&arguments)
        })
        .collect();
    let auditor = binaries::find("chadthrottle-audit").unwrap();
    let clean = || {
        let mut command = Command::new(&auditor);
        command.args(["clean", "--yes", "--settle", "10ms", "--program", &ours, "--root"]);
        command.arg(cgroup.path()).output().unwrap()
    };

    let mut cleaned = Cleaned::default();
    let start = Instant::now();
    while start.elapsed() < time {
        cleaned.add(&clean());
        for bystander in &mut bystanders {
            assert!(!bystander.has_ended(), "a bystander has lost something: see above");
        }
    }
    let took = start.elapsed();
    let accounts: Vec<Account> = bystanders.iter_mut().map(Bystander::stop).collect();
    let mut last = clean();
    for _ in 0..LAST_CLEANS {
        if cleaned.add(&last) == 0 {
            break;
        }
        last = clean();
    }

    let sum = |of: fn(&Account) -> u64| accounts.iter().map(of).sum::<u64>();
    let (leaked, leaked_alone) = (sum(|it| it.leaked), sum(|it| it.leaked_alone));
    println!(
        "beside {BYSTANDERS} processes for {took:.0?}: {} operations of theirs, each followed by a look at all that is \
         theirs ({} looks), {} leaks planted ({leaked_alone} of them in a list of one); cleaned {} times (exit status {:?}), \
         {} leaks removed, {} not at the first try",
        sum(|it| it.operations),
        sum(|it| it.checks),
        leaked + leaked_alone,
        cleaned.times,
        cleaned.statuses,
        cleaned.removed,
        cleaned.failed,
    );

    let places = shared.iter().chain(&single);
    let places: Vec<(PathBuf, AttachType)> = places
        .flat_map(|cgroup| {
            [AttachType::INET_INGRESS, AttachType::INET_EGRESS].map(|it| (cgroup.clone(), it))
        })
        .collect();
    let mut there = Vec::new();
    for place in &places {
        let ids = list(place).unwrap();
        there.extend(ids.into_iter().map(|id| (place.0.clone(), place.1, id)));
    }
    let mut expected: Vec<_> = accounts.iter().flat_map(|it| it.attached.clone()).collect();
    there.sort();
    expected.sort();
    assert_eq!(there, expected, "what is there is what its makers mean to be there");
    assert_eq!(cleaned.removed - cleaned.removed_alone, leaked, "each leak was removed once");
    assert!(cleaned.removed_alone <= leaked_alone, "others were replaced before anybody cleaned");
    assert!(leaked > 0 && cleaned.removed > 0, "there was something to do");
    let output = clean();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    bystanders.iter_mut().for_each(Bystander::end);
}
