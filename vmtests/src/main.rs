//! Parses the harness's command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vmtests::sequences::commands;
use vmtests::{machines, proved};

/// Proves on real kernels that throttles leave nothing behind
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Vm(Box<machines::Args>),
    Proved(proved::Args),
    Replay(commands::ReplayArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Vm(args) => machines::main(&args),
        Command::Proved(args) => proved::main(&args),
        Command::Replay(args) => commands::replay(&args),
    }
}
