//! The gate around commands that leak, and around some that do not.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::tcx::has_tcx;

use crate::common::*;

/// A gate for programs of one name, with a folder for its report.
pub(crate) struct Gate {
    pub(crate) program: String,
    pub(crate) settle: &'static str,
    pub(crate) folder: TempDir,
}

impl Gate {
    pub(crate) fn new(program: &str) -> Self {
        Self { program: program.to_owned(), settle: "2s", folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        self.talking(&[], argv)
    }

    fn talking(&self, options: &[&str], argv: &[&str]) -> Command {
        let mut gate = Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit"));
        let file = format!("json={}", self.folder.path().join("report").display());
        gate.args(["gate", "--program", &self.program, "--output", &file]).args(options);
        gate.args(["--settle", self.settle, "--"]).args(argv);
        gate
    }

    /// Starts the gate around a command that leaves a pin (`/sys/fs/bpf/left`), and waits until the command has ended. As
    /// long as the pin is there, the gate goes on looking.
    pub(crate) fn around_a_pin(&self) -> (Child, BufReader<ChildStdout>) {
        let script = format!(
            "bpftool map create /sys/fs/bpf/left type array key 4 value 4 entries 1 name {}; echo $$",
            self.program
        );
        // It says when it has looked.
        let mut gate = piped(&mut self.talking(&["-v"], &["sh", "-c", &script]));
        let mut stdout = BufReader::new(gate.stdout.take().unwrap());
        let mut pid = String::new();
        stdout.read_line(&mut pid).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        while process.exists() {
            sleep(Duration::from_millis(10));
        }
        (gate, stdout)
    }

    pub(crate) fn run(&self, argv: &[&str]) -> (Output, Value) {
        let output = self.command(argv).output().unwrap();
        let report = self.report(&shown(&output));
        (output, report)
    }

    pub(crate) fn report(&self, what: &str) -> Value {
        let text = std::fs::read(self.folder.path().join("report"));
        let text = text.unwrap_or_else(|error| panic!("no report: {error}: {what}"));
        serde_json::from_slice(&text).unwrap()
    }
}

/// The kinds of what was left, in order.
pub(crate) fn left(report: &Value) -> Vec<&str> {
    let left = report["left"].as_array().unwrap();
    left.iter().map(|it| it["kind"].as_str().unwrap()).collect()
}

/// What a gate says, but for that more goes on at once on this host than the kernel has written down.
fn talk(output: &Output) -> String {
    const WARNING: &str = "warning: what others do meanwhile cannot always be told from what the command does: more \
                           happened at once than could be written down\n";
    String::from_utf8_lossy(&output.stderr).replace(WARNING, "")
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Numbers of all programs, links and maps in a report.
fn ids_in_report(report: &Value) -> BTreeSet<(&'static str, u64)> {
    let groups = ["left", "others", "gone"].map(|group| report[group].as_array().unwrap());
    let kinds = ["program", "link", "map"];
    let of = |item: &Value| kinds.map(|kind| Some((kind, item[kind]["id"].as_u64()?)));
    groups.into_iter().flatten().flat_map(of).flatten().collect()
}

/// A gate tells nothing of the programs and maps of the gate before, which the kernel frees while it runs. (Others'
/// gates may run beside it, so what they have is told by number and not by name.)
#[test]
fn root_gates_one_after_another_tell_nothing_of_the_one_before() {
    isolate();
    let mut before = BTreeSet::new();
    for round in 0..5 {
        let mut gate = Gate::new("*");
        gate.settle = "30s";
        // The command's parent is the gate.
        let (output, report) = gate.run(&["sh", "-c", "cat /proc/$PPID/fdinfo/*; sleep 0.3"]);
        let told = ids_in_report(&report);
        let of_the_gate_before: Vec<_> = told.intersection(&before).collect();
        assert!(of_the_gate_before.is_empty(), "{of_the_gate_before:?}: {}", shown(&output));
        let open = String::from_utf8_lossy(&output.stdout).into_owned();
        let id = |line: &str, key| line.strip_prefix(key)?.trim().parse::<u64>().ok();
        let kinds = [("program", "prog_id:"), ("link", "link_id:"), ("map", "map_id:")];
        before = open
            .lines()
            .flat_map(|line| kinds.map(|(kind, key)| Some((kind, id(line, key)?))))
            .flatten()
            .collect();
        assert!(before.iter().any(|(kind, _)| *kind == "map"), "round {round}: {open}");
    }
}

#[test]
fn root_a_program_that_forgets_its_attachment_is_caught_and_one_that_detaches_is_not() {
    let cgroup = ScratchCgroup::new("forgets");
    let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
    let gate = Gate::new(&names.leak);
    let tidy = compiled(&folder, "../docs/examples/tidy.c");
    let (output, report) = gate.run(&[&tidy, text(cgroup.path()), &names.leak]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!((left(&report), &report["verdict"]), (vec![], &"clean".into()));

    let leak = compiled(&folder, "../docs/examples/leak.c");
    let (output, report) = gate.run(&[&leak, text(cgroup.path()), &names.leak]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(left(&report), ["attachment", "program"]);
    assert_eq!(report["left"][0]["cgroup"]["path"], text(&cgroup.relative()));
    assert_eq!(report["left"][0]["attach_type"], "cgroup_inet_egress");
    assert_eq!(report["left"][0]["program"]["name"], names.leak);
    let talk = String::from_utf8_lossy(&output.stderr);
    let expected = "leaks: the command left 1 attachment and 1 program behind";
    assert!(talk.contains(expected), "{talk}");
    assert_eq!(report["command"]["ended"]["exited"], 0);
}

#[test]
fn root_bpftool_leaves_nothing_when_it_shows_and_a_pin_and_a_map_when_it_makes_them() {
    isolate();
    let names = Names::new();
    let gate = Gate::new(&names.leak);
    let (output, _) = gate.run(&["bpftool", "prog", "show"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));

    let pin = "/sys/fs/bpf/left";
    let make = ["bpftool", "map", "create", pin, "type", "array", "key", "4", "value", "4"];
    let more = ["entries", "1", "name", &names.leak];
    let (output, report) = gate.run(&[&make[..], &more[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(left(&report), ["pin", "map"]);
    assert_eq!(
        (&report["left"][0]["path"], &report["left"][1]["map"]["type"]),
        (&pin.into(), &"array".into())
    );
    let reason = report["left"][1]["reason"].as_str().unwrap();
    assert!(reason.contains("kept by its pin /sys/fs/bpf/left"), "{reason}");

    let (output, report) = gate.run(&["rm", pin]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(report["gone"][0]["path"], pin, "that it is gone is told, and no failure");
}

#[test]
fn root_a_command_keeps_its_output_and_its_status() {
    let gate = Gate::new(&Names::new().leak);
    let script = r"cat; printf 'a\n\n\033[31mb\377\000'; printf 'its own' >&2; exit 7";
    let mut command = gate.command(&["sh", "-c", script]);
    let mut child = piped(&mut command);
    child.stdin.take().unwrap().write_all(b"from outside, ").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", shown(&output));
    assert_eq!(output.stdout, b"from outside, a\n\n\x1b[31mb\xff\0");
    let talk = talk(&output);
    assert!(talk.starts_with("its ownclean: "), "{talk}");
}

#[test]
fn root_how_a_command_ended_is_told_as_shells_do() {
    let gate = Gate::new(&Names::new().leak);
    let status = |argv: &[&str]| gate.run(argv).0.status.code();
    assert_eq!(status(&["sh", "-c", "kill -KILL $$"]), Some(137));
    assert_eq!(status(&["/no/such/command"]), Some(127));
    assert_eq!(status(&["/dev/null"]), Some(126));
}

#[test]
fn root_how_long_the_command_ran_is_told_beside_how_long_it_all_took() {
    let began = Instant::now();
    let (_, report) = Gate::new(&Names::new().leak).run(&["sleep", "0.2"]);
    let most = began.elapsed().as_secs_f64() * 1_000.0;
    let [ran, in_all] =
        [&report["command"]["duration_ms"], &report["duration_ms"]].map(|it| it.as_f64().unwrap());
    assert!(200.0 <= ran && ran <= in_all && in_all <= most, "{ran}, {in_all}, {most} ms");
}

#[test]
fn root_a_command_that_could_not_be_run_is_not_said_to_have_ended() {
    let gate = Gate::new(&Names::new().leak);
    let (output, report) = gate.run(&["chadtest-nosuch"]);
    assert_eq!(output.status.code(), Some(127), "{}", shown(&output));
    let why = "cannot run 'chadtest-nosuch': there is no such command (execve: ENOENT)";
    let talk = talk(&output);
    assert!(
        talk.starts_with(&format!("error: {why}\nclean: the command could not be run")),
        "{talk}"
    );
    assert!(!talk.contains("ended"), "{talk}");
    assert_eq!(report["command"]["not_run"], why);
    // A shell that finds nothing was run itself.
    let (output, report) = gate.run(&["sh", "-c", "chadtest-nosuch"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("it ended with status 127"));
    assert_eq!(report["command"]["not_run"], Value::Null);
}

#[test]
fn root_a_command_inherits_nothing_of_the_gate_that_is_open() {
    let argv = ["sh", "-c", "ls /proc/self/fd"];
    let alone = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    let (output, _) = Gate::new(&Names::new().leak).run(&argv);
    assert_eq!(output.stdout, alone.stdout, "{}", shown(&output));
}

#[test]
fn root_where_nobody_can_be_told_the_exit_status_tells() {
    let status = |argv: &[&str]| {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let gate = Gate::new(&Names::new().leak);
        gate.command(argv).stdout(full()).stderr(full()).status().unwrap().code()
    };
    // The report cannot be printed: what has failed is not passed over.
    assert_eq!(status(&["true"]), Some(70));
    assert_eq!(status(&["/no/such/command"]), Some(70));
}

#[test]
fn root_a_daemon_that_holds_a_link_is_named() {
    let cgroup = ScratchCgroup::new("daemon");
    let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
    let gate = Gate::new(&names.leak);
    let daemon = compiled(&folder, "tests/root/daemon.c");
    let (output, report) = gate.run(&[&daemon, text(cgroup.path()), &names.leak]);
    let pid: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(left(&report), ["attachment", "link", "program"]);
    for left in report["left"].as_array().unwrap() {
        assert_eq!(left["holders"][0]["pid"], pid);
        assert_eq!(left["holders"][0]["origin"], "command");
        assert_eq!(left["holders"][0]["comm"], "daemon");
    }
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("started by the command and still running"), "{talk}");
}

#[test]
fn root_it_is_waited_for_what_the_command_left_running_and_told_if_that_goes_on() {
    let names = Names::new();
    isolate();
    let gate = Gate { settle: "10s", ..Gate::new(&names.leak) };
    let map = format!(
        "bpftool map create /sys/fs/bpf/m type array key 4 value 4 entries 1 name {}",
        names.leak
    );
    let later = format!("(sleep 0.5; {map}) >&- 2>&- &");
    let (output, report) = gate.run(&["sh", "-c", &later]);
    assert_eq!((output.status.code(), left(&report)), (Some(1), vec!["pin", "map"]));
    assert_eq!(report["still_running"], Value::Null);
    let gate = Gate { settle: "300ms", ..Gate::new(&names.foreign) };
    let (output, report) = gate.run(&["sh", "-c", "sleep 100 >&- 2>&- & echo $!"]);
    let pid: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!((output.status.code(), &report["still_running"][0]["pid"]), (Some(0), &pid.into()));
    let told = format!("Still running of what the command started: {pid} (sleep); what it makes");
    assert!(shown(&output).contains(&told), "{}", shown(&output));
}

#[test]
fn root_whatever_its_name_is_what_a_command_leaves_is_found() {
    let cgroup = ScratchCgroup::new("nameless");
    let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
    let leak = compiled(&folder, "../docs/examples/leak.c");
    let gate = Gate::new(&names.leak);
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle-audit"));
    let file = format!("json={}", gate.folder.path().join("report").display());
    command.args(["gate", "--settle", "1s", "--output", &file, "--"]);
    let output = command.args([&leak, text(cgroup.path()), &names.leak]).output().unwrap();
    let report = gate.report(&shown(&output));
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(report["programs"], serde_json::json!(["*"]));
    // Others may leave something at the same time.
    let left = report["left"].as_array().unwrap();
    let mine = left.iter().filter(|it| it["program"]["name"] == names.leak.as_str());
    assert_eq!(mine.count(), 2, "{}", shown(&output));
}

#[test]
fn root_a_slot_of_a_pinned_map_that_keeps_a_program_is_named() {
    isolate();
    let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
    let jump = compiled(&folder, "tests/root/jump.c");
    let gate = Gate::new(&names.leak);
    let (output, report) = gate.run(&[&jump, &names.leak, "/sys/fs/bpf/jmp"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(left(&report), ["pin", "program", "map"]);
    let map = report["left"][2]["map"]["id"].as_u64().unwrap();
    let kept = format!(
        "kept by entry 3 of map {map} ({}), which is kept by its pin /sys/fs/bpf/jmp",
        names.leak
    );
    let reason = report["left"][1]["reason"].as_str().unwrap();
    assert!(reason.ends_with(&kept), "{reason}");
}

#[test]
fn root_a_link_on_a_device_of_another_network_namespace_is_named_with_both() {
    let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
    let device = compiled(&folder, "tests/root/device.c");
    let mut hooks = vec![("xdp", "xdp")];
    if has_tcx() {
        hooks.push(("tcx", "tcx_ingress"));
    }
    for (hook, told) in hooks {
        let gate = Gate::new(&names.leak);
        // The loopback has the number 1 in every namespace.
        let (output, report) = gate.run(&["unshare", "--net", &device, hook, "1", &names.leak]);
        let pid: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        assert_eq!(left(&report), ["link", "program"]);
        let at = &report["left"][0]["device"];
        assert_eq!(
            (&at["name"], &at["index"], &at["hook"]),
            (&"lo".into(), &1.into(), &told.into())
        );
        let inode = at["network_namespace"].as_u64().unwrap();
        assert_eq!(namespace.to_str().unwrap(), format!("net:[{inode}]"));
        let talk = String::from_utf8_lossy(&output.stderr);
        let line = format!("on device lo (1), {told}, in network namespace {inode} (/proc/");
        assert!(talk.contains(&line), "{talk}");
    }
}

#[test]
fn root_a_pin_of_a_container_that_the_command_left_running_is_named() {
    let (cgroup, folder) = (ScratchCgroup::new("container"), tempfile::tempdir().unwrap());
    let names = Names::new();
    let gate = Gate::new(&names.leak);
    let script = format!(
        "unshare --mount sh -c 'mount -t bpf bpf /sys/fs/bpf; bpftool map create /sys/fs/bpf/m type array \
         key 4 value 4 entries 1 name {}; echo $$; : >{ready}; exec sleep 60 >&- 2>&-' & \
         read -r _ <{}/cgroup.procs; until [ -e {ready} ]; do sleep 0.05; done",
        names.leak,
        cgroup.path().display(),
        ready = folder.path().join("ready").display()
    );
    let (output, report) = gate.run(&["sh", "-c", &script]);
    let pid: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!((output.status.code(), left(&report)), (Some(1), vec!["map"]), "{}", shown(&output));
    let reason = report["left"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("kept by its pin /proc/{pid}/root/sys/fs/bpf/m")), "{reason}");
}

#[test]
fn root_without_rights_the_command_is_not_even_run() {
    let witness: PathBuf = tempfile::tempdir().unwrap().keep().join("was-run");
    std::fs::set_permissions(
        witness.parent().unwrap(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let output = crate::rights::as_nobody(&["gate", "--", "touch", text(&witness)]);
    let was_run = witness.exists();
    std::fs::remove_dir_all(witness.parent().unwrap()).unwrap();
    assert_eq!((output.status.code(), was_run), (Some(2), false), "{}", shown(&output));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("incomplete: the command was not run"), "{talk}");
    assert!(talk.contains("must run as root (CAP_NET_ADMIN is missing)"), "{talk}");
}

pub(crate) fn piped(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}
