//! The subcommands.

mod clean;
mod diff;
mod explain;
mod gate;
mod generate;
pub(crate) mod output;
mod progress;
pub(crate) mod scan;
mod snapshot;

use crate::cli::{Cli, Command};

/// Does what the command line asks for; returns the exit status.
///
/// # Errors
/// What failed, on what, why, and what to do; [`crate::exit::status_of`] is the exit status then.
pub fn run(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        Command::Scan(args) => scan::run(args),
        Command::Clean(args) => clean::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Gate(args) => gate::run(args),
        Command::GateCommand { why_not, argv } => Ok(gate::become_it(*why_not, argv)),
        Command::Explain(args) => explain::run(args),
        Command::Generate(args) => generate::run(args),
    }
}
