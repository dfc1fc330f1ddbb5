//! `chadthrottle-audit clean`.

use std::io::{self, BufRead, IsTerminal};

use super::output::{self, Stream};
use super::progress::Progress;
use crate::classify::{Classified, classify};
use crate::clean::{Cleaner, Done, Outcome};
use crate::cli::Clean;
use crate::collect::Breadth;
use crate::escape::{escape, escape_bytes};
use crate::exit::{NOT_DONE, usage};
use crate::formats::Rendition;
use crate::plan::{Action, Step, plan};
use crate::report::report;
use crate::snapshot::Snapshot;
use crate::talk::{ask, say};

const LOOKING: &str = "Looking at cgroups, programs and processes";

pub(super) fn run(args: &Clean) -> anyhow::Result<u8> {
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.yes && !args.dry_run && !may_ask {
        return Err(usage("not a terminal: pass --yes to proceed, or --dry-run to preview").into());
    }
    let cleaner = Cleaner::new(&args.scope.options(Breadth::Ours))?;
    let settle = args.scope.settle.into();
    let snapshot = {
        let _progress = Progress::start(LOOKING);
        cleaner.scan(settle)?
    };
    let classified = classify(&snapshot);
    let steps = plan(&classified);
    let is_idle = !steps.iter().any(is_action);
    if args.dry_run || is_idle {
        for step in &steps {
            output::print(&format!("{}\n", intent(step)))?;
        }
        // Nothing was changed, so the verdict stands.
        show(&snapshot, &classified)?;
        return Ok(classified.verdict.exit_status());
    }
    if !args.yes && !is_agreed(&steps)? {
        say("Nothing was done.");
        return Ok(classified.verdict.exit_status());
    }
    let is_failed = clean(&cleaner, &classified)?;
    let snapshot = {
        let _progress = Progress::start(LOOKING);
        cleaner.scan(settle)?
    };
    output::print("\n")?;
    let classified = classify(&snapshot);
    show(&snapshot, &classified)?;
    Ok(if is_failed { NOT_DONE } else { classified.verdict.exit_status() })
}

fn show(snapshot: &Snapshot, classified: &Classified<'_>) -> anyhow::Result<()> {
    output::print(&report(snapshot, classified, false).text(Stream::Stdout.medium()))
}

/// Cleans, one line for each thing done; true if something failed.
fn clean(cleaner: &Cleaner, classified: &Classified<'_>) -> anyhow::Result<bool> {
    let mut is_failed = false;
    let mut printed = Ok(());
    cleaner.clean(classified, |done| {
        is_failed |= matches!(done.outcome, Outcome::Failed(_));
        // Cleaning goes on though nobody may be reading.
        if printed.is_ok() {
            printed = output::print(&format!("{}\n", line(&done)));
        }
    });
    printed.map(|()| is_failed)
}

fn is_action(step: &Step) -> bool {
    !matches!(step.action, Action::Cannot { .. })
}

fn is_agreed(steps: &[Step]) -> anyhow::Result<bool> {
    for step in steps {
        say(intent(step));
    }
    let count = steps.iter().filter(|step| is_action(step)).count();
    let these = if count == 1 { "this".to_owned() } else { format!("these {count} things") };
    ask(format_args!("Do {these}? [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What a step would do, in one line.
fn intent(step: &Step) -> String {
    let what = match &step.action {
        Action::DetachLegacy { .. }
        | Action::DetachLink { .. }
        | Action::DetachFromDevice { .. } => "would detach",
        Action::RemoveDevice(_) => "would remove",
        Action::Unpin { .. } => "would unpin",
        Action::Cannot { why, .. } => {
            return format!("cannot remove {}: {}", target(step), escape(why));
        }
    };
    format!("{what} {}", target(step))
}

/// What was done, in one line.
fn line(done: &Done) -> String {
    let target = done.step.as_ref().map_or_else(|| escape(&done.leak), target);
    let (verb, past) = match done.step.as_ref().map(|step| &step.action) {
        Some(Action::Unpin { .. }) => ("unpin", "unpinned"),
        Some(Action::RemoveDevice(_)) => ("remove", "removed"),
        _ => ("detach", "detached"),
    };
    let line = match &done.outcome {
        Outcome::Removed => {
            let note = done.step.as_ref().and_then(|step| step.note.as_deref());
            format!("{past} {target}{}", note.map(|note| format!("; {note}")).unwrap_or_default())
        }
        Outcome::Gone(why) => format!("nothing to do for {target}: {why}"),
        Outcome::Left(why) => format!("cannot remove {target}: {why}"),
        Outcome::Failed(failure) => format!("FAILED to {verb} {target}: {failure}"),
    };
    escape(&line)
}

/// What a step is about.
fn target(step: &Step) -> String {
    let program = step.program.as_ref().map_or_else(String::new, |program| {
        format!("program {} ({})", program.id, escape(&program.name))
    });
    match &step.action {
        Action::DetachLegacy { cgroup, attach_type, .. } => {
            let cgroup = escape_bytes(cgroup.as_os_str().as_encoded_bytes());
            format!("{program} from {cgroup}, {attach_type}")
        }
        Action::DetachLink { link, attach_type, cgroup_id } => {
            format!("{program}, link {link}, from cgroup {cgroup_id}, {attach_type}")
        }
        Action::DetachFromDevice { link, device } => {
            format!("{program}, link {link}, from network device {device}")
        }
        Action::RemoveDevice(device) => escape(&format!("network {device}")),
        Action::Unpin { path, .. } => {
            format!("{}, which holds {program}", escape_bytes(path.as_os_str().as_encoded_bytes()))
        }
        Action::Cannot { .. } => format!("{program} ({})", step.finding),
    }
}
