//! Somebody else's program on a cgroup.

use std::fmt;
use std::path::PathBuf;

use kernel::{AttachType, ProgramId};

/// A program of somebody else's, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its id.
    pub id: ProgramId,
    /// Its name, as the kernel has it; `None` where that cannot be read.
    pub name: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Where on a cgroup.
    pub attach_type: AttachType,
    /// The cgroup that it is attached to; `None` where that is out of sight.
    pub cgroup: Option<PathBuf>,
}

/// `program 12 'firewall' (tag 0123456789abcdef), attached to /sys/fs/cgroup/a (cgroup_inet_egress)`.
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
