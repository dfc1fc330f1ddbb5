//! Defines the exit statuses of the auditor's commands.

use auditor::collect;
use auditor::compare::Incomparable;
use auditor::judge::Verdict;
use terminal::exit::{self, DONE, INCOMPLETE, NOT_DONE, USAGE};

use crate::cli;

/// Returns the exit status for an error.
pub fn status_of(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_misuse) {
        return USAGE;
    }
    exit::status_of(error)
}

fn is_misuse(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<cli::Unusable>() || error.is::<collect::Unusable>() || error.is::<Incomparable>()
}

/// Returns a verdict's exit status: 0 clean, 1 leaks, 2 incomplete.
pub(crate) fn of_verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Clean => DONE,
        Verdict::Leaks => NOT_DONE,
        Verdict::Incomplete => INCOMPLETE,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn exit_statuses_are_those_of_the_documentation() {
        let statuses = [Verdict::Clean, Verdict::Leaks, Verdict::Incomplete].map(of_verdict);
        assert_eq!(statuses, [0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_compared_or_is_not_there_is_bad_usage() {
        assert_eq!(status_of(&Incomparable::Scopes.into()), USAGE);
        let wrapped = Err::<(), _>(Incomparable::Scopes).context("cannot compare").unwrap_err();
        assert_eq!(status_of(&wrapped), USAGE);
        assert_eq!(status_of(&collect::Unusable::UnknownTypes("x".to_owned()).into()), USAGE);
        assert_eq!(status_of(&exit::incomplete("x").into()), INCOMPLETE);
    }
}
