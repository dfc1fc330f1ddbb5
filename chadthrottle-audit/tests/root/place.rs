//! A cgroup to leak in, and an auditor that is run in surroundings that a shell makes.

use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bpf::Owner;
use kernel::cgroup::{Cgroup, cgroup2_mount};
use kernel::link::Link;
use kernel::list::AttachFlags;
use kernel::{Program, ProgramId};
use serde_json::Value;
use tempfile::TempDir;
use testkit::cgroup::ScratchCgroup;

use crate::common::*;

pub(crate) const MULTI: AttachFlags = AttachFlags::MULTI;

/// Where the audit is to look, and what it needs to be run from anywhere.
pub(crate) struct Place {
    pub(crate) cgroup: ScratchCgroup,
    pub(crate) names: Names,
    /// The auditor where everybody can reach it.
    program: TempDir,
}

impl Place {
    pub(crate) fn new(label: &str) -> Self {
        Self::of(ScratchCgroup::new(label), &Names::new().leak)
    }

    /// With another glob for what is ours.
    pub(crate) fn of(cgroup: ScratchCgroup, ours: &str) -> Self {
        cgroup.child("inside");
        let program = tempfile::tempdir().unwrap();
        fs::set_permissions(program.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_chadthrottle-audit"), program.path().join("audit")).unwrap();
        Self { cgroup, names: Names { leak: ours.to_owned(), ..Names::new() }, program }
    }

    /// A cgroup below, to be in.
    pub(crate) fn inside(&self) -> PathBuf {
        self.cgroup.path().join("inside")
    }

    /// Leaks the historical way.
    pub(crate) fn plant(&self) -> ProgramId {
        plant(self.cgroup.path(), &self.names.leak, INGRESS, MULTI)
    }

    /// Attaches a program through a link that only a pin keeps.
    pub(crate) fn pin(&self, path: impl AsRef<Path>) {
        fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
        let program = Program::load_pass(&self.names.leak, EGRESS).unwrap();
        let open = Cgroup::open(self.cgroup.path()).unwrap();
        Link::create(program.as_fd(), &open, EGRESS).unwrap().pin(path.as_ref()).unwrap();
    }

    /// Runs a script in a mount namespace of its own. In it `scan` and `clean` run the auditor, through what stands
    /// behind them; `$SPARE` is a folder, `$MOUNT` is where cgroup2 is, `$INSIDE` a cgroup to be in.
    pub(crate) fn run(&self, script: &str) -> Output {
        const PRELUDE: &str = r#"
            audit() { "$@" --program "$NAME" --root "$ROOT"; }
            scan() { audit "$@" "$AUDIT" scan --format json; }
            clean() { audit "$@" "$AUDIT" clean --yes; }
            "#;
        let spare = tempfile::tempdir().unwrap();
        Command::new("unshare")
            .args(["--mount", "--", "sh", "-euc"])
            .arg(format!("{PRELUDE}{script}"))
            .env("AUDIT", self.program.path().join("audit"))
            .env("NAME", &self.names.leak)
            .env("ROOT", self.cgroup.relative())
            .env("MOUNT", cgroup2_mount().unwrap())
            .env("INSIDE", self.inside())
            .env("SPARE", spare.path())
            .output()
            .unwrap()
    }
}

/// An owner that has been this process.
pub(crate) fn dead_owner() -> Owner {
    let here = Owner::this_process("test").unwrap();
    Owner { start_time: here.start_time + 1, ..here }
}

/// Makes an attached throttle one that its owner means.
pub(crate) fn arm(egress: &bpf::ThrottleProgram, cgroup: &Cgroup) {
    let limits = bpf::limits::Limits {
        rate: bpf::limits::Rate::MAX,
        burst: bpf::limits::Burst::DEFAULT,
        traffic: bpf::limits::Traffic::All,
        departures: bpf::limits::Departures::Never,
    };
    let state = bpf::state::ThrottleState::armed(&limits, 0);
    egress.set_state(cgroup.id(), EGRESS, &state).unwrap();
}

/// The report of a scan.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(output)))
}

/// The leak was found, and is named.
pub(crate) fn found(output: &Output, leak: ProgramId) {
    assert_eq!(output.status.code(), Some(1), "{}", shown(output));
    let report = json(output);
    let leaks = report["leaks"].as_array().unwrap();
    assert!(leaks.iter().any(|it| it["program"]["id"] == leak.0), "{}", shown(output));
}

/// The audit is incomplete or failed, and says why in these words; it does not say that there is a leak, or none.
pub(crate) fn not_known(output: &Output, why: &[&str]) {
    // Without a report the audit itself has failed.
    let expected = if output.stdout.is_empty() { 70 } else { 2 };
    assert_eq!(output.status.code(), Some(expected), "{}", shown(output));
    let said = shown(output);
    for words in why {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    if !output.stdout.is_empty() {
        let report = json(output);
        assert_eq!(report["verdict"], "incomplete", "{said}");
        assert_eq!(report["leaks"], Value::from([(); 0]), "{said}");
        assert!(!findings(&report).contains(&"active".to_owned()), "{said}");
    }
}
