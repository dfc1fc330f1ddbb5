//! Runs the command line; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use chadthrottle_audit::{Cli, run, status_of};
use terminal::talk;

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
            status_of(&error).into()
        }
    }
}
