//! Computes the exit status of `clean`.

use auditor::clean::{Done, Outcome};
use auditor::judge::Verdict;
use terminal::exit::{DONE, NOT_DONE};

use crate::exit;

/// The results of all steps.
pub(super) struct Tally {
    /// Whether a step failed.
    is_failed: bool,
    /// Whether an unowned program stays although the user wanted to remove it.
    is_undone: bool,
}

impl Tally {
    /// Starts a tally. `is_refused` says that a program named with `--force` must stay, whatever the user says.
    pub(super) fn new(is_refused: bool) -> Self {
        Self { is_failed: false, is_undone: is_refused }
    }

    pub(super) fn count(&mut self, done: &Done, is_forced: bool) {
        self.is_failed |= matches!(done.outcome, Outcome::Failed(_));
        self.is_undone |= is_forced && matches!(done.outcome, Outcome::Left(_));
    }

    /// Returns the exit status for the verdict after all steps. Returns 1 if a step failed. Also returns 1 instead of 0
    /// if a program named with `--force` stays.
    pub(super) fn status(&self, verdict: Verdict) -> u8 {
        match exit::of_verdict(verdict) {
            _ if self.is_failed => NOT_DONE,
            DONE if self.is_undone => NOT_DONE,
            status => status,
        }
    }
}

#[cfg(test)]
mod tests {
    use auditor::actions::Obstacle;
    use auditor::clean::Failure;

    use super::*;

    /// Returns the status after these outcomes: lower case for leaks, upper case for forced removals.
    fn status(is_refused: bool, outcomes: &str, verdict: Verdict) -> u8 {
        let mut tally = Tally::new(is_refused);
        for letter in outcomes.chars() {
            let outcome = match letter.to_ascii_lowercase() {
                'r' => Outcome::Removed,
                'g' => Outcome::Gone("gone".to_owned()),
                'l' => Outcome::Left(Obstacle::KeptOutOfSight),
                'f' => Outcome::Failed(Failure::StillThere),
                other => unreachable!("{other}"),
            };
            let done = Done { leak: "program 41".to_owned(), step: None, outcome };
            tally.count(&done, letter.is_ascii_uppercase());
        }
        tally.status(verdict)
    }

    #[test]
    fn any_step_that_failed_makes_the_status_whatever_came_after_it_and_else_the_verdict_does() {
        use Verdict::{Clean, Incomplete, Leaks};
        let cases = [
            // Nothing to do, everything done, some or all of it failed.
            (false, "", [0, 1, 2]),
            (false, "rr", [0, 1, 2]),
            (false, "rg", [0, 1, 2]),
            (false, "fr", [1, 1, 1]),
            (false, "rf", [1, 1, 1]),
            (false, "rfg", [1, 1, 1]),
            (false, "ff", [1, 1, 1]),
            // The verdict covers a leak that cannot be removed, but not a forced removal.
            (false, "lr", [0, 1, 2]),
            (false, "Rr", [0, 1, 2]),
            (false, "L", [1, 1, 2]),
            (false, "LR", [1, 1, 2]),
            (false, "RL", [1, 1, 2]),
            (false, "FR", [1, 1, 1]),
            (false, "LF", [1, 1, 1]),
            (true, "", [1, 1, 2]),
            (true, "R", [1, 1, 2]),
            (true, "Rf", [1, 1, 1]),
        ];
        for (is_refused, outcomes, expected) in cases {
            let statuses = [Clean, Leaks, Incomplete].map(|it| status(is_refused, outcomes, it));
            assert_eq!(statuses, expected, "{outcomes:?}, refused: {is_refused}");
        }
    }
}
