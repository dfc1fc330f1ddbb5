//! Many cgroups.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, attach};
use kernel::{AttachType, Program};
use testkit::cgroup::ScratchCgroup;

/// The name of the programs that the auditor is told are ours, as the kernel keeps it.
pub const OURS: &str = "chadthrottle_bl";

/// What is attached to the cgroups of a forest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Programs that are none of ours.
    Foreign,
    /// Leaks: programs of ours that nobody holds.
    Leaks,
}

impl Attached {
    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Leaks => "leaked",
        }
    }
}

/// Cgroups have this many children, or none.
const CHILDREN: usize = 99;

/// A scratch cgroup with a tree below it, two levels deep, on which programs are attached the legacy way,
/// one on a cgroup.
/// Dropping it removes all.
pub struct Forest {
    scratch: ScratchCgroup,
    /// How many cgroups there are, the scratch cgroup not counted.
    pub cgroups: usize,
    /// How many attachments there are.
    pub attachments: usize,
    /// What they are.
    pub attached: Attached,
}

impl Forest {
    /// Plants `cgroups`, rounded down to hundreds, with `attachments` on them, spread evenly. Needs root.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// Its directory.
    pub fn root(&self) -> &Path {
        self.scratch.path()
    }
}
