//! Whether a cgroup has processes.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::cgroup::{Cgroup, ROOT_CGROUP_ID};
use crate::error::{Call, Error, Result};

impl Cgroup {
    /// Tells whether a cgroup or a descendant has processes, from its `cgroup.events`. The kernel counts the threads of
    /// threaded cgroups too.
    ///
    /// The hierarchy's root has no such file, and is never empty.
    ///
    /// # Errors
    /// `Vanished` when the cgroup was removed.
    pub fn is_populated(&self) -> Result<bool> {
        let path = self.path().join("cgroup.events");
        let fail = |errno| Error::new(Call::ReadProc, path.display().to_string(), errno);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = match openat(self, "cgroup.events", flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) if self.id() == ROOT_CGROUP_ID => return Ok(true),
            Err(errno) => return Err(fail(errno)),
        };
        let mut text = String::new();
        File::from(fd)
            .read_to_string(&mut text)
            .map_err(|error| Error::from_io(Call::ReadProc, path.display().to_string(), &error))?;
        parse(&text)
            .ok_or_else(|| Error::found(Call::ReadProc, path.display().to_string(), Errno::ENODATA))
    }
}

fn parse(events: &str) -> Option<bool> {
    let value = events.lines().find_map(|line| line.strip_prefix("populated "))?;
    Some(value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_whatever_stands_beside_it() {
        assert_eq!(parse("populated 1\nfrozen 0\n"), Some(true));
        assert_eq!(parse("frozen 1\npopulated 0\n"), Some(false));
        assert_eq!(parse("frozen 0\n"), None);
        assert_eq!(parse(""), None);
    }
}
