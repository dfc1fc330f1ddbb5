//! Decides in which order to take steps, and which ones to skip.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Done, Outcome};
use crate::actions::{Action, Step};

/// Takes the steps against several things and reports each result. After an outcome that `is_over`, this skips the
/// thing's later steps, because they need it. Removing the pin would hide the link. A pin that several things share is
/// tried once, or not at all if the first thing fails earlier.
pub(super) fn take_each(
    things: impl Iterator<Item = (String, Vec<Step>)>,
    is_over: impl Fn(&Outcome) -> bool,
    take: impl Fn(&Step) -> Outcome,
    tell: &mut impl FnMut(Done),
) {
    let mut pins: BTreeSet<PathBuf> = BTreeSet::new();
    for (leak, mut steps) in things {
        steps.retain(|step| pin(step).is_none_or(|pin| !pins.contains(pin)));
        pins.extend(steps.iter().filter_map(pin).map(Path::to_owned));
        for step in steps {
            let outcome = take(&step);
            let is_over = is_over(&outcome);
            tell(Done { leak: leak.clone(), step: Some(step), outcome });
            if is_over {
                break;
            }
        }
    }
}

/// Returns the pin that a step removes.
fn pin(step: &Step) -> Option<&Path> {
    match &step.action {
        Action::Unpin { path, .. } => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kernel::{AttachType, CgroupId, LinkId, ProgramId, ProgramIdentity};

    use super::*;
    use crate::actions::{Obstacle, Premise, Target};
    use crate::clean::Failure;
    use crate::facts::Object;
    use crate::judge::Finding;

    fn step(action: Action) -> Step {
        let id = ProgramId(41);
        let identity = ProgramIdentity { id, tag: String::new(), loaded_at_ns: 0 };
        let target = Target { identity, name: "x".to_owned() };
        let (finding, premise) = (Finding::OrphanedAttachment, Premise::OwnerGone);
        Step { finding, program: Some(target), premise, action, remains: None }
    }

    /// Makes a step from a word: `link`, `pin` or `cannot`.
    fn of(word: &str) -> Step {
        match word {
            "link" => step(Action::DetachLink {
                link: LinkId(7),
                cgroup_id: CgroupId(1),
                attach_type: AttachType::INET_EGRESS,
            }),
            "cannot" => step(Action::Cannot(Obstacle::KeptOutOfSight)),
            pin => step(Action::Unpin { path: pin.into(), object: Object::Program(ProgramId(41)) }),
        }
    }

    fn is_over(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Failed(_))
    }

    /// Returns the report for steps with these outcomes: each leak, its step and the outcome. A letter stands for each
    /// outcome.
    fn told(leaks: &[&[&str]], outcomes: &str) -> String {
        let outcomes = std::cell::RefCell::new(outcomes.chars());
        let take = |_: &Step| match outcomes.borrow_mut().next() {
            Some('r') => Outcome::Removed,
            Some('g') => Outcome::Gone("gone".to_owned()),
            Some('l') => Outcome::Left(Obstacle::KeptOutOfSight),
            Some('f') => Outcome::Failed(Failure::StillThere),
            more => panic!("a step more than expected: {more:?}"),
        };
        let mut told = Vec::new();
        let things = leaks
            .iter()
            .enumerate()
            .map(|(nth, words)| (nth.to_string(), words.iter().map(|word| of(word)).collect()));
        take_each(things, is_over, take, &mut |done| {
            let step = match done.step.unwrap().action {
                Action::DetachLink { .. } => "link".to_owned(),
                Action::Unpin { path, .. } => path.display().to_string(),
                _ => "cannot".to_owned(),
            };
            let outcome = match done.outcome {
                Outcome::Removed => "removed",
                Outcome::Gone(_) => "gone",
                Outcome::Left(_) => "left",
                Outcome::Failed(_) => "FAILED",
            };
            told.push(format!("{}: {step} {outcome};", done.leak));
        });
        assert_eq!(outcomes.into_inner().next(), None, "a step less than expected: {told:?}");
        told.join(" ")
    }

    #[test]
    fn after_a_step_that_failed_the_later_ones_of_the_same_thing_are_not_taken() {
        let one: &[&str] = &["link", "/x"];
        let cases: [(&[&[&str]], &str, &str); 8] = [
            (&[], "", ""),
            (&[one], "rr", "0: link removed; 0: /x removed;"),
            (&[one], "gr", "0: link gone; 0: /x removed;"),
            (&[one], "f", "0: link FAILED;"),
            (&[one], "rf", "0: link removed; 0: /x FAILED;"),
            // A step that is refused does not prevent the others.
            (&[&["cannot", "/x"]], "lr", "0: cannot left; 0: /x removed;"),
            (&[one, &["link", "/y"]], "frr", "0: link FAILED; 1: link removed; 1: /y removed;"),
            (&[one, &["link", "/y"]], "rrf", "0: link removed; 0: /x removed; 1: link FAILED;"),
        ];
        for (leaks, outcomes, expected) in cases {
            assert_eq!(told(leaks, outcomes), expected, "{outcomes}");
        }
    }

    #[test]
    fn a_pin_that_several_share_is_tried_once_and_never_when_a_detach_before_it_has_failed() {
        let both: &[&[&str]] = &[&["link", "/x"], &["link", "/x"]];
        let once = "0: link removed; 0: /x removed; 1: link removed;";
        assert_eq!(told(both, "rrr"), once);
        assert_eq!(told(both, "fr"), "0: link FAILED; 1: link removed;");
        assert_eq!(told(both, "rfr"), "0: link removed; 0: /x FAILED; 1: link removed;");
    }
}
