//! The command `replay`: runs a kept sequence again.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use sim::Version;
use sim::differential::{self, Beside, LATER};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::replay::Replay;

use super::in_model::TheEngine;
use super::on_kernel::Kernel;
use super::on_model;
use super::regressions;
use super::trial::Tally;

/// Run a kept sequence again: steps of a throttle system, or calls whose answers to compare
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 it holds, 1 it fails, 2 it could not be run.")]
pub struct ReplayArgs {
    /// The sequence: a file that a failed test wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to run it; the running kernel needs root. Calls run on two models, or on the kernel and its model
    #[arg(long, value_enum, default_value_t = Machine::Model)]
    on: Machine,
    /// Which kernel's rules the model follows [default: the running one's]
    #[arg(long, value_name = "VERSION")]
    rules: Option<Version>,
    /// Which throttle system: the engine, or on the running kernel the program as well [default: engine]
    #[arg(long, value_enum)]
    system: Option<Tested>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Machine {
    /// The model of the running kernel's version
    Model,
    /// The running kernel
    Kernel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tested {
    /// The engine
    Engine,
    /// The program `chadthrottle`
    Program,
}

impl ReplayArgs {
    /// Returns the arguments as a user would type them.
    fn typed(&self) -> Replay {
        let system = self.system.map(|system| match system {
            Tested::Engine => "engine".to_owned(),
            Tested::Program => "program".to_owned(),
        });
        let (file, on_kernel) = (Some(self.file.clone()), self.on == Machine::Kernel);
        Replay { file, on_kernel, rules: self.rules.map(|rules| rules.to_string()), system }
    }
}

/// The outcome of a replay.
enum Outcome {
    /// The sequence holds. Contains what was done.
    Holds(String),
    /// No step had anything to do.
    Nothing,
    /// The sequence fails. Contains the report.
    Fails(String),
}

/// Runs a sequence again.
pub fn replay(args: &ReplayArgs) -> ExitCode {
    match try_replay(args) {
        Ok(Outcome::Nothing) => {
            eprintln!("vmtests: not one of the steps had anything to do: nothing was tried");
            ExitCode::from(2)
        }
        Ok(Outcome::Holds(done)) => {
            println!("it holds: {done}");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Fails(told)) => {
            print!("{told}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("vmtests: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The two kinds of sequence that a file may have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Gate(regressions::Regression),
    Differential(differential::Regression),
}

fn try_replay(args: &ReplayArgs) -> Result<Outcome> {
    let name = args.file.display();
    let text = fs::read(&args.file).with_context(|| name.to_string())?;
    if args.on == Machine::Kernel {
        ensure!(
            args.rules.is_none(),
            "the running kernel has its own rules: leave out --rules, or --on kernel"
        );
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the running kernel needs root: run it as root, with sudo say"
        );
    }
    match serde_json::from_slice(&text).with_context(|| format!("{name}: no sequence"))? {
        Kept::Gate(kept) => {
            ensure!(!kept.steps.is_empty(), "{name}: no steps: nothing would be tried");
            in_gate(args, &kept)
        }
        Kept::Differential(kept) => {
            ensure!(!kept.calls.is_empty(), "{name}: no calls: nothing would be tried");
            ensure!(args.system.is_none(), "{name} has calls to the kernel: leave out --system");
            on_two_machines(args, &kept)
        }
    }
}

fn in_gate(args: &ReplayArgs, kept: &regressions::Regression) -> Result<Outcome> {
    let steps = &kept.steps;
    let system = args.system.unwrap_or(Tested::Engine);
    let done = match args.on {
        Machine::Model if system == Tested::Program => {
            bail!("the program runs on the running kernel only: --on kernel --system program");
        }
        Machine::Model => {
            let rules = args.rules.unwrap_or_else(Version::running);
            on_model::run(TheEngine, rules, steps)
        }
        Machine::Kernel => {
            let mut kernel = Kernel::new(1).map_err(|why| anyhow!(why))?;
            match system {
                Tested::Engine => kernel.run_engine(steps),
                Tested::Program => kernel.run_program(steps),
            }
        }
    };
    Ok(match done {
        Ok(Tally { steps: 0, .. }) => Outcome::Nothing,
        Ok(Tally { steps, faults, crashes, .. }) => Outcome::Holds(format!(
            "{steps} steps, {faults} faults, {crashes} crashes, nothing left"
        )),
        Err(violation) => Outcome::Fails(kept.failed(violation).report(&args.typed())),
    })
}

/// Makes the calls on two worlds, which must give the same answers.
fn on_two_machines(args: &ReplayArgs, kept: &differential::Regression) -> Result<Outcome> {
    let done = match args.on {
        Machine::Model => {
            let rules = args.rules.unwrap_or_else(Version::running);
            differential::models(rules, rules)(&kept.calls, LATER)
        }
        Machine::Kernel => {
            isolate();
            let scratch = ScratchCgroup::new("differential");
            Beside::new(scratch.path())?.compare(&kept.calls, LATER)
        }
    };
    Ok(match done {
        Ok(compared) if compared.calls == 0 => Outcome::Nothing,
        Ok(compared) => Outcome::Holds(format!("{} calls, the same answers", compared.calls)),
        Err(difference) => {
            let json = serde_json::to_string(kept)?;
            Outcome::Fails(format!("{difference}{}", args.typed().last_lines(&json, None)))
        }
    })
}
