//! `chadthrottle generate` writes man pages, completions and JSON Schemas.

use clap::CommandFactory;
use terminal::schema_of;
use terminal::{completions, write_man_pages};

use crate::cli::{Cli, Document, Generate};
use crate::throttles::Throttles;
use crate::words::print;
use crate::{doctor, ids};

pub(crate) fn run(what: &Generate) -> anyhow::Result<()> {
    match what {
        Generate::Man { dir } => {
            let see_also = ["chadthrottle-audit(8)", "tc(8)", "cgroups(7)"];
            for file in write_man_pages(Cli::command(), &see_also, dir)? {
                print(&format!("{}\n", file.display()))?;
            }
            Ok(())
        }
        Generate::Schema { document: Document::Doctor } => print(&doctor::schema()?),
        Generate::Schema { document: Document::List } => print(&schema_of::<Throttles>()?),
        Generate::Completions { shell } => {
            print(&ids::complete(&completions(&Cli::command(), *shell)?, *shell))
        }
    }
}
