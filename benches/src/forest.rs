//! Many cgroups.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use bpf::AttachType;
use bpf::cgroup::Cgroup;
use bpf::list::{AttachFlags, attach};
use bpf::program::Program;
use vmtests::cgroup::ScratchCgroup;

/// Cgroups have this many children, or none.
const CHILDREN: usize = 99;

/// A scratch cgroup with a tree below it, two levels deep, on which programs of nobody are attached.
/// Dropping it removes all.
pub struct Forest {
    scratch: ScratchCgroup,
    /// How many cgroups there are, the scratch cgroup not counted.
    pub cgroups: usize,
}

impl Forest {
    /// Plants `cgroups`, rounded down to hundreds, with `attachments` on them, spread evenly. Needs root.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plant(cgroups: usize, attachments: usize) -> anyhow::Result<Self> {
        let scratch = ScratchCgroup::new("forest");
        let forest = Self { cgroups: cgroups / (CHILDREN + 1) * (CHILDREN + 1), scratch };
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
                let program = Program::load_pass("chadtest_forest", attach_type)?;
                let cgroup = Cgroup::open(&path)?;
                attach(program.as_fd(), &cgroup, attach_type, AttachFlags::MULTI, None)?;
            }
        }
        Ok(forest)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        self.scratch.path()
    }
}
