//! Runs the `main` of every bench: checks the preconditions and reports the result.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::baseline::{Baseline, Ratio};

/// How a bench was started.
#[derive(Debug)]
pub struct Run {
    bench: &'static str,
    smoke: bool,
    baseline: Baseline,
}

/// Runs a bench and returns the exit status. 0 means that all went well, and 1 that it failed or missed a goal. 2 means
/// that it could not begin, without root or with invalid settings.
pub fn main(
    bench: &'static str,
    what: &str,
    body: impl FnOnce(&Run) -> anyhow::Result<()>,
) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("{bench} {what}, which needs root: run it with sudo");
        return ExitCode::from(2);
    }
    let baseline = match Baseline::from_env() {
        Ok(baseline) => baseline,
        Err(error) => {
            eprintln!("{bench}: {error:#}");
            return ExitCode::from(2);
        }
    };
    let run = Run { bench, smoke: is_smoke(std::env::args_os()), baseline };
    match body(&run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{bench}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    /// Tells whether this is a smoke run, which does everything once to see that it works. Its figures mean nothing.
    pub fn is_smoke(&self) -> bool {
        self.smoke
    }

    /// Shows the ratios beside those of the baseline, or saves them.
    ///
    /// # Errors
    /// Fails if a ratio is far above the baseline's or missing there, or if the file cannot be read or written.
    pub fn settle(&self, ratios: &[Ratio]) -> anyhow::Result<()> {
        if self.smoke { Ok(()) } else { self.baseline.settle(self.bench, ratios) }
    }
}

/// Tells whether to do a smoke run. As with Criterion, cargo passes `--bench` when a bench should measure.
fn is_smoke(args: impl IntoIterator<Item = OsString>) -> bool {
    let args: Vec<OsString> = args.into_iter().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    has("--test") || !has("--bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cargo_bench_measures() {
        let smoke = |args: &[&str]| is_smoke(args.iter().map(Into::into));
        assert!(!smoke(&["packet_path", "--bench"]));
        assert!(smoke(&["packet_path", "--test", "--bench"]));
        assert!(smoke(&["packet_path"]));
    }
}
