//! `chadthrottle-audit generate`.

use clap::CommandFactory;

use super::output;
use crate::cli::{Cli, Generate};
use crate::exit::DONE;
use crate::generate::{completions, write_man_pages};

/// Pages of others that help to see by hand what the auditor sees.
const SEE_ALSO: [&str; 4] =
    ["chadthrottle(8)", "bpftool-cgroup(8)", "bpftool-prog(8)", "cgroups(7)"];

pub(super) fn run(args: &Generate) -> anyhow::Result<u8> {
    match args {
        Generate::Man { dir } => {
            for file in write_man_pages(Cli::command(), &SEE_ALSO, dir)? {
                output::print(&format!("{}\n", file.display()))?;
            }
        }
        Generate::Completions { shell } => {
            output::print(&completions(&Cli::command(), *shell)?)?;
        }
        Generate::Schema { document } => output::print(&document.schema()?)?,
    }
    Ok(DONE)
}
