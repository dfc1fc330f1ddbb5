//! Trials on the kernel that runs. Needs root, and namespaces of one's own ([`crate::isolation::isolate`]).

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::LinuxBpf;

use super::agent::AgentSystem;
use super::program::ProgramSystem;
use super::step::Step;
use super::system::System;
use super::trial::{Checked, Property, Tally, Trial, Violation};
use super::witness::Independent;
use crate::cgroup::ScratchCgroup;
use crate::isolation::isolate;
use crate::lab::{Census, Lab};
use crate::model::Version;

/// How long the kernel may take for what it does a little later.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same while a sequence that failed is made shorter: what fails again is waited for in vain each time.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);

/// The running kernel, for any number of trials, one after another.
#[derive(Debug)]
pub struct Kernel {
    lab: LinuxBpf,
    patience: Duration,
    witness: Independent,
    /// What of ours there is on the host that is none of the gate's business.
    before: Census,
}

impl Kernel {
    /// Gets ready: enters namespaces of its own (see [`isolate`]), for ledger and pins are removed whenever a
    /// sequence fails, and nobody else's may be among them. The witnesses are asked after the first sequence
    /// and then after every so many whether anything is left.
    ///
    /// # Errors
    /// When a program is missing.
    ///
    /// # Panics
    /// Without root.
    pub fn new(every: u64) -> Result<Self, String> {
        isolate();
        let said = |error: bpf::Error| error.to_string();
        let lab = LinuxBpf::new().map_err(said)?;
        let before = lab.census().map_err(said)?;
        Ok(Self { lab, patience: PATIENCE, witness: Independent::new(every)?, before })
    }

    /// Waits as long as at first again, also after a sequence that failed.
    pub fn be_patient(&mut self) {
        self.patience = PATIENCE;
    }

    /// Takes these steps with the engine in processes of its own, and takes everything down.
    ///
    /// # Errors
    /// What does not hold.
    pub fn run_engine(&mut self, steps: &[Step]) -> Checked<Tally> {
        self.run(AgentSystem::new(), steps)
    }

    /// The same with the program.
    ///
    /// # Errors
    /// What does not hold.
    pub fn run_program(&mut self, steps: &[Step]) -> Checked<Tally> {
        self.run(ProgramSystem::new(), steps)
    }

    /// Takes these steps with a system.
    ///
    /// # Errors
    /// What does not hold.
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
        // Declared first, so dropped last: the trial's world lies in it.
        let scratch = ScratchCgroup::new("gate");
        let system = system.map_err(broken)?;
        let version = Version::running();
        let mut trial = Trial::new(self.lab, system, scratch.path(), version, self.patience)
            .map_err(|error| broken(error.to_string()))?;
        for step in steps {
            trial.step(step)?;
        }
        trial.finish(&mut self.witness)
    }

    /// No sequence finds what one before it has left: that would make it fail as well. What was left in good
    /// order, the lock and the folders, may stay.
    fn tidy_up(&self, failed: bool) {
        if !failed {
            return;
        }
        let pins = Path::new(bpf::pins::DEFAULT_BPFFS).join("chadthrottle");
        for folder in [Path::new(bpf::ledger::DEFAULT_DIR), &pins] {
            if let Err(error) = fs::remove_dir_all(folder)
                && folder.exists()
            {
                eprintln!("{} stays: {error}", folder.display());
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.lab.census() {
                Ok(census) if census.clone().without(&self.before).is_empty() => return,
                _ => sleep(Duration::from_millis(5)),
            }
        }
        eprintln!("what the sequence has left is still in the kernel");
    }
}
