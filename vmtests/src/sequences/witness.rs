//! Asks independent programs whether anything is left: the auditor and bpftool.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::LinuxBpf;
use kernel::boundary::{Links as _, Pins as _};
use serde_json::Value;
use testkit::binaries;
use testkit::env::number;

use super::census::Surveyed;
use super::trial::Witness;
use crate::sequences::owners::Throttles;

/// The longest wait for the kernel to free what was detached.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns after how many sequences to ask the witnesses again: each one, or as `GATE_WITNESS_EVERY` says.
///
/// On an emulated processor a look takes as long as a sequence. The gate itself asks the kernel after every sequence.
///
/// # Panics
/// Panics if the variable is not a number.
pub fn every() -> u64 {
    number("GATE_WITNESS_EVERY").unwrap_or(1)
}

/// The auditor and bpftool.
#[derive(Debug)]
pub struct Independent {
    auditor: PathBuf,
    /// Asks after the first sequence, and then after this many more each time.
    every: u64,
    confirmed: u64,
}

impl Independent {
    /// Creates the witnesses. They look after the first sequence, and then after every `every`th.
    ///
    /// # Errors
    /// Fails if the auditor was not built or bpftool is missing.
    pub fn new(every: u64) -> Result<Self, String> {
        let auditor = binaries::find("chadthrottle-audit")?;
        Ok(Self { auditor, every, confirmed: 0 })
    }

    fn is_due(&mut self) -> bool {
        // Each sequence is confirmed twice, with its cgroups and without them.
        let count = self.confirmed / 2;
        self.confirmed += 1;
        count.is_multiple_of(self.every.max(1))
    }

    fn audit(&self, top: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.auditor);
        let output = run(command.args(["scan", "--format", "json", "--root"]).arg(top))?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the auditor's report: {error}: {}", shown(&output)))?;
        if output.status.success() && report["verdict"] == "clean" {
            return Ok(());
        }
        Err(format!("the auditor does not say that all is clean: {}", shown(&output)))
    }

    /// Checks that bpftool shows no program, link or map of the run, and no attachment below its cgroup. What it shows
    /// counts unless it certainly belongs to somebody else, or goes away by itself.
    fn bpftool(top: &Path) -> Result<(), String> {
        // Links come first. A link keeps its program, so the later answer has each link's program.
        let links = ask_bpftool(&["link", "show"])?;
        let mut programs = named_programs()?;
        let Throttles { others, others_maps, .. } =
            Throttles::find().map_err(|error| error.to_string())?;
        programs.retain(|id| !others.iter().any(|other| u64::from(other.0) == *id));
        if !programs.is_empty() {
            // A program that existed before the owners were determined and still exists has been judged.
            let still = named_programs()?;
            programs.retain(|id| still.contains(id));
        }
        let links: Vec<_> = list(&links)
            .filter(|link| link["prog_id"].as_u64().is_some_and(|id| programs.contains(&id)))
            .collect();
        if !programs.is_empty() {
            return Err(format!("bpftool shows programs {programs:?}, links {links:?}"));
        }
        let others: BTreeSet<_> = others_maps.iter().map(|id| u64::from(id.0)).collect();
        let maps = ask_bpftool(&["map", "show"])?;
        let named = list(&maps)
            .filter(|map| map["name"].as_str().is_some_and(|name| name.starts_with("chad")))
            .filter_map(|map| map["id"].as_u64());
        let maps: Vec<_> = named.filter(|id| !others.contains(id)).collect();
        if !maps.is_empty() {
            return Err(format!("bpftool shows maps {maps:?}"));
        }
        let tree = ask_bpftool(&["cgroup", "tree", &top.to_string_lossy()])?;
        let attached = list(&tree).flat_map(|cgroup| list(&cgroup["programs"]));
        let attached: Vec<_> = attached.filter(|program| is_named(program)).collect();
        if attached.is_empty() { Ok(()) } else { Err(format!("bpftool shows {attached:?}")) }
    }
}

impl Witness<LinuxBpf> for Independent {
    fn clean(&mut self, world: &LinuxBpf, top: &Path) -> Result<(), String> {
        let mut command = Command::new(&self.auditor);
        let output = run(command.args(["clean", "--yes", "--root"]).arg(top))?;
        if !output.status.success() {
            return Err(format!("the auditor cannot clean up: {}", shown(&output)));
        }
        unpin_defunct(*world)
    }

    fn confirm(&mut self, _lab: &LinuxBpf, top: &Path) -> Result<(), String> {
        if !self.is_due() {
            return Ok(());
        }
        self.audit(top)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::bpftool(top) {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)),
                looked => return looked,
            }
        }
    }
}

/// Removes the pins of links whose cgroups are gone, unless a record names them. The auditor judges unattached programs
/// only when it looks at the whole host, and the sequences may clean only this bpffs.
fn unpin_defunct(world: LinuxBpf) -> Result<(), String> {
    let said = |error: kernel::Error| error.to_string();
    // A link becomes defunct a moment after its cgroup is gone.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ledger = bpf::ledger::read(Path::new(bpf::ledger::DEFAULT_DIR))
            .map_err(|error| error.to_string())?;
        let attachments = ledger.entries.iter().flat_map(|(_, entry)| &entry.attachments);
        let recorded: BTreeSet<_> = attachments.filter_map(|it| it.pin.clone()).collect();
        let mut is_done = true;
        for pin in world.census().map_err(said)?.pins.into_iter().map(PathBuf::from) {
            // The list includes folders. The folder of our pins disappears with the last pin.
            if recorded.contains(&pin) || !pin.is_file() {
                continue;
            }
            let link = world.link_open_pinned(&pin).map_err(said)?;
            if world.link_info(&link).map_err(said)?.cgroup_id.is_none() {
                world.unpin(&pin).map_err(said)?;
            } else {
                is_done = false;
            }
        }
        // If the time is over, the gate finds what is left.
        if is_done || Instant::now() > deadline {
            return Ok(());
        }
        sleep(Duration::from_millis(2));
    }
}

fn run(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))
}

fn ask_bpftool(words: &[&str]) -> Result<Value, String> {
    // Distributions install bpftool there, but the PATH of users does not include these folders.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = run(Command::new("bpftool").env("PATH", path).arg("-j").args(words))?;
    let said = || format!("bpftool {}: {}", words.join(" "), shown(&output));
    if !output.status.success() {
        return Err(said());
    }
    if output.stdout.is_empty() {
        // Some versions print nothing if there is nothing.
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_slice(&output.stdout).map_err(|_| said())
}

/// Returns the ids of programs with the names of throttles' programs.
fn named_programs() -> Result<Vec<u64>, String> {
    let programs = ask_bpftool(&["prog", "show"])?;
    Ok(list(&programs).filter(|it| is_named(it)).filter_map(|it| it["id"].as_u64()).collect())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is_named(program: &Value) -> bool {
    program["name"].as_str().is_some_and(|name| name.starts_with("chadthrottle"))
}

fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[cfg(test)]
mod tests {
    use testkit::cgroup::ScratchCgroup;
    use testkit::isolation::isolate;
    use testkit::leak;

    use super::*;
    use crate::sequences::owners;

    #[test]
    fn root_a_leaked_throttle_that_names_no_owner_is_seen_by_both() {
        isolate();
        owners::begin().unwrap();
        let cgroup = ScratchCgroup::new("witness");
        let program = leak::load_nameless().unwrap();
        let id = program.info().id;
        let census = LinuxBpf::new().unwrap().census().unwrap();
        assert!(census.programs.contains(&id), "{census:?}");
        let told = Independent::bpftool(cgroup.path()).unwrap_err();
        assert!(told.starts_with("bpftool shows programs [") && told.contains(&id.to_string()));
        drop(program);
        let deadline = Instant::now() + PATIENCE;
        while let Err(told) = Independent::bpftool(cgroup.path()) {
            assert!(Instant::now() < deadline, "{told}");
            sleep(Duration::from_millis(20));
        }
    }
}
