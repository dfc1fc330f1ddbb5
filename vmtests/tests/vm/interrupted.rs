//! The runner itself: what is left of its machines when it is stopped. Without QEMU; a script stands in
//! for virtme-ng, and has children as that has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vmtests::machines::group::assert_gone;

/// A "virtual machine" that hangs, with a QEMU and a virtiofsd whose parent is gone.
const VNG: &str = "#!/bin/sh
echo $$ >\"$0.pid\"
(sleep 1000 & sleep 1000 &)
sleep 1000
";

const MATRIX: &str = "[limits]
boot = 60
run = 60
[[kernel]]
name = \"fake\"
release = \"6.\"
default = true
get = [{ image = \"/bin/sh\" }]
expect = { links = true, program_flags = true, expected_revision = false, tcp = true }
";

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vng"), VNG).unwrap();
        fs::set_permissions(dir.path().join("vng"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("matrix"), MATRIX).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the runner, and waits until its machine runs, whose process group it returns.
    #[allow(clippy::zombie_processes)] // Who asks for it waits for it.
    fn start(&self) -> (Child, i32) {
        let runner = Command::new(env!("CARGO_BIN_EXE_vmtests"))
            .args(["vm", "--accel", "tcg", "--command", "true", "--matrix"])
            .arg(self.path("matrix"))
            .arg("--vng")
            .arg(self.path("vng"))
            .arg("--out")
            .arg(self.path("out"))
            .env("TMPDIR", self.dir.path())
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = self.path("vng.pid");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < deadline, "the machine does not start");
            sleep(Duration::from_millis(20));
            if let Some(machine) = number(&pid) {
                let group = nix::unistd::getpgid(Some(Pid::from_raw(machine))).unwrap();
                return (runner, group.as_raw());
            }
        }
    }
}

fn number(file: &Path) -> Option<i32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn signal(runner: &Child, signal: Signal) {
    kill(Pid::from_raw(runner.id().cast_signed()), signal).unwrap();
}

#[test]
fn ctrl_c_or_sigterm_leaves_nothing_of_a_machine() {
    for told in [Signal::SIGINT, Signal::SIGTERM] {
        let fixture = Fixture::new();
        let (runner, group) = fixture.start();
        assert!(assert_gone(group).is_err(), "the machine runs");
        signal(&runner, told);
        let output = runner.wait_with_output().unwrap();
        assert_gone(group).unwrap();
        assert_eq!(output.status.code(), Some(130));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("fake: stopped before its end"), "{text}");
        assert!(text.contains("vm: 0 of 1 kernels passed"), "{text}");
        // Not even the temporary directory.
        let left: Vec<_> = fs::read_dir(fixture.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_string_lossy().starts_with("vmtests-"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_runner_that_is_killed_leaves_nothing_of_a_machine() {
    let fixture = Fixture::new();
    let (mut runner, group) = fixture.start();
    signal(&runner, Signal::SIGKILL);
    runner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = assert_gone(group) {
        assert!(Instant::now() < deadline, "{error:#}");
        sleep(Duration::from_millis(20));
    }
}
