//! Why a command could not be run: it passes from the process that was to become the command to the gate.
//!
//! An exit status alone does not say it: a command may end with 127 by itself, as a shell does.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::close;

/// A file in memory. It is blank where the command was run, and where nothing can be told.
pub(crate) struct Slate(Option<File>);

impl Slate {
    /// A blank one, which processes inherit that are started from now on. Where none can be made, the command is run all
    /// the same.
    pub(super) fn blank() -> Self {
        let made: nix::Result<OwnedFd> = memfd_create("chadthrottle-gate", MFdFlags::empty());
        Self(made.ok().map(File::from))
    }

    /// The one that the gate has made; the command does not inherit it.
    pub(crate) fn inherited(fd: RawFd) -> Self {
        // The standard library opens it so that it goes when the command begins.
        let file = File::options().write(true).open(format!("/proc/self/fd/{fd}"));
        let _ = close(fd);
        Self(file.ok())
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Writes the reason down. Where that fails, the gate knows only how the process ended.
    pub(crate) fn write(&self, why: &str) {
        if let Some(mut file) = self.0.as_ref() {
            let _ = file.write_all(why.as_bytes());
        }
    }

    /// What is written on it.
    pub(super) fn read(self) -> Option<String> {
        let mut why = Vec::new();
        self.0?.read_to_end(&mut why).ok()?;
        (!why.is_empty()).then(|| String::from_utf8_lossy(&why).into_owned())
    }
}
