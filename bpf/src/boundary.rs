//! The kernel calls of the engine as traits. A simulated kernel, or a wrapper that injects faults, can implement them.
//!
//! [`kernel::boundary`] has the traits that do not concern throttles.

use std::os::fd::AsFd;
use std::path::Path;

use kernel::boundary::{Cgroups, Host, Links, Pins, Programs};
use kernel::clocks::{self, Shift};
use kernel::lineage::{self, Lineage};
use kernel::list::{self, AttachFlags, AttachOptions, ProgramList, Scope};
use kernel::probe::{self, Support};
use kernel::{
    AttachType, Cgroup, CgroupId, Link, LinkId, LinkInfo, ProcessIdentity, Program, ProgramId,
    ProgramIdentity, ProgramInfo, Result, pins,
};

use crate::adopt::{self, Adopted};
use crate::owner::Owner;
use crate::program::ThrottleProgram;
use crate::queue::{self, Queue, Swept};
use crate::state::{Counters, ThrottleState};
use crate::throttle::{self, Loaded, Parts};

/// A throttle's programs, its state in the kernel, and its queue.
pub trait Throttles: Programs {
    /// A queue for a cgroup's downloads, which ends with this process.
    type Queue;

    /// Loads the packet programs; see [`throttle::load`].
    fn load(&self, owner: &Owner, mark: u64, parts: Parts) -> Result<Loaded<Self::Program>>;
    /// Reads the state at one cgroup and attach type; see [`ThrottleProgram::state`].
    fn state(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>>;
    /// Writes the state at one cgroup and attach type; see [`ThrottleProgram::set_state`].
    fn set_state(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()>;
    /// Reads the counters at one cgroup and attach type; see [`ThrottleProgram::counters`].
    fn counters(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>>;
    /// Makes the kernel call the program for TCP for sockets that are already open; see [`adopt::adopt`].
    fn adopt(&self, cgroup: &Self::Cgroup, path: &Path) -> Result<Adopted>;
    /// Opens a queue; see [`Queue::open`].
    fn queue_open(
        &self,
        programs: &Loaded<Self::Program>,
        cgroup: &Path,
        owner: &Owner,
    ) -> Result<Self::Queue>;
    /// Tells whether a queue's device exists and is up; see [`Queue::works`].
    fn queue_works(&self, queue: &Self::Queue) -> Result<bool>;
    /// Closes a queue; see [`Queue::close`].
    fn queue_close(&self, queue: &mut Self::Queue) -> Result<()>;
    /// Removes the queues of dead owners from this network namespace; see [`queue::sweep`].
    fn sweep_queues(&self) -> Result<Swept>;
}

/// Every kernel call that the engine needs.
pub trait CgroupBpf: Host + Pins + Throttles {}

impl<T: Host + Pins + Throttles> CgroupBpf for T {}

/// The running kernel.
#[derive(Debug, Clone, Copy)]
pub struct LinuxBpf {
    support: Support,
    shift: Shift,
}

impl LinuxBpf {
    /// Creates the value, and probes the kernel once.
    ///
    /// # Errors
    /// Those of [`probe::support`].
    pub fn new() -> Result<Self> {
        // If the clock's offset is unknown, the first burst of a limit is too large or too small.
        let shift = Shift::of_this_process().unwrap_or_default();
        Ok(Self { support: probe::support()?, shift })
    }
}

impl Host for LinuxBpf {
    fn support(&self) -> Result<Support> {
        Ok(self.support)
    }

    fn now_ns(&self) -> u64 {
        clocks::monotonic_ns(self.shift)
    }

    fn is_alive(&self, process: &ProcessIdentity) -> Result<Option<bool>> {
        process.is_alive()
    }
}

impl Cgroups for LinuxBpf {
    type Cgroup = Cgroup;

    fn open_cgroup(&self, path: &Path) -> Result<Cgroup> {
        Cgroup::open(path)
    }

    fn cgroup_id(&self, cgroup: &Cgroup) -> CgroupId {
        cgroup.id()
    }

    fn cgroup_top(&self, cgroup: &Cgroup) -> Option<CgroupId> {
        lineage::top(cgroup).ok()
    }

    fn query(&self, cgroup: &Cgroup, attach_type: AttachType, scope: Scope) -> Result<ProgramList> {
        list::query(cgroup, attach_type, scope, self.support.program_flags)
    }

    fn lineages(&self, cgroup: &Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
        lineage::lineages(cgroup, attach_types)
    }
}

impl Programs for LinuxBpf {
    type Program = ThrottleProgram;

    fn open_program(&self, id: ProgramId) -> Result<ThrottleProgram> {
        ThrottleProgram::open(id)
    }

    fn program_info(&self, id: ProgramId) -> Result<ProgramInfo> {
        let program = Program::open(id)?;
        Ok(ProgramInfo { name: program.whole_name(), ..program.info().clone() })
    }

    fn identity(&self, program: &ThrottleProgram) -> ProgramIdentity {
        program.info().identity()
    }

    fn attach(
        &self,
        program: &ThrottleProgram,
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
        program: &ThrottleProgram,
        cgroup: &Cgroup,
        attach_type: AttachType,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let expected_revision = expected_revision.filter(|_| self.support.expected_revision);
        list::detach(program.as_fd(), cgroup, attach_type, expected_revision)
    }
}

impl Links for LinuxBpf {
    type Link = Link;

    fn link_create(
        &self,
        program: &ThrottleProgram,
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
}

impl Pins for LinuxBpf {
    fn link_pin(&self, link: &Link, path: &Path) -> Result<()> {
        pins::make_folder_for(path)?;
        link.pin(path).inspect_err(|_| {
            // The caller gets the pin's error. The ledger keeps the entry until the folder is gone.
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
}

impl Throttles for LinuxBpf {
    type Queue = Queue;

    fn load(&self, owner: &Owner, mark: u64, parts: Parts) -> Result<Loaded> {
        throttle::load(owner, mark, parts)
    }

    fn state(
        &self,
        program: &ThrottleProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        program.state(cgroup, attach_type)
    }

    fn set_state(
        &self,
        program: &ThrottleProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        program.set_state(cgroup, attach_type, state)
    }

    fn counters(
        &self,
        program: &ThrottleProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>> {
        program.counters(cgroup, attach_type)
    }

    fn adopt(&self, cgroup: &Cgroup, path: &Path) -> Result<Adopted> {
        adopt::adopt(cgroup.id(), path)
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

    fn sweep_queues(&self) -> Result<Swept> {
        queue::sweep()
    }
}
