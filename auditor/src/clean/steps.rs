//! In which order steps are taken, and which are not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Done, Outcome};
use crate::plan::{Action, Step};

/// Takes the steps against several things, and tells of each. After one that `is_over` the thing's later steps are not
/// taken, because they presume it: without its pin a link is gone from sight. A pin that several share is tried once,
/// and not at all after a failure of the first.
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

/// The pin that a step removes.
fn pin(step: &Step) -> Option<&Path> {
    match &step.action {
        Action::Unpin { path, .. } => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bpf::{AttachType, CgroupId, LinkId, ProgramId};

    use super::super::report::tests::{cannot, step};
    use super::*;
    use crate::clean::Failure;
    use crate::snapshot::Object;

    /// A step of a word: `link`, `pin` or `cannot`.
    fn of(word: &str) -> Step {
        match word {
            "link" => step(Action::DetachLink {
                link: LinkId(7),
                cgroup_id: CgroupId(1),
                attach_type: AttachType::INET_EGRESS,
            }),
            "cannot" => cannot(),
            pin => step(Action::Unpin { path: pin.into(), object: Object::Program(ProgramId(41)) }),
        }
    }

    fn is_over(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Failed(_))
    }

    /// What is told when the outcomes of all steps are these: the leak, the step and its outcome, each by a letter.
    fn told(leaks: &[&[&str]], outcomes: &str) -> String {
        let outcomes = std::cell::RefCell::new(outcomes.chars());
        let take = |_: &Step| match outcomes.borrow_mut().next() {
            Some('r') => Outcome::Removed,
            Some('g') => Outcome::Gone("gone".to_owned()),
            Some('l') => Outcome::Left("left".to_owned()),
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
            // What cannot be done keeps nothing from being done that can.
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
