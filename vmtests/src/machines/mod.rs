//! Runs the tests in virtual machines with several kernels.
//!
//! [`matrix`] names the kernels, and [`kernels`] gets them. [`suite`] lists the tests on the host. [`machine`] boots
//! and listens, [`verdict`] judges, and [`report`] shows the results.

pub mod accel;
pub mod apt;
pub mod command;
pub mod group;
pub mod kernels;
pub mod machine;
pub mod matrix;
pub mod progress;
pub mod protocol;
pub mod report;
pub mod run;
pub mod stop;
pub mod suite;
pub mod verdict;
pub mod vng;

use std::path::PathBuf;
use std::process::ExitCode;

/// Run the tests in virtual machines
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything after `--` is given to nextest to choose tests by: a part of a name, or \
                  -E EXPRESSION. The tests are those with root_ in their names, and those whose names \
                  begin with vm_.\n\n\
                  A kernel may have several machines; the matrix says what runs in one of its own.\n\n\
                  Leaves target/vm/junit.xml, and for each machine target/vm/KERNEL[-BINARY]/ with the \
                  console and the log.\n\n\
                  Exit status: 0 every test passed on every kernel and left nothing; 1 tests failed, or \
                  fewer ran than were expected, or something was left; 2 could not: bad usage, no such \
                  kernel, nothing to run; 3 a VM died or hung; 130 stopped."
)]
pub struct Args {
    /// A kernel of the matrix; may be repeated. Without: all that are meant for every run
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,

    /// Show the matrix
    #[arg(long)]
    list: bool,

    /// Look for newer kernels than the cached ones
    #[arg(long)]
    refresh: bool,

    /// How to run the guests' processors
    #[arg(long, value_enum, default_value = "auto")]
    accel: accel::Wish,

    /// How many machines at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,

    /// How many processors each machine has
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,

    /// How much memory each machine has
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    memory: String,

    /// End a machine after that many seconds, instead of the matrix's limit
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Run this shell command in the machines, not the tests
    #[arg(long, value_name = "COMMAND", conflicts_with = "filter")]
    command: Option<String>,

    /// Show these results of the host's own kernel beside the others
    #[arg(long, value_name = "JUNIT.XML")]
    host_junit: Option<PathBuf>,

    /// What cargo built (`cargo nextest list --list-type binaries-only`), to not build it again
    #[arg(long, value_name = "FILE", requires = "cargo_metadata")]
    binaries_metadata: Option<PathBuf>,

    /// What `cargo metadata` said of it
    #[arg(long, value_name = "FILE", requires = "binaries_metadata")]
    cargo_metadata: Option<PathBuf>,

    /// Where the results go, instead of target/vm
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Another matrix
    #[arg(long, value_name = "FILE", default_value = matrix::FILE, hide_default_value = true)]
    matrix: PathBuf,

    /// Another virtme-ng than scripts/setup's
    #[arg(long, value_name = "FILE")]
    vng: Option<PathBuf>,

    /// What chooses the tests
    #[arg(last = true, allow_hyphen_values = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Runs the command and returns its exit status.
pub fn main(args: &Args) -> ExitCode {
    match run::run(args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vmtests: {error:#}");
            ExitCode::from(2)
        }
    }
}
