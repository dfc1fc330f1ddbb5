//! The command line; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use auditor::cli::Cli;
use auditor::commands::run;
use auditor::{exit, talk};

fn main() -> ExitCode {
    let cli: Cli = match talk::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    talk::start(&cli.loudness);
    match run(&cli) {
        Ok(status) => status.into(),
        Err(error) => {
            talk::error(&error);
            exit::status_of(&error).into()
        }
    }
}
