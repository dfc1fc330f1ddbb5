//! Runs trials on the running kernel. Needs root and private namespaces ([`testkit::isolation::isolate`]).

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::LinuxBpf;
use sim::{Census, Version};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use super::agent::AgentSystem;
use super::census::Surveyed;
use super::program::ProgramSystem;
use super::step::Step;
use super::system::System;
use super::trial::{Checked, Property, Tally, Trial, Violation};
use super::witness::Independent;

/// How long the kernel may take to finish a step.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same while a failed sequence is shortened: each run that fails again waits for its full length.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);

/// The running kernel, for any number of trials, one after another.
#[derive(Debug)]
pub struct Kernel {
    world: LinuxBpf,
    patience: Duration,
    witness: Independent,
    /// Throttles that existed on the host before.
    before: Census,
}

impl Kernel {
    /// Enters private namespaces (see [`isolate`]), because a sequence that fails removes the whole ledger and all
    /// pins. Asks the witnesses after the first sequence, and then after every `every`th, whether anything is left.
    ///
    /// # Errors
    /// Fails if a program is missing.
    ///
    /// # Panics
    /// Panics without root.
    pub fn new(every: u64) -> Result<Self, String> {
        isolate();
        let said = |error: kernel::Error| error.to_string();
        let world = LinuxBpf::new().map_err(said)?;
        let before = world.census().map_err(said)?;
        Ok(Self { world, patience: PATIENCE, witness: Independent::new(every)?, before })
    }

    /// Waits for the full time again, which a failed sequence had shortened.
    pub fn be_patient(&mut self) {
        self.patience = PATIENCE;
    }

    /// Takes these steps with the engine, with a process for each owner, and then takes everything down.
    ///
    /// # Errors
    /// Returns the violated property.
    pub fn run_engine(&mut self, steps: &[Step]) -> Checked<Tally> {
        self.run(AgentSystem::new(), steps)
    }

    /// Takes these steps with the program.
    ///
    /// # Errors
    /// Returns the violated property.
    pub fn run_program(&mut self, steps: &[Step]) -> Checked<Tally> {
        self.run(ProgramSystem::new(), steps)
    }

    /// Takes these steps with a system.
    ///
    /// # Errors
    /// Returns the violated property.
    pub fn run<S: System>(&mut self, system: Result<S, String>, steps: &[Step]) -> Checked<Tally> {
        let done = self.try_run(system, steps);
        self.tidy_up(done.is_err());
        if done.is_err() {
            self.patience = SHORT_PATIENCE;
        }
        done
    }

    fn try_run<S: System>(&mut self, system: Result<S, String>, steps: &[Step]) -> Checked<Tally> {
        let broken = |why: String| Violation::new(Property::GateIsRight, why);
        // This is declared first, so Rust drops it last. The trial's world is inside it.
        let scratch = ScratchCgroup::new("gate");
        let system = system.map_err(broken)?;
        let version = Version::running();
        let mut trial = Trial::new(self.world, system, scratch.path(), version, self.patience)
            .map_err(|error| broken(error.to_string()))?;
        for step in steps {
            trial.step(step)?;
        }
        trial.finish(&mut self.witness)
    }

    /// Removes what a failed sequence has left, so that the next one does not fail because of it. The lock and the
    /// folders may stay.
    fn tidy_up(&self, failed: bool) {
        if !failed {
            return;
        }
        let pins = Path::new(kernel::pins::DEFAULT_BPFFS).join("chadthrottle");
        for folder in [Path::new(bpf::ledger::DEFAULT_DIR), &pins] {
            if let Err(error) = fs::remove_dir_all(folder)
                && folder.exists()
            {
                eprintln!("{} stays: {error}", folder.display());
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.world.census() {
                Ok(census) if census.clone().without(&self.before).is_empty() => return,
                _ => sleep(Duration::from_millis(5)),
            }
        }
        eprintln!("what the sequence has left is still in the kernel");
    }
}
