//! `chadthrottle-audit scan`.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

use super::output::{self, Stream};
use super::progress::Progress;
use crate::baseline::Baseline;
use crate::classify::classify;
use crate::cli::Scan;
use crate::collect::{Breadth, collect};
use crate::escape::escape;
use crate::report::report;
use crate::snapshot::{SCHEMA_VERSION, Snapshot};

pub(super) fn run(args: &Scan) -> anyhow::Result<u8> {
    args.report.check("scan", &[])?;
    let baseline = args.baseline.as_deref().map(|file| {
        Ok::<_, anyhow::Error>(Baseline::new(&read(file)?, file.to_string_lossy().into_owned()))
    });
    let baseline = baseline.transpose()?;
    let snapshot = if let Some(file) = &args.from {
        read(file)?
    } else {
        let _progress = Progress::start("Looking at cgroups, programs and processes");
        let breadth = if args.all { Breadth::Everybody } else { Breadth::Ours };
        collect(&args.scope.options(breadth))?
    };
    let classified = classify(&snapshot);
    let mut report = report(&snapshot, &classified, args.all);
    if let Some(baseline) = baseline {
        baseline.apply(&mut report, &snapshot, &classified);
    }
    output::deliver(&report, &args.report, Stream::Stdout)?;
    Ok(report.verdict.exit_status())
}

/// Reads a snapshot from a file.
pub(super) fn read(file: &Path) -> anyhow::Result<Snapshot> {
    let text =
        fs::read(file).with_context(|| format!("cannot read the snapshot {}", file.display()))?;
    parse(&text).with_context(|| format!("cannot use {}", file.display()))
}

/// Reads a snapshot from a file's text.
pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Snapshot> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
        looks: Option<serde::de::IgnoredAny>,
    }
    let not_one = "it is not a snapshot: `chadthrottle-audit snapshot --output FILE` writes them";
    // What is wrong with a file is told with words from it, and they are anybody's.
    let harmless = |error: serde_json::Error| anyhow!(escape(&error.to_string()));
    let Version { schema_version, looks } =
        serde_json::from_slice(text).map_err(harmless).context(not_one)?;
    if looks.is_none() {
        // A report has a version as well.
        bail!(not_one);
    }
    if schema_version != SCHEMA_VERSION {
        bail!(
            "it is a snapshot of version {schema_version}, and this program reads version \
             {SCHEMA_VERSION}: use the chadthrottle-audit that wrote it"
        );
    }
    serde_json::from_slice(text).map_err(harmless).context(not_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_what_a_terminal_would_obey() {
        let recorded = include_str!("../../tests/snapshots-in/active.json");
        for odd in [r"cgroup_\u001b[2J", r"cgroup_\n\u202e"] {
            let text = recorded.replacen("cgroup_inet_ingress", odd, 1);
            let error = format!("{:#}", parse(text.as_bytes()).unwrap_err());
            assert!(error.contains("is no cgroup attach type"), "{error}");
            assert_eq!(escape(&error), error);
        }
    }
}
