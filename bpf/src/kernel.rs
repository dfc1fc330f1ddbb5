//! The boundary: what the engine and the test harness need of the kernel, as one trait, so that a model
//! of the kernel, or a wrapper that injects faults, can take its place.

use std::os::fd::AsFd;
use std::path::Path;

use crate::adopt::{self, Adopted};
use crate::attach_type::AttachType;
use crate::cgroup::Cgroup;
use crate::clocks::{self, Shift};
use crate::error::Result;
use crate::ids::{CgroupId, LinkId, ProgramId};
use crate::lineage::{self, Lineage};
use crate::link::{Link, LinkInfo};
use crate::list::{self, AttachFlags, AttachOptions, ProgramList, Scope};
use crate::owner::Owner;
use crate::pins;
use crate::probe::{self, Support};
use crate::program::{Program, ProgramInfo};
use crate::queue::Queue;
use crate::state::{Counters, ThrottleState};
use crate::throttle::{self, Loaded, Parts};

/// What tells a program from every other one of this boot, also after its id was used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgramIdentity {
    /// Its id.
    pub id: ProgramId,
    /// Its tag.
    pub tag: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
}

/// The kernel's cgroup BPF calls. One method is one call, as far as the caller can tell; the errors are
/// the kernel's.
pub trait CgroupBpf {
    /// An open cgroup.
    type Cgroup;
    /// An open program.
    type Program;
    /// An open link; dropping the last holder of one that is not pinned detaches its program.
    type Link;
    /// A queue for the downloads of a cgroup; it goes with this process.
    type Queue;

    /// What this kernel can do. See [`probe::support`].
    fn support(&self) -> Result<Support>;
    /// `CLOCK_MONOTONIC` in nanoseconds as the packet programs read it, whatever time namespace this process is in.
    fn now_ns(&self) -> u64;
    /// See [`Owner::is_alive`].
    fn is_alive(&self, owner: &Owner) -> Result<Option<bool>>;

    /// See [`Cgroup::open`].
    fn open_cgroup(&self, path: &Path) -> Result<Self::Cgroup>;
    /// The id of an open cgroup.
    fn cgroup_id(&self, cgroup: &Self::Cgroup) -> CgroupId;
    /// See [`lineage::top`]; `None` where that cannot be seen.
    fn cgroup_top(&self, cgroup: &Self::Cgroup) -> Option<CgroupId>;

    /// See [`throttle::load`].
    fn load(&self, owner: &Owner, mark: u64, parts: Parts) -> Result<Loaded<Self::Program>>;
    /// See [`Queue::open`].
    fn queue_open(
        &self,
        programs: &Loaded<Self::Program>,
        cgroup: &Path,
        owner: &Owner,
    ) -> Result<Self::Queue>;
    /// See [`Queue::works`].
    fn queue_works(&self, queue: &Self::Queue) -> Result<bool>;
    /// See [`Queue::close`].
    fn queue_close(&self, queue: &mut Self::Queue) -> Result<()>;
    /// See [`adopt::adopt`].
    fn adopt(&self, cgroup: &Self::Cgroup, path: &Path) -> Result<Adopted>;
    /// See [`Program::open`].
    fn open_program(&self, id: ProgramId) -> Result<Self::Program>;
    /// What the kernel says of a program, with its whole name where that is known; see [`Program::open`].
    fn program_info(&self, id: ProgramId) -> Result<ProgramInfo>;
    /// The identity of an open program.
    fn identity(&self, program: &Self::Program) -> ProgramIdentity;

    /// See [`list::query`].
    fn query(
        &self,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Result<ProgramList>;
    /// See [`lineage::lineages`].
    fn lineages(&self, cgroup: &Self::Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>>;
    /// See [`list::attach_with`]; a revision is left out where the kernel has none.
    fn attach(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()>;
    /// See [`list::detach`]; a revision is left out where the kernel has none.
    fn detach(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        expected_revision: Option<u64>,
    ) -> Result<()>;

    /// See [`Link::create`].
    fn link_create(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
    ) -> Result<Self::Link>;
    /// See [`Link::open`].
    fn link_open(&self, id: LinkId) -> Result<Self::Link>;
    /// The id of an open link.
    fn link_id(&self, link: &Self::Link) -> LinkId;
    /// See [`Link::info`].
    fn link_info(&self, link: &Self::Link) -> Result<LinkInfo>;
    /// See [`Link::detach`].
    fn link_detach(&self, link: &Self::Link) -> Result<()>;
    /// See [`Link::pin`]; makes the folder (on a bpffs that is there) first.
    fn link_pin(&self, link: &Self::Link, path: &Path) -> Result<()>;
    /// See [`Link::open_pinned`].
    fn link_open_pinned(&self, path: &Path) -> Result<Self::Link>;
    /// Whether there is anything at a path below the bpffs, a folder too.
    fn pin_exists(&self, path: &Path) -> bool;
    /// See [`pins::unpin`]; removes the folder too when that was the last pin in it.
    fn unpin(&self, path: &Path) -> Result<()>;
    /// See [`pins::remove_empty_folder_of`].
    fn remove_empty_folder_of(&self, pin: &Path) -> Result<()>;

    /// See [`Program::state`].
    fn state(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>>;
    /// See [`Program::set_state`].
    fn set_state(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()>;
    /// See [`Program::counters`].
    fn counters(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>>;
}

/// The running kernel.
#[derive(Debug, Clone, Copy)]
pub struct LinuxBpf {
    support: Support,
    shift: Shift,
}

impl LinuxBpf {
    /// Asks the kernel what it can do, once.
    ///
    /// # Errors
    /// As [`probe::support`].
    pub fn new() -> Result<Self> {
        // Where it is unknown the clock is taken as it is: a limit's first burst is then too large or too small.
        let shift = Shift::of_this_process().unwrap_or_default();
        Ok(Self { support: probe::support()?, shift })
    }
}

impl CgroupBpf for LinuxBpf {
    type Cgroup = Cgroup;
    type Program = Program;
    type Link = Link;
    type Queue = Queue;

    fn support(&self) -> Result<Support> {
        Ok(self.support)
    }

    fn now_ns(&self) -> u64 {
        clocks::monotonic_ns(self.shift)
    }

    fn is_alive(&self, owner: &Owner) -> Result<Option<bool>> {
        owner.is_alive()
    }

    fn open_cgroup(&self, path: &Path) -> Result<Cgroup> {
        Cgroup::open(path)
    }

    fn cgroup_id(&self, cgroup: &Cgroup) -> CgroupId {
        cgroup.id()
    }

    fn cgroup_top(&self, cgroup: &Cgroup) -> Option<CgroupId> {
        lineage::top(cgroup).ok()
    }

    fn load(&self, owner: &Owner, mark: u64, parts: Parts) -> Result<Loaded> {
        throttle::load(owner, mark, parts)
    }

    fn queue_open(&self, programs: &Loaded, cgroup: &Path, owner: &Owner) -> Result<Queue> {
        Queue::open(programs, cgroup, owner)
    }

    fn queue_works(&self, queue: &Queue) -> Result<bool> {
        queue.works()
    }

    fn queue_close(&self, queue: &mut Queue) -> Result<()> {
        queue.close()
    }

    fn adopt(&self, cgroup: &Cgroup, path: &Path) -> Result<Adopted> {
        adopt::adopt(cgroup.id(), path)
    }

    fn open_program(&self, id: ProgramId) -> Result<Program> {
        Program::open(id)
    }

    fn program_info(&self, id: ProgramId) -> Result<ProgramInfo> {
        let program = Program::open(id)?;
        Ok(ProgramInfo { name: program.whole_name(), ..program.info().clone() })
    }

    fn identity(&self, program: &Program) -> ProgramIdentity {
        program.info().identity()
    }

    fn query(&self, cgroup: &Cgroup, attach_type: AttachType, scope: Scope) -> Result<ProgramList> {
        list::query(cgroup, attach_type, scope, self.support.program_flags)
    }

    fn lineages(&self, cgroup: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
        lineage::lineages(cgroup, attach_types)
    }

    fn attach(
        &self,
        program: &Program,
        cgroup: &Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let expected_revision = expected_revision.filter(|_| self.support.expected_revision);
        let options = AttachOptions { flags, replace: None, expected_revision };
        list::attach_with(program.as_fd(), cgroup, attach_type, &options)
    }

    fn detach(
        &self,
        program: &Program,
        cgroup: &Cgroup,
        attach_type: AttachType,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let expected_revision = expected_revision.filter(|_| self.support.expected_revision);
        list::detach(program.as_fd(), cgroup, attach_type, expected_revision)
    }

    fn link_create(
        &self,
        program: &Program,
        cgroup: &Cgroup,
        attach_type: AttachType,
    ) -> Result<Link> {
        Link::create(program.as_fd(), cgroup, attach_type)
    }

    fn link_open(&self, id: LinkId) -> Result<Link> {
        Link::open(id)
    }

    fn link_id(&self, link: &Link) -> LinkId {
        link.id()
    }

    fn link_info(&self, link: &Link) -> Result<LinkInfo> {
        link.info()
    }

    fn link_detach(&self, link: &Link) -> Result<()> {
        link.detach()
    }

    fn link_pin(&self, link: &Link, path: &Path) -> Result<()> {
        pins::make_folder_for(path)?;
        link.pin(path).inspect_err(|_| {
            // That there is no pin is what is told; its record is kept until the folder is gone.
            let _ = pins::remove_empty_folder_of(path);
        })
    }

    fn link_open_pinned(&self, path: &Path) -> Result<Link> {
        Link::open_pinned(path)
    }

    fn pin_exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn unpin(&self, path: &Path) -> Result<()> {
        pins::unpin(path)?;
        pins::remove_empty_folder_of(path)
    }

    fn remove_empty_folder_of(&self, pin: &Path) -> Result<()> {
        pins::remove_empty_folder_of(pin)
    }

    fn state(
        &self,
        program: &Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        program.state(cgroup, attach_type)
    }

    fn set_state(
        &self,
        program: &Program,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        program.set_state(cgroup, attach_type, state)
    }

    fn counters(
        &self,
        program: &Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>> {
        program.counters(cgroup, attach_type)
    }
}
