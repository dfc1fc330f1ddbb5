//! Creates many cgroups to scan.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, attach};
use kernel::{AttachType, Program};
use testkit::cgroup::ScratchCgroup;

/// The name of the programs that the auditor treats as ours, truncated as in the kernel.
pub const OURS: &str = "chadthrottle_bl";

/// The kind of programs attached to the cgroups of a forest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Other people's programs.
    Foreign,
    /// Leaks, which are programs of ours without a holder.
    Leaks,
}

impl Attached {
    /// Returns the word for the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Leaks => "leaked",
        }
    }
}

/// The number of children of a cgroup that has any.
const CHILDREN: usize = 99;

/// A scratch cgroup with a tree of two levels below it. Legacy attachments are spread over the tree, one per cgroup.
/// Dropping it removes everything.
pub struct Forest {
    scratch: ScratchCgroup,
    /// The number of cgroups, without the scratch cgroup.
    pub cgroups: usize,
    /// The number of attachments.
    pub attachments: usize,
    /// The kind of attachments.
    pub attached: Attached,
}

impl Forest {
    /// Creates `cgroups` cgroups, rounded down to hundreds, and spreads `attachments` evenly over them. Needs root.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn plant(cgroups: usize, attachments: usize, attached: Attached) -> anyhow::Result<Self> {
        let scratch = ScratchCgroup::new("forest");
        let cgroups = cgroups / (CHILDREN + 1) * (CHILDREN + 1);
        let mut forest = Self { scratch, cgroups, attachments: 0, attached };
        let name = match attached {
            Attached::Foreign => "chadtest_forest",
            Attached::Leaks => OURS,
        };
        let every = (cgroups / attachments.max(1)).max(1);
        for number in 0..forest.cgroups {
            let (parent, child) = (number / (CHILDREN + 1), number % (CHILDREN + 1));
            let mut path = forest.root().join(format!("parent-{parent}.slice"));
            if child > 0 {
                path.push(format!("child-{child}.scope"));
            }
            std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
            if number % every == 0 {
                let attach_type = if parent % 2 == 0 {
                    AttachType::INET_INGRESS
                } else {
                    AttachType::INET_EGRESS
                };
                let program = Program::load_pass(name, attach_type)?;
                let cgroup = Cgroup::open(&path)?;
                attach(program.as_fd(), &cgroup, attach_type, AttachFlags::MULTI, None)?;
                forest.attachments += 1;
            }
        }
        Ok(forest)
    }

    /// Returns the directory of the scratch cgroup.
    pub fn root(&self) -> &Path {
        self.scratch.path()
    }
}
