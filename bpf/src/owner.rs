//! The owner of a throttle: the process that loaded its programs, and whether it is running.

use kernel::{ProcessIdentity, Result};
use serde::{Deserialize, Serialize};

/// The process that loaded a program. The identity differs from that of later processes with the same pid.
///
/// The program's `bpf_metadata_*` variables name the owner, so an auditor can learn it from the kernel alone. The
/// ledger names it too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The pid, in the pid namespace `pid_namespace`.
    pub pid: u32,
    /// The start time in clock ticks since boot; see [`ProcessIdentity::start_time`]. 0 when the process could not read
    /// it.
    pub start_time: u64,
    /// The inode number of the pid namespace of `pid`.
    pub pid_namespace: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The version of chadthrottle.
    pub version: String,
}

impl Owner {
    /// Returns this process as the owner of programs that it loads.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn this_process(version: &str) -> Result<Self> {
        let ProcessIdentity { pid, start_time, pid_namespace, boot_id } =
            ProcessIdentity::this_process()?;
        Ok(Self { pid, start_time, pid_namespace, boot_id, version: version.to_owned() })
    }

    /// Returns the process, without the version of chadthrottle.
    pub fn process(&self) -> ProcessIdentity {
        ProcessIdentity {
            pid: self.pid,
            start_time: self.start_time,
            pid_namespace: self.pid_namespace,
            boot_id: self.boot_id.clone(),
        }
    }

    /// Tells whether the process is running; see [`ProcessIdentity::is_alive`].
    ///
    /// # Errors
    /// When `/proc` cannot be read, or hides the process.
    pub fn is_alive(&self) -> Result<Option<bool>> {
        self.process().is_alive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_the_process_that_it_names() {
        let owner = Owner::this_process("1").unwrap();
        assert_eq!(owner.process(), ProcessIdentity::this_process().unwrap());
        assert_eq!(owner.is_alive(), Ok(Some(true)));
        let later = Owner { start_time: owner.start_time + 1, ..owner };
        assert_eq!(later.is_alive(), Ok(Some(false)));
    }
}
