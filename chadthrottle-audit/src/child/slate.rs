//! Carries the reason why a command could not be run from the child process to the gate.
//!
//! An exit status alone does not tell, because a command may itself end with 127, as a shell does.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::close;

/// A file in memory. It is blank if the command was run, or if the reason is unknown.
pub(crate) struct Slate(Option<File>);

impl Slate {
    /// Makes a blank slate, which later child processes inherit. If that fails, the command still runs.
    pub(super) fn blank() -> Self {
        let made: nix::Result<OwnedFd> = memfd_create("chadthrottle-gate", MFdFlags::empty());
        Self(made.ok().map(File::from))
    }

    /// Opens the slate that the gate has made. The command does not inherit it.
    pub(crate) fn inherited(fd: RawFd) -> Self {
        // The standard library opens files with `O_CLOEXEC`, so the slate closes when the command begins.
        let file = File::options().write(true).open(format!("/proc/self/fd/{fd}"));
        let _ = close(fd);
        Self(file.ok())
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Writes down the reason. If that fails, the gate knows only how the process ended.
    pub(crate) fn write(&self, why: &str) {
        if let Some(mut file) = self.0.as_ref() {
            let _ = file.write_all(why.as_bytes());
        }
    }

    /// Returns what is written on the slate.
    pub(super) fn read(self) -> Option<String> {
        let mut why = Vec::new();
        self.0?.read_to_end(&mut why).ok()?;
        (!why.is_empty()).then(|| String::from_utf8_lossy(&why).into_owned())
    }
}
