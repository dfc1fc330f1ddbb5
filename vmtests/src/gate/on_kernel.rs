//! Trials on the running kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bpf::LinuxBpf;
use serde_json::Value;

use super::in_model::PINS;
use super::step::Step;
use super::system::System;
use super::trial::{ByHand, Checked, Property, Tally, Trial, Violation, Witness};
use crate::cgroup::ScratchCgroup;
use crate::isolation::isolate;
use crate::model::Version;

/// How long the kernel may take for what it does a little later.
const PATIENCE: Duration = Duration::from_secs(2);

/// The programs of this workspace that are looked at, and that look.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those that were built beside this one.
    pub fn beside(program: &Path) -> Self {
        Self { folder: program.parent().map(Path::to_owned).unwrap_or_default() }
    }

    /// One of them.
    ///
    /// # Panics
    /// When it was not built.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
        path
    }
}

/// The running kernel, in namespaces of this process's own: ledger and pins are nobody else's.
#[derive(Debug)]
pub struct Machine {
    _isolated: (),
}

impl Machine {
    /// Enters the namespaces; see [`isolate`].
    ///
    /// # Panics
    /// Without root.
    pub fn isolated() -> Self {
        isolate();
        Self { _isolated: () }
    }

    /// Takes these steps below a scratch cgroup of their own, and takes everything down.
    ///
    /// # Errors
    /// What does not hold.
    ///
    /// # Panics
    /// Without root.
    pub fn run<S: System>(
        &self,
        system: S,
        steps: &[Step],
        witness: &mut impl Witness<LinuxBpf>,
    ) -> Checked<Tally> {
        let wrong = |what: String| Violation::new(Property::GateIsRight, what);
        // What a trial that failed has left is not the next one's.
        for folder in [bpf::ledger::DEFAULT_DIR, PINS] {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(wrong(format!("{folder}: {error}")));
                }
                _ => {}
            }
        }
        let scratch = ScratchCgroup::new("gate");
        let lab = LinuxBpf::new().map_err(|error| wrong(error.to_string()))?;
        let mut trial = Trial::new(lab, system, scratch.path(), Version::running(), PATIENCE)
            .map_err(|error| wrong(error.to_string()))?;
        for step in steps {
            trial.step(step)?;
        }
        trial.finish(witness)
    }
}

/// The auditor and bpftool. They are asked after every trial, unless that would take more than a part of all the
/// time: on an emulated processor one look takes as long as a trial.
#[derive(Debug)]
pub struct Tools {
    programs: Programs,
    began: Instant,
    looked: Duration,
    /// How often they were asked.
    pub looks: u64,
}

/// At most one part in so many of the time is spent on looking.
const SHARE: u32 = 4;

impl Tools {
    /// These.
    pub fn new(programs: Programs) -> Self {
        Self { programs, began: Instant::now(), looked: Duration::ZERO, looks: 0 }
    }

    fn audit(&self, command: &str, top: &Path) -> Result<Value, String> {
        let mut audit = Command::new(self.programs.path("chadthrottle-audit"));
        audit.arg(command).arg("--root").arg(top).args(["--format", "json"]);
        let output = audit.output().map_err(|error| error.to_string())?;
        if output.status.code() != Some(0) {
            let said = String::from_utf8_lossy(&output.stdout);
            let talk = String::from_utf8_lossy(&output.stderr);
            return Err(format!("chadthrottle-audit {command}: {}: {said}{talk}", output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Asks both, whatever that takes.
    ///
    /// # Errors
    /// What they found.
    pub fn look(&mut self, top: &Path) -> Result<(), String> {
        let began = Instant::now();
        self.looks += 1;
        let report = self.audit("scan", top)?;
        if report["verdict"] != "clean" {
            return Err(format!("chadthrottle-audit: {report}"));
        }
        for words in [["prog", "show"], ["cgroup", "tree"]] {
            let output = Command::new("bpftool").arg("-j").args(words).output();
            let output = output.map_err(|error| format!("bpftool: {error}"))?;
            let text = String::from_utf8_lossy(&output.stdout);
            let shown: Value =
                serde_json::from_str(&text).map_err(|error| format!("bpftool: {error}: {text}"))?;
            if !shown.is_array() {
                return Err(format!("bpftool {words:?}: {shown}"));
            }
            if let Some(name) = name_of_ours(&shown) {
                return Err(format!("bpftool {words:?} shows {name}"));
            }
        }
        self.looked += began.elapsed();
        Ok(())
    }
}

/// A program of ours anywhere in what bpftool shows.
fn name_of_ours(shown: &Value) -> Option<&str> {
    match shown {
        Value::Array(items) => items.iter().find_map(name_of_ours),
        Value::Object(fields) => {
            let name = fields.get("name").and_then(Value::as_str);
            name.filter(|name| name.starts_with("chadthrottle"))
                .or_else(|| fields.values().find_map(name_of_ours))
        }
        _ => None,
    }
}

impl Witness<LinuxBpf> for Tools {
    fn clean(&mut self, lab: &LinuxBpf, top: &Path) -> Result<(), String> {
        let mut audit = Command::new(self.programs.path("chadthrottle-audit"));
        let output = audit.args(["clean", "--yes", "--root"]).arg(top).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            // Below a cgroup it does not judge what is attached nowhere any more, such as a pinned link whose
            // cgroup was removed; and on the whole host the leaks are not ours to remove.
            return ByHand.clean(lab, top);
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let talk = String::from_utf8_lossy(&output.stderr);
        Err(format!("chadthrottle-audit clean: {}: {said}{talk}", output.status))
    }

    fn confirm(&mut self, _lab: &LinuxBpf, top: &Path) -> Result<(), String> {
        if self.looks > 0 && self.looked * SHARE > self.began.elapsed() {
            return Ok(());
        }
        self.look(top)
    }
}
