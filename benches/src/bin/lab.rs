//! The traffic lab's binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use benches::lab::cli::Cli;
use benches::lab::commands;
use clap::Parser;

fn main() -> ExitCode {
    match commands::run(&Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}
