//! Limits the network rate of cgroups and processes, and leaves nothing behind.
#![forbid(unsafe_code)]

mod adopted;
mod armed;
mod cli;
mod course;
mod departures;
mod doctor;
mod follow;
mod former;
mod generate;
mod hold;
mod ids;
mod in_force;
mod limit;
mod list;
mod mount;
mod named;
mod others;
mod rearm;
mod rm;
mod settled;
mod signals;
mod sockets;
mod sum;
mod summary;
mod target;
mod throttles;
mod traffic;
mod waiting;
mod watch;
mod words;

use std::process::ExitCode;

use terminal::talk;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli: Cli = match talk::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    talk::start(&cli.loudness);
    let result = match cli.command {
        Command::Limit(args) => limit::run(&args),
        Command::List(args) => list::run(&args),
        Command::Rearm(args) => rearm::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ids => ids::run(),
        Command::Generate(what) => generate::run(&what),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            talk::error(&error);
            if let Some(throttle_core::Error::Kernel(error)) = error.downcast_ref() {
                error.log().into_iter().for_each(talk::log);
            }
            ExitCode::from(words::exit_status(&error))
        }
    }
}
