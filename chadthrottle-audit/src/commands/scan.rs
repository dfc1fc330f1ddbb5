//! `chadthrottle-audit scan`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use auditor::baseline::Baseline;
use auditor::collect::{Breadth, collect};
use auditor::facts::{Look, SCHEMA_VERSION, Snapshot};
use auditor::judge::classify;
use auditor::report::report;
use nix::errno::Errno;
use serde::Deserialize;
use terminal::escape;
use terminal::exit::usage;
use terminal::{Progress, Stream};

use super::output;
use crate::cli::Scan;
use crate::exit;

pub(super) fn run(args: &Scan) -> anyhow::Result<u8> {
    args.report.check()?;
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
    Ok(exit::of_verdict(report.verdict))
}

/// Reads a snapshot from a file.
pub(super) fn read(file: &Path) -> anyhow::Result<Snapshot> {
    let mut text = Vec::new();
    let mut open = File::open(file).map_err(|error| unread(file, "open", &error))?;
    open.read_to_end(&mut text).map_err(|error| unread(file, "read", &error))?;
    parse(&text).map_err(|error| usage(format!("cannot use {}: {error:#}", file.display())).into())
}

/// Makes the error for a file that cannot be read: the kernel's reason, then the call.
fn unread(file: &Path, call: &str, error: &io::Error) -> anyhow::Error {
    let is_named_wrongly = matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    );
    let why = match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{} ({call}: {errno:?})", errno.desc()),
        None => error.to_string(),
    };
    let message = format!("cannot read the snapshot {}: {why}", file.display());
    if is_named_wrongly { usage(message).into() } else { anyhow!(message) }
}

/// Parses the text of a snapshot file.
pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Snapshot> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
        looks: Option<serde::de::IgnoredAny>,
    }
    let not_one = "it is not a snapshot: `chadthrottle-audit snapshot --output FILE` writes them";
    // The parser's message may quote the file, which anybody may have written, so escape it.
    let harmless = |error: serde_json::Error| anyhow!(escape(&error.to_string()));
    let Version { schema_version, looks } =
        serde_json::from_slice(text).map_err(harmless).context(not_one)?;
    if looks.is_none() {
        // A report has a version field too.
        bail!(not_one);
    }
    if schema_version != SCHEMA_VERSION {
        bail!(
            "it is a snapshot of version {schema_version}, and this program reads version \
             {SCHEMA_VERSION}: use the chadthrottle-audit that wrote it"
        );
    }
    let snapshot: Snapshot = serde_json::from_slice(text).map_err(harmless).context(not_one)?;
    match snapshot.looks.iter().find_map(twice) {
        Some(what) => bail!("it contradicts itself: {what} is in one look more than once"),
        None => Ok(snapshot),
    }
}

/// Returns a description of anything that a look has twice although it must be unique. Nobody could know which one to
/// judge. Only a file that somebody has edited can have such duplicates.
fn twice(look: &Look) -> Option<String> {
    let mut programs = HashSet::new();
    let program = look.programs.iter().map(|it| it.loaded.id).find(|&id| !programs.insert(id));
    let on_cgroups = look.links.iter().map(|it| it.id);
    let mut links = HashSet::new();
    let mut all_links = on_cgroups.chain(look.device_links.iter().map(|it| it.id));
    let link = all_links.find(|&id| !links.insert(id));
    let mut owners = HashSet::new();
    let owner = look.owners.iter().map(|it| &it.owner).find(|&owner| !owners.insert(owner));
    let program = program.map(|id| format!("program {id}"));
    let link = link.map(|id| format!("link {id}"));
    program.or(link).or(owner.map(|owner| format!("owner {}", owner.pid)))
}

#[cfg(test)]
mod tests {
    use auditor::facts::{DeviceLinkFact, LinkFact, ProgramFact};

    use super::*;

    #[test]
    fn a_file_with_two_of_what_there_is_one_of_is_refused() {
        let recorded = include_str!("../../../auditor/tests/snapshots-in/unreachable_program.json");
        let snapshot = parse(recorded.as_bytes()).unwrap();
        let refused = |change: &dyn Fn(&mut Look)| {
            let mut snapshot = snapshot.clone();
            change(&mut snapshot.looks[0]);
            format!("{:#}", parse(&serde_json::to_vec(&snapshot).unwrap()).unwrap_err())
        };
        let program = &snapshot.looks[0].programs[0];
        let mut other: ProgramFact = program.clone();
        (other.loaded.name, other.loaded.full_name) = ("another".to_owned(), None);
        let error = refused(&|look| look.programs.push(other.clone()));
        assert!(
            error.contains(&format!("program {} is in one look more", program.loaded.id)),
            "{error}"
        );

        let link = |kind| format!(r#"{{"id": 77, "program_id": 1, {kind}}}"#);
        let on_cgroup: LinkFact =
            serde_json::from_str(&link(r#""cgroup_id": 1, "attach_type": null"#)).unwrap();
        let on_device: DeviceLinkFact =
            serde_json::from_str(&link(r#""device": 1, "attach_type": "tcx_egress""#)).unwrap();
        let error = refused(&|look| {
            look.links.push(on_cgroup.clone());
            look.device_links.push(on_device.clone());
        });
        assert!(error.contains("link 77 is in one look more"), "{error}");

        let owner = &snapshot.looks[0].owners[0];
        let error = refused(&|look| look.owners.push(owner.clone()));
        assert!(error.contains(&format!("owner {} is in one look", owner.owner.pid)), "{error}");

        // Two owners that had the same pid at different times are different.
        let mut heirs = snapshot.clone();
        let mut heir = heirs.looks[0].owners[0].clone();
        heir.owner.start_time += 1;
        heirs.looks[0].owners.push(heir);
        assert_eq!(parse(&serde_json::to_vec(&heirs).unwrap()).unwrap(), heirs);
        // Each look may have the same things.
        heirs.looks.push(heirs.looks[0].clone());
        assert_eq!(parse(&serde_json::to_vec(&heirs).unwrap()).unwrap(), heirs);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_what_a_terminal_would_obey() {
        let recorded = include_str!("../../../auditor/tests/snapshots-in/active.json");
        for odd in [r"cgroup_\u001b[2J", r"cgroup_\n\u202e"] {
            let text = recorded.replacen("cgroup_inet_ingress", odd, 1);
            let error = format!("{:#}", parse(text.as_bytes()).unwrap_err());
            assert!(error.contains("is no cgroup attach type"), "{error}");
            assert_eq!(escape(&error), error);
        }
    }
}
