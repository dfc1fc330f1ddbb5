//! The gate's commands: running a sequence again that was kept.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail, ensure};

use super::in_model::TheEngine;
use super::on_kernel::Kernel;
use super::on_model;
use super::random::Failure;
use super::regressions;
use super::trial::Tally;
use crate::model::Version;

/// Run a sequence of the gate again that was kept as a file
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 it holds, 1 it fails, 2 it could not be run.")]
pub struct ReplayArgs {
    /// The sequence: a file that the gate wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// On what; the running kernel needs root
    #[arg(long, value_enum, default_value_t = Machine::Model)]
    on: Machine,
    /// Of the model, the rules of this kernel [default: the running one's]
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
    /// As they were typed.
    fn options(&self) -> String {
        let rules = self.rules.map(|rules| format!(" --rules {rules}"));
        let on = (self.on == Machine::Kernel).then(|| " --on kernel".to_owned());
        let system = self.system.map(|system| match system {
            Tested::Engine => " --system engine".to_owned(),
            Tested::Program => " --system program".to_owned(),
        });
        [rules, on, system].into_iter().flatten().collect()
    }
}

/// Runs a sequence again.
pub fn replay(args: &ReplayArgs) -> ExitCode {
    match try_replay(args) {
        Ok(Ok(tally)) if tally.steps == 0 => {
            eprintln!("vmtests: not one of the steps had anything to do: nothing was tried");
            ExitCode::from(2)
        }
        Ok(Ok(tally)) => {
            let Tally { steps, faults, crashes, .. } = tally;
            println!("it holds: {steps} steps, {faults} faults, {crashes} crashes, nothing left");
            ExitCode::SUCCESS
        }
        Ok(Err(failure)) => {
            print!("{}", failure.listing(Some(&args.file), &args.options()));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("vmtests: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn try_replay(args: &ReplayArgs) -> Result<Result<Tally, Failure>> {
    let steps = regressions::read(&args.file)?.steps;
    ensure!(!steps.is_empty(), "{}: no steps: nothing would be tried", args.file.display());
    let system = args.system.unwrap_or(Tested::Engine);
    let done = match args.on {
        Machine::Model if system == Tested::Program => {
            bail!("the program runs on the running kernel only: --on kernel --system program");
        }
        Machine::Model => {
            let rules = args.rules.unwrap_or_else(Version::running);
            on_model::run(TheEngine, rules, &steps)
        }
        Machine::Kernel if args.rules.is_some() => {
            bail!("the running kernel has its own rules: leave out --rules, or --on kernel");
        }
        Machine::Kernel => {
            if !nix::unistd::geteuid().is_root() {
                bail!("the running kernel needs root: run it as root, with sudo say");
            }
            let mut kernel = Kernel::new(1).map_err(|why| anyhow!(why))?;
            match system {
                Tested::Engine => kernel.run_engine(&steps),
                Tested::Program => kernel.run_program(&steps),
            }
        }
    };
    Ok(done.map_err(|violation| Failure { violation, steps, cases: 1, again: None }))
}
