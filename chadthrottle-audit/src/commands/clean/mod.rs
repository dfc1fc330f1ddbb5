//! `chadthrottle-audit clean`.

mod forced;
mod tally;
mod told;

use std::io::{self, BufRead, IsTerminal};

use auditor::actions::{Action, Step, plan};
use auditor::clean::{Cleaner, Done, Outcome};
use auditor::collect::Breadth;
use auditor::judge::classify;
use terminal::Progress;
use terminal::exit::usage;
use terminal::talk::{ask, say};
use terminal::{escape, escape_bytes};

use self::forced::Forced;
use self::tally::Tally;
use self::told::Told;
use crate::cli::Clean;
use crate::remedy;

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
    let forced = Forced::new(&classified, &args.force)?;
    let steps = plan(&classified);
    let mut told = Told::new(args);
    let is_idle = !steps.iter().any(is_action);
    if args.dry_run || (is_idle && forced.is_idle()) {
        for step in &steps {
            told.planned(step, false);
        }
        for step in forced.steps() {
            told.planned(step, true);
        }
        // Nothing has changed, so the verdict stands.
        told.end(&snapshot, &classified)?;
        let is_undone = !args.dry_run && forced.has_refusal();
        return Ok(Tally::new(is_undone).status(classified.verdict));
    }
    let is_agreed = !is_idle && (args.yes || is_agreed(&steps)?);
    let chosen = forced.agreed(args.yes)?;
    if !is_agreed {
        for step in &steps {
            told.declined(step, false);
        }
    }
    for step in forced.declined(&chosen) {
        told.declined(step, true);
    }
    if !is_agreed && chosen.is_empty() {
        say("Nothing was done.");
        told.nothing_done(&snapshot, &classified)?;
        return Ok(Tally::new(forced.has_refusal()).status(classified.verdict));
    }
    let mut tally = Tally::new(forced.has_refusal());
    let mut tell = |done: &Done, is_forced| {
        tally.count(done, is_forced);
        told.done(done, is_forced);
    };
    if is_agreed {
        cleaner.clean(&classified, |done| tell(&done, false));
    }
    cleaner.force(&chosen, |done| tell(&done, true));
    told.printed()?;
    let snapshot = {
        let _progress = Progress::start(LOOKING);
        cleaner.scan(settle)?
    };
    let classified = classify(&snapshot);
    told.end_after_acts(&snapshot, &classified)?;
    Ok(tally.status(classified.verdict))
}

fn is_action(step: &Step) -> bool {
    !matches!(step.action, Action::Cannot(_))
}

fn is_agreed(steps: &[Step]) -> anyhow::Result<bool> {
    for step in steps {
        say(intent(step));
    }
    let count = steps.iter().filter(|step| is_action(step)).count();
    let these = if count == 1 { "this".to_owned() } else { format!("these {count} things") };
    ask(format_args!("Do {these}? [y/N] "));
    Ok(is_yes()?)
}

fn is_yes() -> io::Result<bool> {
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Says in one line what a step would do.
fn intent(step: &Step) -> String {
    let what = match &step.action {
        Action::DetachLegacy { .. }
        | Action::DetachLink { .. }
        | Action::DetachFromDevice { .. } => "would detach",
        Action::RemoveDevice(_) => "would remove",
        Action::Unpin { .. } => "would unpin",
        Action::Cannot(obstacle) => {
            return format!(
                "cannot remove {}: {}",
                target(step),
                escape(&remedy::obstacle(obstacle))
            );
        }
    };
    format!("{what} {}", target(step))
}

/// Says in one line what was done.
fn line(done: &Done) -> String {
    let target = done.step.as_ref().map_or_else(|| escape(&done.leak), target);
    let (verb, past) = match done.step.as_ref().map(|step| &step.action) {
        Some(Action::Unpin { .. }) => ("unpin", "unpinned"),
        Some(Action::RemoveDevice(_)) => ("remove", "removed"),
        _ => ("detach", "detached"),
    };
    let line = match &done.outcome {
        Outcome::Removed => {
            let remains = done.step.as_ref().and_then(|step| step.remains.as_ref());
            let remains = remains.map(|it| format!("; {}", remedy::remains(it)));
            format!("{past} {target}{}", remains.unwrap_or_default())
        }
        Outcome::Gone(why) => format!("nothing to do for {target}: {why}"),
        Outcome::Left(obstacle) => {
            format!("cannot remove {target}: {}", remedy::obstacle(obstacle))
        }
        Outcome::Failed(failure) => format!("FAILED to {verb} {target}: {failure}"),
    };
    escape(&line)
}

/// Names the target of a step.
fn target(step: &Step) -> String {
    let program = step.program.as_ref().map_or_else(String::new, |program| {
        let name = if program.name.is_empty() { "no name" } else { &*program.name };
        format!("program {} ({})", program.identity.id, escape(name))
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
        Action::Cannot(_) => format!("{program} ({})", step.finding),
    }
}
