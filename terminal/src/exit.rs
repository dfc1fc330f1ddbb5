//! Defines the exit statuses, which are the same in both programs.

use kernel::error::Kind;

use crate::file::Unwritable;
use crate::talk::told;

/// The program did its work, and nothing is leaked.
pub const DONE: u8 = 0;
/// Something is leaked, or the program did only a part of its work.
pub const NOT_DONE: u8 = 1;
/// Not everything could be seen.
pub const INCOMPLETE: u8 = 2;
/// The command line is wrong or names something that does not exist (`EX_USAGE` of `sysexits.h`).
pub const USAGE: u8 = 64;
/// The program itself failed, or can see nothing at all where it runs (`EX_SOFTWARE` of `sysexits.h`).
pub const FAILED: u8 = 70;

/// An error that ends a program with another status than [`FAILED`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Ends {
    status: u8,
    message: String,
}

/// Ends the program with [`USAGE`].
pub fn usage(message: impl Into<String>) -> Ends {
    Ends { status: USAGE, message: message.into() }
}

/// Ends the program with [`NOT_DONE`].
pub fn not_done(message: impl Into<String>) -> Ends {
    Ends { status: NOT_DONE, message: message.into() }
}

/// Ends the program with [`INCOMPLETE`].
pub fn incomplete(message: impl Into<String>) -> Ends {
    Ends { status: INCOMPLETE, message: message.into() }
}

/// Ends the program with [`FAILED`].
pub fn failed(message: impl Into<String>) -> Ends {
    Ends { status: FAILED, message: message.into() }
}

/// Ends the program with the exit status that an audit has for this error.
pub fn as_an_audit(error: &anyhow::Error) -> Ends {
    Ends { status: status_of(error), message: told(error) }
}

/// Returns the exit status for an error. A program without the right to look has seen too little: [`INCOMPLETE`].
pub fn status_of(error: &anyhow::Error) -> u8 {
    error.chain().find_map(known).unwrap_or(FAILED)
}

fn known(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(ends) = error.downcast_ref::<Ends>() {
        return Some(ends.status);
    }
    if error.is::<Unwritable>() {
        return Some(USAGE);
    }
    match error.downcast_ref::<kernel::Error>() {
        Some(error) if error.kind() == Kind::Denied => Some(INCOMPLETE),
        Some(error) if error.is_no_cgroup() => Some(USAGE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use kernel::error::Call;
    use nix::errno::Errno;

    use super::*;

    fn of(error: impl Into<anyhow::Error>) -> u8 {
        status_of(&error.into())
    }

    #[test]
    fn the_statuses_are_those_of_the_documentation() {
        assert_eq!([DONE, NOT_DONE, INCOMPLETE, USAGE, FAILED], [0, 1, 2, 64, 70]);
    }

    #[test]
    fn an_error_ends_with_the_status_of_its_cause() {
        assert_eq!(of(usage("x")), USAGE);
        assert_eq!(of(not_done("x")), NOT_DONE);
        assert_eq!(of(incomplete("x")), INCOMPLETE);
        assert_eq!(of(failed("x")), FAILED);
        assert_eq!(of(as_an_audit(&usage("x").into())), USAGE);
        let errno = Errno::EROFS;
        assert_eq!(of(Unwritable { file: "/a".into(), place: "/".into(), errno }), USAGE);
        let wrapped = Err::<(), _>(usage("x")).context("cannot compare").unwrap_err();
        assert_eq!(of(wrapped), USAGE);
        assert_eq!(of(anyhow!("anything else")), FAILED);
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_bad_usage_and_one_that_may_not_be_seen_is_not() {
        let error = |call, errno| kernel::Error::new(call, "/x", errno);
        assert_eq!(of(error(Call::OpenCgroup, Errno::ENOENT)), USAGE);
        assert_eq!(of(error(Call::OpenCgroup, Errno::EACCES)), INCOMPLETE);
        assert_eq!(of(error(Call::Query, Errno::EPERM)), INCOMPLETE);
        assert_eq!(of(error(Call::FindCgroup2, Errno::ENOENT)), FAILED);
        assert_eq!(of(error(Call::Load, Errno::ENOMEM)), FAILED);
    }
}
