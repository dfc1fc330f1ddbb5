//! Somebody else's program on a cgroup.

use std::fmt;
use std::path::PathBuf;

use kernel::{AttachType, ProgramId};

/// Somebody else's program, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The program's id.
    pub id: ProgramId,
    /// The program's name in the kernel; `None` if it cannot be read.
    pub name: Option<String>,
    /// The program's tag.
    pub tag: Option<String>,
    /// The program's attach type.
    pub attach_type: AttachType,
    /// The cgroup that the program is attached to; `None` if it is out of sight.
    pub cgroup: Option<PathBuf>,
}

/// Prints `program 12 'firewall' (tag 0123456789abcdef), attached to /sys/fs/cgroup/a (cgroup_inet_egress)`.
impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " '{}'", name.escape_debug())?;
        }
        if let Some(tag) = &self.tag {
            write!(f, " (tag {tag})")?;
        }
        match &self.cgroup {
            Some(path) => write!(f, ", attached to {} ({})", path.display(), self.attach_type),
            None => write!(f, ", attached above what this mount shows ({})", self.attach_type),
        }
    }
}
