//! Records the mount that a limit's path leads through. Below another mount, the same path is another cgroup.

use kernel::CgroupId;
use kernel::cgroup::Cgroup;
use kernel::lineage::top;

use crate::words::shown;

/// The mount that a path led through when its limit was armed. The cgroup at the top of the mount identifies it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mount {
    pub(crate) top: Option<CgroupId>,
}

impl Mount {
    /// Checks that a cgroup was opened through the same mount. The cgroup has the path now, or is above it.
    ///
    /// # Errors
    /// Returns why it may be another cgroup, and what to do.
    pub(crate) fn check(self, cgroup: &Cgroup) -> Result<(), String> {
        let found = top(cgroup).ok();
        if found.is_some() && found == self.top {
            return Ok(());
        }
        let named = |top: Option<CgroupId>| {
            top.map_or_else(|| "out of sight".to_owned(), |id| format!("cgroup {id}"))
        };
        Err(format!(
            "{} may be another cgroup now, because the top of its mount was {} and is {}: mount cgroup2 as it was, or \
             end this limit and start another one",
            shown(cgroup.path()),
            named(self.top),
            named(found)
        ))
    }
}
