//! Throttles whose owners see the host otherwise than who judges them: the answer must be the same from everywhere.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use auditor::collect::{Options, collect};
use auditor::judge::{Finding, Verdict, classify};
use bpf::ledger::RecordedAttachment;
use kernel::cgroup::Cgroup;
use kernel::list::{Scope, query};
use kernel::{AttachType, objects};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::cgroup::{ScratchCgroup, remove_tree};
use testkit::isolation::isolate;
use testkit::process::Mortal;
use testkit::traffic::socket;

use crate::common::programs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chadthrottle");

/// A legacy throttle, which only its owner's life justifies, in surroundings that a command makes.
struct Elsewhere {
    command: Mortal,
    /// What ends it in order: see [`SHIFTED`].
    signal: Signal,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Elsewhere {
    fn limit(surroundings: &[&str], cgroup: &ScratchCgroup, rate: &str) -> Self {
        let mut command = Command::new(surroundings[0])
            .args(&surroundings[1..])
            .args([PROGRAM, "limit", "--upload", rate, "--attach", "legacy", "--cgroup"])
            .arg(cgroup.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(command.stdout.take().unwrap());
        let mut armed = String::new();
        stdout.read_line(&mut armed).unwrap();
        assert!(armed.contains(cgroup.path().to_str().unwrap()), "{armed}");
        let signal = if surroundings == SHIFTED { Signal::SIGKILL } else { Signal::SIGTERM };
        Self { command: command.into(), signal, stdout }
    }

    /// Returns once every process of it has ended.
    fn end(mut self) {
        kill(Pid::from_raw(i32::try_from(self.command.id()).unwrap()), self.signal).unwrap();
        self.stdout.read_to_string(&mut String::new()).unwrap();
        self.command.wait().unwrap();
    }
}

fn audit(cgroup: &ScratchCgroup) -> (Verdict, Vec<Finding>) {
    let settle = Duration::from_millis(20);
    let options = Options { root: cgroup.relative(), settle, ..Options::default() };
    let snapshot = collect(&options).unwrap();
    let classified = classify(&snapshot);
    (classified.verdict, classified.attachments.iter().map(|judged| judged.finding).collect())
}

/// What `list` says of the owner of the throttle on a cgroup, run in surroundings that a command makes.
fn owner_alive(surroundings: &[&str], cgroup: &ScratchCgroup) -> Value {
    let list = [surroundings, &[PROGRAM, "list", "--format", "json"]].concat();
    let output = Command::new(list[0]).args(&list[1..]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = found["throttles"].as_array().unwrap();
    let path = cgroup.relative();
    let row = rows.iter().find(|row| row["cgroup"] == path.to_str().unwrap());
    row.unwrap_or_else(|| panic!("{found}"))["owner_alive"].clone()
}

/// Starts another throttle, whose start removes what dead owners left, and ends it.
fn start_another(surroundings: &[&str]) {
    let other = ScratchCgroup::new("another");
    Elsewhere::limit(surroundings, &other, "1M").end();
    assert_eq!(programs(other.path()), 0);
}

/// In the surroundings and outside of them the throttle's owner is alive, and nobody removes the throttle.
fn assert_alive_from_everywhere(surroundings: &[&str], cgroup: &ScratchCgroup) {
    let alive = (Verdict::Clean, vec![Finding::Active; 2]);
    assert_eq!(audit(cgroup), alive);
    for place in [&[][..], surroundings] {
        assert_eq!(owner_alive(place, cgroup), Value::Bool(true), "{place:?}");
        start_another(if place.is_empty() { &["env"] } else { place });
        assert_eq!(programs(cgroup.path()), 2, "{place:?}");
    }
}

/// `unshare` blocks SIGTERM. When it is killed, its child gets the signal that ends it in order.
const SHIFTED: &[&str] = &[
    "unshare",
    "--fork",
    "--kill-child=SIGTERM",
    "--time",
    "--boottime",
    "100000",
    "--monotonic",
    "500",
    "--",
];

#[test]
fn root_an_owner_in_a_time_namespace_is_alive_from_inside_and_from_outside() {
    isolate();
    let cgroup = ScratchCgroup::new("time");
    let limit = Elsewhere::limit(SHIFTED, &cgroup, "1K");
    assert_alive_from_everywhere(SHIFTED, &cgroup);
    limit.end();
    assert_eq!(programs(cgroup.path()), 0);
    // And the other way round.
    let limit = Elsewhere::limit(&["env"], &cgroup, "1K");
    assert_alive_from_everywhere(SHIFTED, &cgroup);
    limit.end();
}

#[test]
fn root_in_a_time_namespace_a_limit_begins_with_its_whole_burst() {
    isolate();
    let cgroup = ScratchCgroup::new("clock");
    let limit = Elsewhere::limit(SHIFTED, &cgroup, "1K");
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let receiver = socket(localhost);
    let sender = {
        let _inside = cgroup.enter();
        socket(localhost)
    };
    receiver.set_nonblocking(false).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // With the namespace's clock the bucket would be full for 500 seconds. It is longer than what the reserve is for.
    sender.send_to(&[0; 800], receiver.local_addr().unwrap()).unwrap();
    assert_eq!(receiver.recv(&mut [0; 1_000]).unwrap(), 800);
    limit.end();
}

#[test]
fn root_an_owner_that_is_told_another_boot_id_is_alive_from_inside_and_from_outside() {
    isolate();
    let cgroup = ScratchCgroup::new("boot");
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("boot_id");
    std::fs::write(&fake, "11111111-2222-3333-4444-555555555555\n").unwrap();
    // As systemd-nspawn does for its containers.
    let script = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        fake.to_str().unwrap()
    );
    let disguised = ["unshare", "--mount", "--", "sh", "-c", &script, "sh"];
    let limit = Elsewhere::limit(&disguised, &cgroup, "1M");
    assert_alive_from_everywhere(&disguised, &cgroup);
    limit.end();
    assert_eq!(programs(cgroup.path()), 0);
    let limit = Elsewhere::limit(&["env"], &cgroup, "1M");
    assert_alive_from_everywhere(&disguised, &cgroup);
    limit.end();
}

/// In a pid namespace that was entered without mounting `/proc` anew, the owner's pid is another process's there, or nobody's.
#[test]
fn root_where_proc_is_of_the_namespace_above_nobody_takes_a_neighbour_for_dead() {
    isolate();
    let (cgroup, another) = (ScratchCgroup::new("first"), ScratchCgroup::new("second"));
    // The second one settles while the first one runs.
    let script = format!(
        "limit='limit --upload 1M --attach legacy --cgroup'; \"$0\" $limit {first} & \
         until \"$0\" list | grep -q {name}; do sleep 0.1; done; \
         \"$0\" $limit {second} --duration 10ms; echo settled; read -r _; kill $!; wait",
        first = cgroup.path().display(),
        name = cgroup.path().file_name().unwrap().display(),
        second = another.path().display(),
    );
    let mut inside = Command::new("unshare")
        .args(["--pid", "--fork", "--", "sh", "-c", &script, PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Mortal::from)
        .unwrap();
    let mut said = BufReader::new(inside.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line == "settled"));
    assert_eq!((programs(cgroup.path()), programs(another.path())), (2, 0));
    drop(inside.stdin.take());
    assert!(said.any(|line| line.contains("passed 0 B")));
    inside.wait().unwrap();
    assert_eq!(programs(cgroup.path()), 0);
}

#[test]
fn root_a_throttle_of_another_cgroup_namespace_is_not_armed_again_here() {
    isolate();
    let cgroup = ScratchCgroup::new("rearm");
    let run = |program: &str, args: &[&str]| Command::new(program).args(args).output().unwrap();
    let path = cgroup.path().to_str().unwrap();
    let limit = [PROGRAM, "limit", "--upload", "1M", "--attach", "pinned", "--cgroup", path];
    let made = run("unshare", &[&["--cgroup", "--"], &limit[..]].concat());
    assert!(made.status.success(), "{made:?}");
    remove_tree(cgroup.path()).unwrap();
    std::fs::create_dir(cgroup.path()).unwrap();
    // It has the path of the other one, and is any cgroup here.
    let refused = run(PROGRAM, &["rearm", "1"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("another cgroup or pid namespace"),
        "{said}"
    );
    assert_eq!(programs(cgroup.path()), 0);
    let listed = run(PROGRAM, &["list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&format!("{path} (elsewhere)")), "{listed}");
    let removed = run(PROGRAM, &["rm", "1"]);
    assert!(removed.status.success(), "{removed:?}");
}

/// The cgroup namespace is the same all the while.
#[test]
fn root_a_throttle_is_armed_again_only_below_the_mount_that_it_was_made_below() {
    isolate();
    let cgroup = ScratchCgroup::new("mounts");
    let mount = kernel::cgroup::cgroup2_mount().unwrap();
    // Where only that part of the hierarchy is mounted, and always at the same place.
    let within = |part: &str, args: &[&str]| {
        let script = format!(
            "mkdir -p /run/part && mount --bind {} /run/part && umount -l {} && exec \"$@\"",
            cgroup.child(part).display(),
            mount.display()
        );
        let command = ["--mount", "sh", "-c", &script, "sh", PROGRAM];
        Command::new("unshare").args([&command[..], args].concat()).output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let on = |path: &str| {
        let open = Cgroup::open(&cgroup.path().join(path)).unwrap();
        query(&open, AttachType::INET_EGRESS, Scope::Local, false).unwrap().programs.len()
    };
    let service = cgroup.child("one/service");
    let path = "/run/part/service";
    let limit = ["limit", "--upload", "1M", "--attach", "pinned", "--cgroup", path];
    let made = within("one", &limit);
    assert!(made.status.success(), "{made:?}");
    remove_tree(&service).unwrap();
    cgroup.child("other/service");
    let refused = within("other", &["rearm", "1"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("/run/part/service may be another cgroup here"), "{said}");
    assert_eq!(on("other/service"), 0);
    let listed = text(&within("other", &["list"]).stdout);
    assert!(listed.contains("/run/part/service (elsewhere)"), "{listed}");

    cgroup.child("one/service");
    let listed = text(&within("one", &["list"]).stdout);
    let is_here = |line: &str| line.split(' ').next_back() == Some("/service");
    assert!(listed.lines().any(is_here), "{listed}");
    let armed = within("one", &["rearm", "1"]);
    assert!(armed.status.success(), "{armed:?}");
    assert_eq!((on("one/service"), on("other/service")), (1, 0));
    let removed = Command::new(PROGRAM).args(["rm", "1"]).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
}

/// Its pid is a stranger's in this namespace: whoever ends that process ends the wrong one.
#[test]
fn root_an_owner_of_another_pid_namespace_is_named_as_such_and_its_empty_record_goes() {
    isolate();
    let cgroup = ScratchCgroup::new("pidns");
    let path = cgroup.path().to_str().unwrap();
    let script = format!(
        "{PROGRAM} limit --cgroup {path} --upload 1M --attach legacy > /run/armed & \
         until [ -s /run/armed ]; do sleep 0.05; done; kill -9 $!; wait $! || true"
    );
    let inside = ["--pid", "--fork", "--mount-proc", "sh", "-c", &script];
    assert!(Command::new("unshare").args(inside).output().unwrap().status.success());
    assert_eq!(programs(cgroup.path()), 2);
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (status, said) = run(&["rm", "1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("of another pid namespace") && !said.contains("end that"), "{said}");
    let (_, beside) = run(&["limit", "--cgroup", path, "--upload", "2M", "--duration", "10ms"]);
    assert!(beside.contains("of process 2 of another pid namespace"), "{beside}");
    assert_eq!(programs(cgroup.path()), 2);

    let entry = bpf::ledger::read(Path::new("/run/chadthrottle")).unwrap().entries.remove(0).1;
    let exists = |it: &RecordedAttachment| objects::program(it.program_id).unwrap().is_some();
    remove_tree(cgroup.path()).unwrap();
    while entry.attachments.iter().any(exists) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (status, said) = run(&["rm", "1"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.starts_with("removed the record of 1 on ") && said.contains("nothing else"),
        "{said}"
    );
}

/// Where the bpffs is mounted the throttle is meant, and stays so.
#[test]
fn root_a_pinned_throttle_whose_bpffs_is_mounted_elsewhere_is_left_as_it_is() {
    isolate();
    let cgroup = ScratchCgroup::new("bpffs");
    let path = cgroup.path().to_str().unwrap();
    let script = format!(
        "mount -t bpf bpf /sys/fs/bpf && {PROGRAM} limit --cgroup {path} --upload 1M --attach pinned && \
         read go && {PROGRAM} rm 1"
    );
    let mut elsewhere = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(elsewhere.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(programs(cgroup.path()), 2, "{line}");

    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let record = || std::fs::read_to_string("/run/chadthrottle/1.json").unwrap();
    let before = record();
    let (status, said) = run(&["rm", "1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("its pin is in a bpffs that is not mounted here"), "{said}");
    let (status, said) = run(&["rearm", "1"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("is armed on") && said.contains("already"), "{said}");
    let (_, listed) = run(&["list", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed[..=listed.rfind("\n}").unwrap() + 1]).unwrap();
    let rows = listed["throttles"].as_array().unwrap();
    let row = rows.iter().find(|row| row["cgroup"] == cgroup.relative().to_str().unwrap());
    assert_eq!(row.unwrap()["attach"], "pinned");
    assert_eq!((record(), programs(cgroup.path())), (before, 2));

    elsewhere.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert!(elsewhere.wait().unwrap().success() && said.starts_with("removed 1 from"), "{said}");
    assert_eq!(programs(cgroup.path()), 0);
}
