//! Runs a bystander as a process: see `testkit::bystander`.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Parser;
use kernel::AttachType;
use testkit::bystander::{Task, die, run};

/// Attach and detach programs beside others, and leak some
#[derive(Debug, Parser)]
struct Args {
    /// What its choices follow from
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// The name of its programs
    #[arg(long, value_name = "NAME", required_unless_present = "dies_as")]
    foreign: Option<String>,

    /// The name of what it leaks
    #[arg(long, value_name = "NAME", required_unless_present = "dies_as")]
    ours: Option<String>,

    /// A cgroup with a list of one, for it alone
    #[arg(long, value_name = "DIRECTORY")]
    single: Option<PathBuf>,

    /// Attach one program of that name instead, and be killed
    #[arg(long, value_name = "NAME", requires = "attach_type", conflicts_with_all = ["foreign", "ours", "single"])]
    dies_as: Option<String>,

    /// Where that one is attached
    #[arg(long, value_name = "TYPE")]
    attach_type: Option<AttachType>,

    /// Cgroups with lists of many
    #[arg(required = true, value_name = "DIRECTORY")]
    shared: Vec<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Args { seed, foreign, ours, single, dies_as, attach_type, shared } = Args::parse();
    if let (Some(name), Some(attach_type)) = (dies_as, attach_type) {
        return die(&name, &shared[0], attach_type);
    }
    let (foreign, ours) = (foreign.unwrap_or_default(), ours.unwrap_or_default());
    run(&Task { seed, foreign, ours, shared, single })
}
