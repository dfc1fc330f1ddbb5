//! `chadthrottle-audit scan`.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::output;
use super::progress::Progress;
use crate::classify::{Verdict, classify};
use crate::cli::{Format, Scan};
use crate::collect::{Breadth, collect};
use crate::report::report;
use crate::snapshot::{SCHEMA_VERSION, Snapshot};
use crate::text::render;

pub(super) fn run(args: &Scan) -> anyhow::Result<u8> {
    let snapshot = if let Some(file) = &args.from {
        read(file)?
    } else {
        let _progress = Progress::start("Looking at cgroups, programs and processes");
        let breadth = if args.all { Breadth::Everybody } else { Breadth::Ours };
        collect(&args.scope.options(breadth))?
    };
    let verdict = print(&snapshot, args.all, args.format, args.output.as_deref())?;
    Ok(verdict.exit_status())
}

/// Judges a snapshot and writes the report.
pub(super) fn print(
    snapshot: &Snapshot,
    all: bool,
    format: Format,
    to: Option<&Path>,
) -> anyhow::Result<Verdict> {
    let classified = classify(snapshot);
    let report = report(snapshot, &classified, all);
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Text if to.is_some() => render(&report, false, None),
        Format::Text => render(&report, output::is_coloured(), output::width()),
    };
    output::write(to, &text)?;
    Ok(classified.verdict)
}

/// Reads a snapshot from a file.
fn read(file: &Path) -> anyhow::Result<Snapshot> {
    let text =
        fs::read(file).with_context(|| format!("cannot read the snapshot {}", file.display()))?;
    parse(&text).with_context(|| format!("cannot use {}", file.display()))
}

fn parse(text: &[u8]) -> anyhow::Result<Snapshot> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
        looks: Option<serde::de::IgnoredAny>,
    }
    let not_one = "it is not a snapshot: `chadthrottle-audit snapshot --output FILE` writes them";
    let Version { schema_version, looks } = serde_json::from_slice(text).context(not_one)?;
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
    serde_json::from_slice(text).context(not_one)
}
