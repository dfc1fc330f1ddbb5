//! Implements the subcommands.

mod clean;
mod diff;
mod explain;
mod gate;
mod generate;
mod output;
pub(crate) mod scan;
mod snapshot;

use crate::cli::{Cli, Command};

/// Runs the subcommand that the command line names. Returns the exit status.
///
/// # Errors
/// The error says what failed, on what, why, and what to do. [`crate::status_of`] returns its exit status.
pub fn run(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        Command::Scan(args) => scan::run(args),
        Command::Clean(args) => clean::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Gate(args) => gate::run(args),
        Command::Become { why_not, argv } => Ok(gate::become_it(*why_not, argv)),
        Command::Explain(args) => explain::run(args),
        Command::Generate(args) => generate::run(args),
    }
}
