//! Injects faults and crashes at the nth call.
//!
//! [`Faulty`] wraps a kernel and [`FaultyFiles`] wraps the ledger's files. Both count into one [`Control`]. Calls that
//! only return what the caller has already (an id, an identity) do not count.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::adopt::Adopted;
use bpf::boundary::Throttles;
use bpf::queue::Swept;
use bpf::state::{Counters, ThrottleState};
use bpf::throttle::{Loaded, Parts};
use bpf::{CgroupBpf, Owner};
use kernel::boundary::{Cgroups, Host, Links, Pins, Programs};
use kernel::error::{Call, Error, Result};
use kernel::lineage::Lineage;
use kernel::link::LinkInfo;
use kernel::list::{AttachFlags, ProgramList, Scope};
use kernel::probe::Support;
use kernel::{
    AttachType, CgroupId, LinkId, ProcessIdentity, ProgramId, ProgramIdentity, ProgramInfo,
};
use nix::errno::Errno;
use throttle_core::files::{Files, Lock};

use super::step::{Fault, Mishap};

/// Ends the process of a control. It does not return.
pub type Death = Box<dyn Fn()>;

/// The planned failure, and the number of calls so far.
pub struct Control {
    calls: Cell<u16>,
    plan: Cell<Option<Fault>>,
    struck: Cell<bool>,
    dead: Cell<bool>,
    death: Death,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Control {
    /// Makes a control without a planned failure.
    pub fn new(death: Death) -> Rc<Self> {
        Rc::new(Self {
            calls: Cell::new(0),
            plan: Cell::new(None),
            struck: Cell::new(false),
            dead: Cell::new(false),
            death,
        })
    }

    /// Plans a failure and counts calls from here.
    pub fn plan(&self, fault: Option<Fault>) {
        self.calls.set(0);
        self.struck.set(false);
        self.plan.set(fault);
    }

    /// Tells whether the injected failure struck.
    pub fn struck(&self) -> bool {
        self.struck.get()
    }

    /// Makes every further call do nothing, so that unwinding after the process's death changes nothing.
    pub fn is_dead(&self) {
        self.dead.set(true);
    }

    /// Makes a call, or injects the planned failure.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> T, fail: impl FnOnce(Errno) -> T) -> T {
        if self.dead.get() {
            return fail(Errno::ESRCH);
        }
        self.calls.set(self.calls.get().saturating_add(1));
        let Some(fault) = self.plan.get().filter(|plan| plan.nth == self.calls.get()) else {
            return call();
        };
        self.struck.set(true);
        match fault.mishap {
            Mishap::Fail(errno) => fail(errno.errno()),
            Mishap::DieBefore => {
                (self.death)();
                fail(Errno::ESRCH)
            }
            Mishap::DieAfter => {
                let result = call();
                (self.death)();
                result
            }
        }
    }
}

/// A kernel whose calls can go wrong.
#[derive(Debug, Clone)]
pub struct Faulty<B> {
    inner: B,
    control: Rc<Control>,
}

impl<B> Faulty<B> {
    /// Wraps this kernel.
    pub fn new(inner: B, control: Rc<Control>) -> Self {
        Self { inner, control }
    }

    fn call<T>(&self, name: Call, call: impl FnOnce(&B) -> Result<T>) -> Result<T> {
        self.control.call(
            || call(&self.inner),
            |errno| Err(Error::new(name, "what the gate lets fail", errno)),
        )
    }
}

impl<B: CgroupBpf> Host for Faulty<B> {
    fn support(&self) -> Result<Support> {
        self.inner.support()
    }

    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn is_alive(&self, process: &ProcessIdentity) -> Result<Option<bool>> {
        self.call(Call::ReadProc, |kernel| kernel.is_alive(process))
    }
}

impl<B: CgroupBpf> Cgroups for Faulty<B> {
    type Cgroup = B::Cgroup;

    fn open_cgroup(&self, path: &Path) -> Result<Self::Cgroup> {
        self.call(Call::OpenCgroup, |kernel| kernel.open_cgroup(path))
    }

    fn cgroup_id(&self, cgroup: &Self::Cgroup) -> CgroupId {
        self.inner.cgroup_id(cgroup)
    }

    fn cgroup_top(&self, cgroup: &Self::Cgroup) -> Option<CgroupId> {
        self.inner.cgroup_top(cgroup)
    }

    fn query(
        &self,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Result<ProgramList> {
        self.call(Call::Query, |kernel| kernel.query(cgroup, attach_type, scope))
    }

    fn lineages(&self, cgroup: &Self::Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>> {
        self.call(Call::Query, |kernel| kernel.lineages(cgroup, attach_types))
    }
}

impl<B: CgroupBpf> Programs for Faulty<B> {
    type Program = B::Program;

    fn open_program(&self, id: ProgramId) -> Result<Self::Program> {
        self.call(Call::FdById, |kernel| kernel.open_program(id))
    }

    fn program_info(&self, id: ProgramId) -> Result<ProgramInfo> {
        self.call(Call::FdById, |kernel| kernel.program_info(id))
    }

    fn identity(&self, program: &Self::Program) -> ProgramIdentity {
        self.inner.identity(program)
    }

    fn attach(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        revision: Option<u64>,
    ) -> Result<()> {
        self.call(Call::Attach, |kernel| {
            kernel.attach(program, cgroup, attach_type, flags, revision)
        })
    }

    fn detach(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        revision: Option<u64>,
    ) -> Result<()> {
        self.call(Call::Detach, |kernel| kernel.detach(program, cgroup, attach_type, revision))
    }
}

impl<B: CgroupBpf> Links for Faulty<B> {
    type Link = B::Link;

    fn link_create(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
    ) -> Result<Self::Link> {
        self.call(Call::LinkCreate, |kernel| kernel.link_create(program, cgroup, attach_type))
    }

    fn link_open(&self, id: LinkId) -> Result<Self::Link> {
        self.call(Call::FdById, |kernel| kernel.link_open(id))
    }

    fn link_id(&self, link: &Self::Link) -> LinkId {
        self.inner.link_id(link)
    }

    fn link_info(&self, link: &Self::Link) -> Result<LinkInfo> {
        self.call(Call::Info, |kernel| kernel.link_info(link))
    }

    fn link_detach(&self, link: &Self::Link) -> Result<()> {
        self.call(Call::LinkDetach, |kernel| kernel.link_detach(link))
    }
}

impl<B: CgroupBpf> Pins for Faulty<B> {
    fn link_pin(&self, link: &Self::Link, path: &Path) -> Result<()> {
        self.call(Call::ObjPin, |kernel| kernel.link_pin(link, path))
    }

    fn link_open_pinned(&self, path: &Path) -> Result<Self::Link> {
        self.call(Call::ObjGet, |kernel| kernel.link_open_pinned(path))
    }

    fn pin_exists(&self, path: &Path) -> bool {
        self.inner.pin_exists(path)
    }

    fn unpin(&self, path: &Path) -> Result<()> {
        self.call(Call::Unpin, |kernel| kernel.unpin(path))
    }

    fn remove_empty_folder_of(&self, pin: &Path) -> Result<()> {
        self.inner.remove_empty_folder_of(pin)
    }
}

impl<B: CgroupBpf> Throttles for Faulty<B> {
    type Queue = B::Queue;

    fn load(&self, owner: &Owner, mark: u64, parts: Parts) -> Result<Loaded<Self::Program>> {
        self.call(Call::Load, |kernel| kernel.load(owner, mark, parts))
    }

    fn state(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        self.call(Call::MapLookup, |kernel| kernel.state(program, cgroup, attach_type))
    }

    fn set_state(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        self.call(Call::MapUpdate, |kernel| kernel.set_state(program, cgroup, attach_type, state))
    }

    fn counters(
        &self,
        program: &Self::Program,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>> {
        self.call(Call::MapLookup, |kernel| kernel.counters(program, cgroup, attach_type))
    }

    fn adopt(&self, cgroup: &Self::Cgroup, path: &Path) -> Result<Adopted> {
        self.call(Call::Load, |kernel| kernel.adopt(cgroup, path))
    }

    fn queue_open(
        &self,
        programs: &Loaded<Self::Program>,
        cgroup: &Path,
        owner: &Owner,
    ) -> Result<Self::Queue> {
        self.call(Call::Netlink, |kernel| kernel.queue_open(programs, cgroup, owner))
    }

    fn queue_works(&self, queue: &Self::Queue) -> Result<bool> {
        self.call(Call::Netlink, |kernel| kernel.queue_works(queue))
    }

    fn queue_close(&self, queue: &mut Self::Queue) -> Result<()> {
        self.call(Call::Netlink, |kernel| kernel.queue_close(queue))
    }

    fn sweep_queues(&self) -> Result<Swept> {
        self.call(Call::Netlink, B::sweep_queues)
    }
}

/// Files whose operations can go wrong.
#[derive(Debug)]
pub struct FaultyFiles {
    inner: Rc<dyn Files>,
    control: Rc<Control>,
}

impl FaultyFiles {
    /// Wraps these files.
    pub fn new(inner: Rc<dyn Files>, control: Rc<Control>) -> Self {
        Self { inner, control }
    }

    fn call<T>(&self, call: impl FnOnce(&dyn Files) -> io::Result<T>) -> io::Result<T> {
        self.control.call(|| call(&*self.inner), |errno| Err(errno.into()))
    }
}

impl Files for FaultyFiles {
    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(|files| files.make_folder(folder))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.call(|files| files.lock(path))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.call(|files| files.list(folder))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.call(|files| files.read(path))
    }

    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.call(|files| files.write(path, contents))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|files| files.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|files| files.remove(path))
    }

    fn write_secret(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.call(|files| files.write_secret(path, contents))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|files| files.link(from, to))
    }

    fn random(&self) -> io::Result<u64> {
        self.call(|files| files.random())
    }
}
