//! Handles `--force`, which names unowned programs.

use std::io;

use auditor::actions::{Step, doubt, forced};
use auditor::judge::{Classified, Judged};
use terminal::escape;
use terminal::exit::{Ends, usage};
use terminal::talk::{ask, say};

use super::{intent, is_action, target};

/// The named programs, with the steps for each.
pub(super) struct Forced<'a, 'b> {
    chosen: Vec<(&'b Judged<'a>, Vec<Step>)>,
    doubt: Option<&'static str>,
}

impl<'a, 'b> Forced<'a, 'b> {
    /// Finds the programs that the ids name.
    ///
    /// # Errors
    /// An id names no unowned program. Nothing is done then, because another id may be wrong as well.
    pub(super) fn new(classified: &'b Classified<'a>, ids: &[u32]) -> Result<Self, Ends> {
        for &id in ids {
            if !classified.unowned().any(|judged| judged.program_id.0 == id) {
                return Err(usage(format!("{}; nothing was done", why_not(classified, id))));
            }
        }
        let chosen = classified.unowned().filter(|judged| ids.contains(&judged.program_id.0));
        let chosen = chosen.map(|judged| (judged, forced(judged, classified))).collect();
        Ok(Self { chosen, doubt: doubt(classified) })
    }

    /// Tells whether a named program must stay, whatever the user says.
    pub(super) fn has_refusal(&self) -> bool {
        self.chosen.iter().any(|(_, steps)| !steps.iter().any(is_action))
    }

    /// Tells whether no step can do anything.
    pub(super) fn is_idle(&self) -> bool {
        !self.steps().any(is_action)
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.chosen.iter().flat_map(|(_, steps)| steps)
    }

    /// Returns the steps for named programs that the user did not agree to remove.
    pub(super) fn declined<'c>(
        &'c self,
        agreed: &'c [&Judged<'a>],
    ) -> impl Iterator<Item = &'c Step> {
        let is_agreed =
            |judged: &Judged<'a>| agreed.iter().any(|agreed| std::ptr::eq(*agreed, judged));
        let declined = self.chosen.iter().filter(move |(judged, _)| !is_agreed(judged));
        declined.flat_map(|(_, steps)| steps)
    }

    /// Returns the programs to remove: all named ones with `--yes`, otherwise those that the user agrees to one by one.
    pub(super) fn agreed(&self, is_yes: bool) -> io::Result<Vec<&'b Judged<'a>>> {
        let mut agreed = Vec::new();
        for (judged, steps) in &self.chosen {
            let Some(first) = steps.first().filter(|step| is_action(step)) else {
                for step in steps {
                    say(intent(step));
                }
                continue;
            };
            let doubt = self.doubt.map(|doubt| format!("; {doubt}")).unwrap_or_default();
            let reason = escape(&judged.reason);
            let about = format!("{} (unowned: {reason}{doubt})", target(first));
            if is_yes {
                say(format_args!("forced: {about}"));
                agreed.push(*judged);
                continue;
            }
            ask(format_args!("Remove {about}? [y/N] "));
            if super::is_yes()? {
                agreed.push(*judged);
            }
        }
        Ok(agreed)
    }
}

fn why_not(classified: &Classified<'_>, id: u32) -> String {
    let mut all = classified.attachments.iter().chain(&classified.programs);
    match all.find(|judged| judged.program_id.0 == id) {
        None => format!(
            "no program {id} is attached or listed here: --force takes ids that `scan` with the same options lists \
             as unowned"
        ),
        Some(judged) if judged.finding.is_leak() => {
            format!("program {id} is a leak ({}): clean removes it without --force", judged.finding)
        }
        Some(judged) => format!(
            "{} is {}, not unowned: --force takes programs that --program names and nothing says the owner of",
            escape(&judged.to_string()),
            judged.finding
        ),
    }
}

#[cfg(test)]
mod tests {
    use auditor::actions::{Action, Obstacle, Premise};
    use auditor::facts::Snapshot;
    use auditor::judge::{Finding, classify};

    use super::*;

    fn step(action: Action) -> Step {
        let (finding, premise) = (Finding::Unowned, Premise::Unowned);
        Step { finding, program: None, premise, action, remains: None }
    }

    #[test]
    fn what_nobody_agrees_to_and_what_cannot_be_done_is_told_of_just_that() {
        let active = include_str!("../../../../auditor/tests/snapshots-in/active.json");
        let snapshot: Snapshot = serde_json::from_str(active).unwrap();
        let classified = classify(&snapshot);
        let [one, other, ..] = &classified.attachments[..] else { panic!("{classified:?}") };
        let can = || {
            step(Action::Unpin {
                path: "/a".into(),
                object: auditor::facts::Object::Program(one.program_id),
            })
        };
        let cannot = || step(Action::Cannot(Obstacle::KeptOutOfSight));
        let forced = |steps: [Vec<Step>; 2]| {
            let [first, second] = steps;
            Forced { chosen: vec![(one, first), (other, second)], doubt: None }
        };
        let told = |it: &Forced<'_, '_>| (it.has_refusal(), it.is_idle());
        assert_eq!(told(&forced([vec![can()], vec![can()]])), (false, false));
        assert_eq!(told(&forced([vec![can()], vec![cannot()]])), (true, false));
        assert_eq!(told(&forced([vec![cannot()], vec![cannot()]])), (true, true));
        assert_eq!(told(&forced([vec![cannot(), can()], vec![can()]])), (false, false));
        let forced = forced([vec![can(), can()], vec![cannot()]]);
        let declined = |agreed: &[&Judged<'_>]| forced.declined(agreed).count();
        let counts = [declined(&[]), declined(&[one]), declined(&[other]), declined(&[one, other])];
        assert_eq!(counts, [3, 1, 2, 0]);
    }
}
