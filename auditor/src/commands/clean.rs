//! `chadthrottle-audit clean`.

mod forced;
mod told;

use std::io::{self, BufRead, IsTerminal};

use self::forced::Forced;
use self::told::Told;
use super::progress::Progress;
use crate::classify::{Verdict, classify};
use crate::clean::{Cleaner, Done, Outcome};
use crate::cli::Clean;
use crate::collect::Breadth;
use crate::escape::{escape, escape_bytes};
use crate::exit::{DONE, NOT_DONE, usage};
use crate::plan::{Action, Step, plan};
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
        // Nothing was changed, so the verdict stands.
        told.end(&snapshot, &classified)?;
        let is_undone = !args.dry_run && forced.has_refusal();
        return Ok(Tally { is_failed: false, is_undone }.status(classified.verdict));
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
    let mut tally = Tally { is_failed: false, is_undone: forced.has_refusal() };
    if !is_agreed && chosen.is_empty() {
        say("Nothing was done.");
        told.nothing_done(&snapshot, &classified)?;
        return Ok(tally.status(classified.verdict));
    }
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

/// What came of all steps.
#[derive(Debug, Clone, Copy)]
struct Tally {
    /// A step failed.
    is_failed: bool,
    /// Something that was to be removed though it is unowned was not.
    is_undone: bool,
}

impl Tally {
    fn count(&mut self, done: &Done, is_forced: bool) {
        self.is_failed |= matches!(done.outcome, Outcome::Failed(_));
        self.is_undone |= is_forced && matches!(done.outcome, Outcome::Left(_));
    }

    /// The exit status, with the verdict of the last scan: 1 where a step failed, or something that `--force` names was
    /// not removed.
    fn status(self, verdict: Verdict) -> u8 {
        match verdict.exit_status() {
            _ if self.is_failed => NOT_DONE,
            DONE if self.is_undone => NOT_DONE,
            status => status,
        }
    }
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
    Ok(is_yes()?)
}

fn is_yes() -> io::Result<bool> {
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
        let name = if program.name.is_empty() { "no name" } else { &*program.name };
        format!("program {} ({})", program.id, escape(name))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::Failure;

    fn outcomes() -> [Outcome; 4] {
        let why = || "why".to_owned();
        [
            Outcome::Removed,
            Outcome::Gone(why()),
            Outcome::Left(why()),
            Outcome::Failed(Failure::StillThere),
        ]
    }

    /// Every sequence of so many steps, each against a leak or forced.
    fn sequences(length: usize) -> Vec<Vec<(Outcome, bool)>> {
        let mut all = vec![Vec::new()];
        for _ in 0..length {
            let longer = |earlier: &Vec<(Outcome, bool)>| {
                let steps = outcomes().into_iter().flat_map(|it| [(it.clone(), false), (it, true)]);
                steps.map(|step| [&earlier[..], &[step]].concat()).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        all
    }

    #[test]
    fn a_step_that_failed_or_was_refused_counts_wherever_it_stands_among_others() {
        use Outcome::{Failed, Left};
        for steps in (0..=3).flat_map(sequences) {
            for has_refusal in [false, true] {
                let mut tally = Tally { is_failed: false, is_undone: has_refusal };
                for (outcome, is_forced) in steps.clone() {
                    tally.count(&Done { leak: String::new(), step: None, outcome }, is_forced);
                }
                let has_failed = steps.iter().any(|(it, _)| matches!(it, Failed(_)));
                let has_left = steps.iter().any(|(it, forced)| *forced && matches!(it, Left(_)));
                for verdict in [Verdict::Clean, Verdict::Leaks, Verdict::Incomplete] {
                    let expected = match verdict {
                        _ if has_failed => 1,
                        Verdict::Clean => u8::from(has_left || has_refusal),
                        Verdict::Leaks => 1,
                        Verdict::Incomplete => 2,
                    };
                    assert_eq!(tally.status(verdict), expected, "{verdict:?} {steps:?}");
                }
            }
        }
    }
}
