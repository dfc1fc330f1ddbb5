//! The command line; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use auditor::cli::Cli;
use auditor::commands::{FAILED, run};
use clap::Parser;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(status) => status.into(),
        Err(error) => {
            anstream::eprintln!("chadthrottle-audit: {error:#}");
            FAILED.into()
        }
    }
}
