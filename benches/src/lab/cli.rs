//! The lab's command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::plan::Choice;
use super::presets::Preset;
use super::traffic::Span;

/// Compare ways to limit traffic, with real traffic, side by side
///
/// Needs root. Everything happens in namespaces and cgroups of its own, and goes with it.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without --preset every combination of what is chosen is measured; with it, of its cells \
                  those that were chosen. What this kernel lacks is shown as not here.\n\n\
                  Exit status: 0 measured; 1 runs failed, and are in the results as such; 2 could not: bad \
                  usage, no root, something that could not be taken back; 130 stopped."
)]
pub struct Cli {
    /// Something else than measuring.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Measuring.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Something else than measuring.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show results again, of several machines in one
    Report(ReportArgs),
    /// Boots virtual machines, for `--vm`.
    #[command(hide = true)]
    Runner(Box<vmtests::machines::Args>),
}

/// What and how to measure.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// A chosen set of cells
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub choice: Choice,

    /// Measure a limit within a limit, too; the presets goals and full do
    #[arg(long)]
    pub nested: bool,

    /// How long each run counts [default: 4; goals: 3; smoke: 2]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: Option<u32>,

    /// How long each run goes before that
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=60))]
    pub omit: u32,

    /// How often each is measured; the median counts [default: 3; smoke: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub runs: Option<u32>,

    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    pub out: PathBuf,

    /// Print the results as one line of JSON, and write no files
    #[arg(long)]
    pub json: bool,

    /// Measure in a virtual machine with that kernel of the matrix (vmtests vm --list)
    #[arg(long, value_name = "KERNEL")]
    pub vm: Option<String>,

    /// End the virtual machine after that many seconds
    #[arg(long, value_name = "SECONDS", requires = "vm", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
}

impl RunArgs {
    /// Returns the length of each run.
    pub fn span(&self) -> Span {
        let usual = match self.preset {
            Some(Preset::Smoke) => 2,
            Some(Preset::Goals) => 3,
            Some(Preset::Full) | None => 4,
        };
        Span { seconds: self.seconds.unwrap_or(usual), omit: self.omit }
    }

    /// Returns the number of runs.
    pub fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.preset == Some(Preset::Smoke) { 1 } else { 3 })
    }

    /// Tells whether to measure limits within limits.
    pub fn nested(&self) -> bool {
        self.nested || matches!(self.preset, Some(Preset::Goals | Preset::Full))
    }
}

/// What to show again.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Results
    #[arg(required = true, value_name = "FILE.json")]
    pub files: Vec<PathBuf>,

    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    pub out: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_smoke_run_is_shorter_unless_it_was_said_how_long() {
        let args = |words: &str| Cli::parse_from(words.split(' ')).run;
        let smoke = args("lab --preset smoke");
        assert_eq!((smoke.span().seconds, smoke.runs(), smoke.nested()), (2, 1, false));
        let usual = args("lab --preset goals --rate 125K,10mbit");
        assert_eq!((usual.span().seconds, usual.runs(), usual.nested()), (3, 3, true));
        assert_eq!(usual.choice.rates[1].bytes_per_second(), 1_250_000);
        assert_eq!(args("lab --preset smoke --seconds 9 --runs 2").span().seconds, 9);
        assert!(Cli::try_parse_from(["lab", "--rate", "fast"]).is_err());
        assert!(Cli::try_parse_from(["lab", "report"]).is_err());
    }
}
