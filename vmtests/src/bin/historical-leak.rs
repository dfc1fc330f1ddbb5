//! Leaks as the historical throttle did, for `make demo` and for trying the auditor: attaches programs without a link and
//! exits without detaching them.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use kernel::AttachType;
use testkit::leak::plant;

/// Attach programs to a cgroup as the historical throttle did, and end without detaching them
#[derive(Debug, Parser)]
struct Args {
    /// The cgroup: its directory, or its path below the cgroup2 mount
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,

    /// How many times, in each direction; the kernel has room for 64
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    count: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cgroup = kernel::cgroup::find(&args.cgroup)?.path().to_owned();
    for _ in 0..args.count {
        for attach_type in [AttachType::INET_INGRESS, AttachType::INET_EGRESS] {
            let program = plant(&cgroup, attach_type).context("nothing was leaked")?;
            println!("attached program {program} ({attach_type}), and forgot it");
        }
    }
    Ok(())
}
