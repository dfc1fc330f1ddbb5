//! `chadthrottle-audit generate`.

use clap::CommandFactory;
use terminal::exit::DONE;
use terminal::{completions, print, write_man_pages};

use crate::cli::{Cli, Generate};

/// Man pages of other tools that show what the auditor sees.
const SEE_ALSO: [&str; 4] =
    ["chadthrottle(8)", "bpftool-cgroup(8)", "bpftool-prog(8)", "cgroups(7)"];

pub(super) fn run(args: &Generate) -> anyhow::Result<u8> {
    match args {
        Generate::Man { dir } => {
            for file in write_man_pages(Cli::command(), &SEE_ALSO, dir)? {
                print(&format!("{}\n", file.display()))?;
            }
        }
        Generate::Completions { shell } => {
            print(&completions(&Cli::command(), *shell)?)?;
        }
        Generate::Schema { document } => print(&document.schema()?)?,
    }
    Ok(DONE)
}
