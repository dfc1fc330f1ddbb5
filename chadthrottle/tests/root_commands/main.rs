//! The program as its users run it, on the real kernel.

#[path = "../common/mod.rs"]
mod common;
mod listed;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cgroup::{ScratchCgroup, remove_tree};
use testkit::isolation::isolate;
use testkit::process::{Mortal, soon, wait_for_name};
use testkit::traffic::{flood_above, socket};

use crate::common::programs;

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a finished command said.
struct Said {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

fn finished(mut child: Child) -> Said {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Said { status: child.wait().unwrap(), stdout, stderr }
}

fn run(args: &[&str]) -> Said {
    finished(program(args).spawn().unwrap())
}

/// `chadthrottle limit`, armed.
struct Limit {
    child: Mortal,
    armed: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Limit {
    fn start(args: &[&str]) -> Self {
        Self::of(program(&[&["limit"], args].concat()))
    }

    fn of(mut command: Command) -> Self {
        let mut child = Mortal::from(command.spawn().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut armed = String::new();
        stdout.read_line(&mut armed).unwrap();
        if armed.is_empty() {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("{stderr}");
        }
        Self { child, armed, stdout }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    fn end(mut self) -> Said {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Said { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

fn text(cgroup: &ScratchCgroup) -> String {
    cgroup.path().to_str().unwrap().to_owned()
}

#[test]
fn root_limit_arms_limits_and_says_what_it_did() {
    isolate();
    let cgroup = ScratchCgroup::new("limit");
    let path = text(&cgroup);
    let limit = Limit::start(&["--cgroup", &path, "--upload", "100k", "--burst", "20ms"]);
    assert_eq!(limit.armed, format!("limiting {path} to 100 kB/s up; ends on Ctrl-C\n"));
    let receiver = socket(LOOPBACK);
    let sender = {
        let _inside = cgroup.enter();
        socket(LOOPBACK)
    };
    let burst = Duration::from_millis(20);
    let flood = flood_above(&sender, &receiver, (100_000, burst), Duration::from_secs(1));
    flood.assert_limited(100_000, burst);
    limit.signal(Signal::SIGINT);
    let said = limit.end();
    assert!(said.status.success(), "{}", said.stderr);
    let dropped = flood.sent() - flood.received;
    assert!(
        said.stdout.contains(&format!("({} packets), dropped", flood.received)),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains(&format!("({dropped} packets)\n")), "{}", said.stdout);
    assert_eq!(programs(cgroup.path()), 0);
}

/// It has not printed yet that it is armed: who reads that is slow.
#[test]
fn root_a_signal_that_comes_while_a_limit_is_made_ends_it_in_order() {
    isolate();
    let cgroup = ScratchCgroup::new("early");
    let (mut reader, mut full) = std::io::pipe().unwrap();
    let capacity = fcntl(&full, FcntlArg::F_SETPIPE_SZ(4_096)).unwrap();
    full.write_all(&vec![b'\n'; usize::try_from(capacity).unwrap()]).unwrap();
    let path = text(&cgroup);
    let args = ["limit", "--cgroup", &path, "--upload", "1M", "--attach", "legacy"];
    let mut child = Mortal::from(program(&args).stdout(full).spawn().unwrap());
    soon("it is armed", || programs(cgroup.path()) == 2);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    // It is not dead of it.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(child.try_wait().unwrap(), None);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("limiting") && said.contains("dropped"), "{said}");
    assert_eq!(programs(cgroup.path()), 0);
}

#[test]
fn root_every_way_of_ending_removes_everything() {
    isolate();
    let cgroup = ScratchCgroup::new("ends");
    let path = text(&cgroup);
    for attach in ["link", "legacy"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let limit = Limit::start(&[
                "--cgroup",
                &path,
                "--download",
                "1M",
                "--upload",
                "1M",
                "--attach",
                attach,
            ]);
            assert_eq!(programs(cgroup.path()), 3);
            limit.signal(signal);
            let said = limit.end();
            assert!(said.status.success(), "{attach} {signal}: {}", said.stderr);
            assert_eq!(programs(cgroup.path()), 0, "{attach} {signal}");
        }
    }
    let began = Instant::now();
    let limit = Limit::start(&["--cgroup", &path, "--upload", "1M", "--duration", "300ms"]);
    assert!(limit.end().status.success());
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(programs(cgroup.path()), 0);
}

#[test]
fn root_sigkill_leaves_nothing_behind_in_link_mode() {
    isolate();
    let cgroup = ScratchCgroup::new("sigkill");
    let limit = Limit::start(&["--cgroup", &text(&cgroup), "--download", "1M", "--upload", "1M"]);
    assert_eq!(programs(cgroup.path()), 3);
    limit.signal(Signal::SIGKILL);
    limit.end();
    soon("the kernel detaches", || programs(cgroup.path()) == 0);
    assert!(bpf::ledger::read(Path::new("/run/chadthrottle")).unwrap().entries.is_empty());
}

#[test]
fn root_after_a_sigkill_in_legacy_mode_the_next_start_tidies_up() {
    isolate();
    let (killed, other) = (ScratchCgroup::new("killed"), ScratchCgroup::new("other"));
    let limit = Limit::start(&["--cgroup", &text(&killed), "--upload", "1M", "--attach", "legacy"]);
    limit.signal(Signal::SIGKILL);
    limit.end();
    assert_eq!(programs(killed.path()), 2);
    let next = Limit::start(&["--cgroup", &text(&other), "--upload", "1M"]);
    assert_eq!(programs(killed.path()), 0);
    next.signal(Signal::SIGTERM);
    let said = next.end();
    assert!(said.stderr.contains("whose owner had died"), "{}", said.stderr);
}

#[test]
fn root_a_signal_that_comes_before_the_throttle_is_armed_is_not_lost() {
    isolate();
    let cgroup = ScratchCgroup::new("early");
    for pause in 0..12 {
        let child =
            program(&["limit", "--cgroup", &text(&cgroup), "--upload", "1M", "--attach", "legacy"])
                .spawn()
                .unwrap();
        std::thread::sleep(Duration::from_millis(2 * pause));
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        finished(child);
        assert_eq!(programs(cgroup.path()), 0, "after {} ms", 2 * pause);
    }
    assert!(bpf::ledger::read(Path::new("/run/chadthrottle")).unwrap().entries.is_empty());
}

#[test]
fn root_a_throttle_that_cannot_be_told_of_does_not_stay() {
    isolate();
    let cgroup = ScratchCgroup::new("full");
    for attach in ["link", "pinned", "legacy"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let status =
            program(&["limit", "--cgroup", &text(&cgroup), "--upload", "1M", "--attach", attach])
                .stdout(full)
                .stderr(Stdio::null())
                .status()
                .unwrap();
        assert_eq!(status.code(), Some(70), "{attach}");
        assert_eq!(programs(cgroup.path()), 0, "{attach}");
    }
}

#[test]
fn root_a_process_is_limited_through_its_cgroup_and_its_neighbours_are_named() {
    isolate();
    let cgroup = ScratchCgroup::new("pid");
    let mut sleeps: Vec<_> = {
        let _inside = cgroup.enter();
        (0..2).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect()
    };
    for sleep in &sleeps {
        wait_for_name(sleep.id(), "sleep");
    }
    let limit = Limit::start(&["--pid", &sleeps[0].id().to_string(), "--upload", "1M"]);
    assert!(limit.armed.contains(&text(&cgroup)), "{}", limit.armed);
    for sleep in &mut sleeps {
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }
    limit.signal(Signal::SIGTERM);
    let said = limit.end();
    assert!(said.status.success(), "{}", said.stderr);
    let neighbour = format!("{} (sleep)", sleeps[1].id());
    assert!(said.stderr.contains(&neighbour), "{}", said.stderr);
    assert!(!said.stderr.contains(&sleeps[0].id().to_string()), "{}", said.stderr);
    assert_eq!(programs(cgroup.path()), 0);
}

#[test]
fn root_a_cgroup_may_be_named_from_the_working_directory() {
    isolate();
    let cgroup = ScratchCgroup::new("here");
    let child = cgroup.child("child");
    for (named, expected) in [(".", cgroup.path()), ("./child", &child), ("..", cgroup.path())] {
        let from = if named == ".." { &child } else { cgroup.path() };
        let said = finished(
            program(&["limit", "--upload", "1M", "--duration", "1ms", "--cgroup", named])
                .current_dir(from)
                .spawn()
                .unwrap(),
        );
        let on = format!("limiting {} to ", expected.display());
        assert!(said.stdout.contains(&on), "{named}: {} {}", said.stdout, said.stderr);
        assert!(!said.stderr.contains("root cgroup"), "{}", said.stderr);
    }
}

#[test]
fn root_a_process_in_a_cgroup_with_a_misleading_name_is_limited_there() {
    isolate();
    let cgroup = ScratchCgroup::new("names");
    let (other, own) = (cgroup.child("foo"), cgroup.child("foo (deleted)"));
    let mut sleep = {
        let _inside = testkit::cgroup::enter(&own);
        Command::new("sleep").arg("60").spawn().unwrap()
    };
    let limit = Limit::start(&["--pid", &sleep.id().to_string(), "--upload", "1M"]);
    let counts = (programs(&other), programs(&own));
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    limit.signal(Signal::SIGTERM);
    limit.end();
    assert_eq!(counts, (0, 2));
}

#[test]
fn root_a_signal_that_is_ignored_from_the_start_stays_ignored() {
    isolate();
    let cgroup = ScratchCgroup::new("nohup");
    let mut command = Command::new("nohup");
    command
        .args([env!("CARGO_BIN_EXE_chadthrottle"), "limit", "--upload", "1M", "--cgroup"])
        .arg(cgroup.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let limit = Limit::of(command);
    limit.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(programs(cgroup.path()), 2);
    limit.signal(Signal::SIGTERM);
    assert!(limit.end().status.success());
}

#[test]
fn root_it_ends_by_itself_when_the_cgroup_is_removed() {
    isolate();
    let cgroup = ScratchCgroup::new("removed");
    let limit = Limit::start(&["--cgroup", &text(&cgroup), "--upload", "1M", "--once"]);
    remove_tree(cgroup.path()).unwrap();
    let said = limit.end();
    assert!(said.status.success(), "{}", said.stderr);
    assert!(said.stderr.contains("the cgroup was removed"), "{}", said.stderr);
}

#[test]
fn root_what_is_not_there_is_bad_usage_and_told_in_a_sentence() {
    isolate();
    for (args, why) in [
        (["--cgroup", "/chadtest-nowhere"], "no such cgroup: /"),
        (["--cgroup", "/dev"], "it is a directory, but of no cgroup"),
        (["--pid", "4194305"], "there is no process 4194305"),
    ] {
        let said = run(&[&["limit", "--upload", "1M"], &args[..]].concat());
        assert_eq!(said.status.code(), Some(64), "{}", said.stderr);
        assert!(said.stderr.contains(why), "{}", said.stderr);
    }
}

#[test]
fn root_without_rights_it_says_which_are_missing() {
    use std::os::unix::process::CommandExt;
    isolate();
    let cgroup = ScratchCgroup::new("nobody");
    let copy = Path::new("/run/chadthrottle-copy");
    std::fs::copy(env!("CARGO_BIN_EXE_chadthrottle"), copy).unwrap();
    let said = finished(
        Command::new(copy)
            .args(["limit", "--upload", "1M", "--cgroup", &text(&cgroup)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .uid(65_534)
            .gid(65_534)
            .spawn()
            .unwrap(),
    );
    assert_eq!(said.status.code(), Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("must run as root (CAP_"), "{}", said.stderr);
}
