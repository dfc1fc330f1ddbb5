//! The harness's command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vmtests::vm;

/// Proves on real kernels that throttles leave nothing behind
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Vm(vm::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Vm(args) => vm::main(&args),
    }
}
