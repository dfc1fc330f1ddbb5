//! A limit whose cgroup is removed, as a service's is when it restarts.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use auditor::collect::{Options, collect};
use auditor::judge::{Finding, Verdict, classify};
use kernel::cgroup::Cgroup;
use kernel::list::{Scope, detach, query};
use kernel::{AttachType, Program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cgroup::{ScratchCgroup, enter};
use testkit::isolation::isolate;
use testkit::process::{Mortal, soon};
use testkit::traffic::{flood_above, socket};

use crate::common::{audit, programs};

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LEDGER: &str = "/run/chadthrottle";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Said {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Said {
    let output = program(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// 100 kB/s, and a burst of 20 ms: what an emulated processor can send more than, however busy it is.
const LIMIT: (u64, Duration) = (100_000, Duration::from_millis(20));

/// `chadthrottle limit --upload`, armed. Its programs: one for uploads, and one for TCP.
struct Limit(Mortal);

impl Limit {
    fn start(cgroup: &Path, args: &[&str]) -> Self {
        let cgroup = cgroup.to_str().unwrap();
        let mut child: Mortal =
            program(&["limit", "--upload", "100k", "--burst", "20ms", "--cgroup", cgroup])
                .args(args)
                .spawn()
                .unwrap()
                .into();
        let mut armed = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut armed).unwrap();
        assert!(armed.starts_with("limiting "), "{armed}");
        Self(child)
    }

    /// Waits until it says so.
    fn says(&mut self, words: &str) {
        let (mut said, mut byte) = (String::new(), [0]);
        while !said.ends_with(words) {
            assert_eq!(self.0.stderr.as_mut().unwrap().read(&mut byte).unwrap(), 1, "{said}");
            said.push(char::from(byte[0]));
        }
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn end(mut self) -> Said {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Said { status: self.0.wait().unwrap(), stdout, stderr }
    }

    fn interrupt(self) -> Said {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.end()
    }
}

fn entries() -> Vec<bpf::ledger::Entry> {
    let ledger = bpf::ledger::read(Path::new(LEDGER)).unwrap();
    ledger.entries.into_iter().map(|(_, entry)| entry).collect()
}

#[test]
fn root_a_limit_follows_the_path_when_the_cgroup_is_made_again() {
    isolate();
    let cgroup = ScratchCgroup::new("follow");
    for attach in ["link", "legacy"] {
        let service = cgroup.child("service");
        let limit = Limit::start(&service, &["--attach", attach]);
        for _ in 0..3 {
            fs::remove_dir(&service).unwrap();
            fs::create_dir(&service).unwrap();
            soon("it is armed again", || programs(&service) == 2);
        }
        let receiver = socket(LOOPBACK);
        let sender = {
            let _inside = enter(&service);
            socket(LOOPBACK)
        };
        let flood = flood_above(&sender, &receiver, LIMIT, Duration::from_secs(1));
        flood.assert_limited(LIMIT.0, LIMIT.1);
        let said = limit.interrupt();
        assert!(said.status.success(), "{}", said.stderr);
        assert!(said.stderr.contains("limiting "), "{}", said.stderr);
        assert!(said.stdout.contains("upload    passed "), "{}", said.stdout);
        assert_eq!((programs(&service), entries().len()), (0, 0), "{attach}");
    }
}

#[test]
fn root_the_summary_counts_what_every_cgroup_sent_that_had_the_path() {
    isolate();
    let cgroup = ScratchCgroup::new("summary");
    for attach in ["link", "legacy"] {
        let service = cgroup.child("service");
        let limit = Limit::start(&service, &["--attach", attach]);
        let receiver = socket(LOOPBACK);
        let mut senders = Vec::new();
        for _ in 0..2 {
            let sender = {
                let _inside = enter(&service);
                socket(LOOPBACK)
            };
            for _ in 0..3 {
                sender.send_to(b"out", receiver.local_addr().unwrap()).unwrap();
            }
            // With its last socket the kernel drops what it has counted on a removed cgroup. The limit may be late.
            senders.push(sender);
            fs::remove_dir(&service).unwrap();
            fs::create_dir(&service).unwrap();
            soon("it is armed", || programs(&service) == 2);
        }
        drop(senders);
        fs::remove_dir(&service).unwrap();
        // It ends while it waits.
        soon("it waits", || entries().iter().any(|entry| entry.waiting));
        let said = limit.interrupt();
        assert!(said.status.success(), "{}", said.stderr);
        assert!(
            said.stdout.contains("(6 packets), dropped 0 B"),
            "{attach}: {}{}",
            said.stdout,
            said.stderr
        );
    }
}

#[test]
fn root_a_limit_waits_for_its_cgroup_and_nobody_takes_it_for_a_leak() {
    isolate();
    let cgroup = ScratchCgroup::new("waits");
    let (above, service) = (cgroup.child("above"), cgroup.child("above/service"));
    let limit = Limit::start(&service, &[]);
    let owner = limit.0.id();
    // Those above are removed as well.
    fs::remove_dir(&service).unwrap();
    fs::remove_dir(&above).unwrap();
    soon("it says that it waits", || entries().iter().any(|entry| entry.waiting));
    soon("the old links are gone", || !audit(owner).contains(&Finding::DefunctLink));
    let found = audit(owner);
    assert!(found.contains(&Finding::Waiting), "{found:?}");
    assert!(found.iter().all(|finding| !finding.is_leak()), "{found:?}");

    let list = run(&["list", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let rows = json["throttles"].as_array().unwrap();
    let row = rows.iter().find(|row| row["owner_pid"] == owner).unwrap();
    assert_eq!((&row["finding"], &row["attach"]), (&"waiting".into(), &"link".into()));
    assert_eq!(row["rate_bytes_per_second"], LIMIT.0);
    assert_eq!(row["cgroup"].as_str().map(PathBuf::from), {
        Some(cgroup.relative().join("above/service"))
    });
    let list = run(&["list"]);
    assert!(list.stdout.contains("link, waiting"), "{}", list.stdout);

    fs::create_dir_all(&service).unwrap();
    soon("it is armed again", || programs(&service) == 2);
    soon("the record of waiting is gone", || entries().is_empty());
    let found = audit(owner);
    assert!(found.contains(&Finding::Active) && found.iter().all(|it| !it.is_leak()), "{found:?}");
    let said = limit.interrupt();
    assert!(said.status.success(), "{}", said.stderr);
    assert!(said.stderr.contains("waiting for another one"), "{}", said.stderr);
}

#[test]
fn root_the_duration_goes_on_while_the_limit_waits() {
    isolate();
    let cgroup = ScratchCgroup::new("duration");
    let service = cgroup.child("service");
    let began = Instant::now();
    let limit = Limit::start(&service, &["--duration", "3s"]);
    fs::remove_dir(&service).unwrap();
    let said = limit.end();
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(said.status.success(), "{}", said.stderr);
    assert!(entries().is_empty());
}

#[test]
fn root_once_ends_with_the_cgroup_and_says_if_that_was_too_early() {
    isolate();
    let cgroup = ScratchCgroup::new("once");
    for (more, status) in [(&[][..], 0), (&["--duration", "1h"][..], 1)] {
        let service = cgroup.child("service");
        let limit = Limit::start(&service, &[&["--once"], more].concat());
        fs::remove_dir(&service).unwrap();
        let said = limit.end();
        assert_eq!(said.status.code(), Some(status), "{}", said.stderr);
        assert!(said.stderr.contains("nothing left to limit"), "{}", said.stderr);
        assert_eq!(said.stderr.contains("before the duration was over"), status == 1);
    }
    let service = cgroup.child("service");
    let said = run(&[
        "limit",
        "--upload",
        "1M",
        "--once",
        "--attach",
        "pinned",
        "--cgroup",
        service.to_str().unwrap(),
    ]);
    assert!(!said.status.success() && said.stderr.contains("--once"), "{}", said.stderr);
}

/// The kernel runs the programs of a removed cgroup for its sockets until the last of them is closed.
#[test]
fn root_sockets_of_a_removed_cgroup_stay_limited_until_they_are_closed() {
    isolate();
    let cgroup = ScratchCgroup::new("sockets");
    for attach in ["link", "legacy"] {
        let service = cgroup.child("service");
        let sender = {
            let _inside = enter(&service);
            socket(LOOPBACK)
        };
        let mut limit = Limit::start(&service, &["--once", "--attach", attach]);
        let owner = limit.0.id();
        fs::remove_dir(&service).unwrap();
        soon("it says that it waits", || entries().iter().any(|entry| entry.waiting));
        let receiver = socket(LOOPBACK);
        let flood = flood_above(&sender, &receiver, LIMIT, Duration::from_secs(1));
        flood.assert_limited(LIMIT.0, LIMIT.1);
        limit.says("still open: they stay limited");
        assert!(!limit.has_ended(), "{attach}");
        let found = audit(owner);
        assert!(found.iter().all(|finding| !finding.is_leak()), "{attach}: {found:?}");
        drop(sender);
        let said = limit.end();
        assert!(said.status.success(), "{}", said.stderr);
        assert!(entries().is_empty(), "{attach}");
    }
}

#[test]
fn root_a_pinned_throttle_waits_for_its_cgroup_and_is_armed_again_or_ended() {
    isolate();
    let cgroup = ScratchCgroup::new("pinned");
    let service = cgroup.child("service");
    let path = service.to_str().unwrap();
    let made = run(&["limit", "--cgroup", path, "--upload", "1M", "--attach", "pinned"]);
    assert!(made.status.success(), "{}", made.stderr);
    let owner = entries()[0].owner.pid;
    fs::remove_dir(&service).unwrap();
    // The kernel lets go of the links a moment later.
    soon("it waits", || audit(owner) == [Finding::Waiting; 2]);
    // The next start leaves it alone.
    let other = cgroup.child("other");
    let said = Limit::start(&other, &[]).interrupt();
    assert!(said.status.success(), "{}", said.stderr);
    let list = run(&["list", "--wide"]);
    let row = list.stdout.lines().find(|line| line.starts_with("1 ")).unwrap_or_default();
    assert!(row.contains("pinned, waiting") && row.contains("1 MB/s"), "{}", list.stdout);
    let away = run(&["rearm", "1"]);
    assert_eq!(away.status.code(), Some(1), "{}", away.stderr);
    assert!(away.stderr.contains("there is no cgroup at"), "{}", away.stderr);

    fs::create_dir(&service).unwrap();
    let armed = run(&["rearm"]);
    assert!(armed.status.success(), "{}", armed.stderr);
    assert_eq!(armed.stdout, format!("armed 1 again on {path}\n"));
    let snapshot = collect(&Options { root: cgroup.relative(), ..Options::default() }).unwrap();
    let classified = classify(&snapshot);
    assert_eq!(classified.verdict, Verdict::Clean);
    let findings: Vec<_> = classified.attachments.iter().map(|judged| judged.finding).collect();
    assert_eq!(findings, [Finding::Pinned; 2]);

    fs::remove_dir(&service).unwrap();
    let removed = run(&["rm", "1"]);
    assert!(removed.status.success(), "{}", removed.stderr);
    assert!(entries().is_empty() && !Path::new("/sys/fs/bpf/chadthrottle/1").exists());
}

#[test]
fn root_a_limit_that_somebody_takes_off_ends_with_a_status_that_says_so() {
    isolate();
    let cgroup = ScratchCgroup::new("taken");
    let mut limit = Limit::start(cgroup.path(), &["--attach", "legacy"]);
    let (open, at) = (Cgroup::open(cgroup.path()).unwrap(), AttachType::INET_EGRESS);
    let id = query(&open, at, Scope::Local, false).unwrap().programs[0].id;
    detach(Program::open(id).unwrap().as_fd(), &open, at, None).unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(limit.0.stderr.as_mut().unwrap());
    while !said.contains("does not limit any more") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let ended = limit.interrupt();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("the limit did not hold all the time"), "{}", ended.stderr);
}

/// A limit in a mount namespace of its own, which shows only two parts of the hierarchy.
struct Inside(Limit);

impl Inside {
    fn start(parts: [&Path; 2]) -> Self {
        let [part, other] = parts.map(Path::display);
        let all = kernel::cgroup::cgroup2_mount().unwrap();
        let script = format!(
            "mkdir -p /run/part /run/other && mount --bind {part} /run/part && mount --bind {other} /run/other \
             && umount -l {} && exec \"$@\"",
            all.display()
        );
        let limit = ["limit", "--upload", "1M", "--guard", "--duration", "2m"];
        let mut child: Mortal = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_chadthrottle")])
            .args(limit)
            .args(["--cgroup", "/run/part/service"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .into();
        let mut armed = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut armed).unwrap();
        assert!(armed.starts_with("limiting /run/part/service"), "{armed}");
        Self(Limit(child))
    }

    fn run(&self, command: &str) {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.0.0.id());
        let mut inside = Command::new("nsenter");
        assert!(inside.args([&namespace, "sh", "-c", command]).status().unwrap().success());
    }
}

#[test]
fn root_a_limit_that_waits_does_not_follow_its_path_through_another_mount() {
    isolate();
    let cgroup = ScratchCgroup::new("remounted");
    let (meant, stranger) = (cgroup.child("meant"), cgroup.child("stranger"));
    let (service, namesake) = (cgroup.child("meant/service"), cgroup.child("stranger/service"));
    let mut inside = Inside::start([&meant, &stranger]);
    soon("the guard is there", || programs(&meant) == 1);
    fs::remove_dir(&service).unwrap();
    inside.run("mount --bind /run/other /run/part");
    let mut said = String::new();
    let mut stderr = BufReader::new(inside.0.0.stderr.take().unwrap());
    for why in ["the new cgroup cannot be limited", "will not be held (--guard)"] {
        while !said.contains(why) {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
        }
        assert!(said.ends_with("or end this limit and start another one\n"), "{said}");
    }
    soon("the guard has gone", || programs(&meant) == 0);
    // Some looks later nobody else is limited.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((programs(&namesake), programs(&stranger)), (0, 0));

    inside.run("umount /run/part");
    fs::create_dir(&service).unwrap();
    soon("it is armed again", || programs(&service) == 2 && programs(&meant) == 1);
    kill(Pid::from_raw(i32::try_from(inside.0.0.id()).unwrap()), Signal::SIGINT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(inside.0.0.wait().unwrap().code(), Some(1), "{said}");
    assert_eq!(said.matches("may be another cgroup now").count(), 2, "{said}");
    assert_eq!((programs(&service), programs(&meant)), (0, 0));
}
