//! The errors of the ledger's and the mark's files.

use std::io;

use nix::errno::Errno;

/// An action on the files of the ledger or of the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Creating the ledger's folder.
    MakeLedger,
    /// Creating the mark's folder.
    MakeFolder,
    /// Locking the ledger.
    Lock,
    /// Listing a folder.
    List,
    /// Reading a file.
    Read,
    /// Writing a file.
    Write,
    /// Removing a file.
    Remove,
}

impl Action {
    /// Returns the action in words, to go before the path.
    pub fn words(self) -> &'static str {
        match self {
            Self::MakeLedger | Self::MakeFolder => "make the folder",
            Self::Lock => "lock",
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
        }
    }

    fn call(self) -> &'static str {
        match self {
            Self::MakeLedger | Self::MakeFolder => "mkdir",
            Self::Lock => "open, flock",
            Self::List => "open, getdents",
            Self::Read => "open, read",
            Self::Write => "open, write",
            Self::Remove => "unlink",
        }
    }
}

/// Says why the action failed, what to do about it, and then the call with its errno.
pub(super) fn why_not(action: Action, error: &io::Error) -> String {
    why_not_to(nix::unistd::geteuid().is_root(), action, error)
}

fn why_not_to(is_root: bool, action: Action, error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else { return error.to_string() };
    let why = match errno {
        Errno::EPERM | Errno::EACCES if is_root => {
            "root may not: a capability (CAP_DAC_OVERRIDE), a security policy or a mark on the file (chattr +i) forbids it"
        }
        Errno::EPERM | Errno::EACCES => "must run as root",
        Errno::EROFS if action == Action::MakeLedger => {
            "the file system is read-only: make it writable, or limit with '--attach link', which needs no record"
        }
        Errno::EROFS => "the file system is read-only: make it writable",
        Errno::ENOSPC | Errno::EDQUOT => "the file system is full: make room there",
        Errno::ENOTDIR if action != Action::List => "its folder is a file: remove that",
        Errno::EEXIST | Errno::ENOTDIR => "it is in the way and no folder: remove it",
        other => other.desc(),
    };
    format!("{why} ({}: {errno:?})", action.call())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn ledger(action: Action, errno: Errno) -> String {
        Error::Ledger { action, path: "/run/x".into(), error: errno.into() }.to_string()
    }

    #[test]
    fn who_cannot_write_the_ledger_is_told_what_to_do_and_the_errno_once() {
        let said = |is_root| why_not_to(is_root, Action::Write, &Errno::EACCES.into());
        assert_eq!(said(false), "must run as root (open, write: EACCES)");
        assert!(said(true).starts_with("root may not: "), "{}", said(true));
        for (action, errno, what, call) in [
            (Action::MakeLedger, Errno::EROFS, "'--attach link'", "(mkdir: EROFS)"),
            (Action::MakeFolder, Errno::EROFS, "make it writable (", "(mkdir: EROFS)"),
            (Action::Write, Errno::ENOSPC, "make room there", "(open, write: ENOSPC)"),
            (Action::MakeLedger, Errno::EEXIST, "no folder: remove it", "(mkdir: EEXIST)"),
            (Action::Lock, Errno::EIO, "/run/x: I/O error", "(open, flock: EIO)"),
        ] {
            let said = ledger(action, errno);
            assert!(said.contains(what) && said.ends_with(call), "{said}");
            assert!(!said.contains("os error") && !said.contains("root"), "{said}");
        }
        let junk = Error::Ledger {
            action: Action::Read,
            path: "/run/x".into(),
            error: io::Error::new(io::ErrorKind::InvalidData, "no mark"),
        };
        assert_eq!(junk.to_string(), "cannot read /run/x: no mark");
        // Otherwise the text would appear twice where causes are shown too.
        assert!(std::error::Error::source(&junk).is_none());
    }
}
