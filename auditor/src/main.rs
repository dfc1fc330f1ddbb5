//! The command line; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use auditor::cli::Cli;
use auditor::commands::{FAILED, run};
use auditor::escape::escape;
use auditor::talk::say;
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && has_control_characters() => {
            // What is wrong is quoted as it is: here it is not to reach a terminal like that.
            for line in error.render().to_string().lines() {
                say(escape(line));
            }
            return FAILED.into();
        }
        Err(error) => error.exit(),
    };
    match run(&cli) {
        Ok(status) => status.into(),
        Err(error) => {
            say(format_args!("chadthrottle-audit: {}", escape(&format!("{error:#}"))));
            FAILED.into()
        }
    }
}

/// Whether an argument has characters that a terminal would obey.
fn has_control_characters() -> bool {
    std::env::args_os().any(|it| it.to_string_lossy().chars().any(char::is_control))
}
