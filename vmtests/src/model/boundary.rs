//! The model where the kernel is asked for.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bpf::error::{Call, Error, Result};
use bpf::link::LinkInfo;
use bpf::list::{AttachFlags, ProgramList, Scope};
use bpf::probe::Support;
use bpf::state::{Counters, ThrottleState};
use bpf::throttle::Loaded;
use bpf::{AttachType, CgroupBpf, CgroupId, LinkId, Owner, ProgramId, ProgramIdentity};
use nix::errno::Errno;

use super::Version;
use super::kernel::{Descriptor, Kernel, Pid};
use crate::lab::{Attach, Census, Lab};

/// A modelled kernel, as one of its processes sees it. Clones are the same process.
#[derive(Debug, Clone)]
pub struct Model {
    kernel: Rc<RefCell<Kernel>>,
    process: Pid,
    /// Where pins of ours go, for the census.
    pins: PathBuf,
}

/// An open file of a process; dropping it closes it.
#[derive(Debug)]
struct File {
    kernel: Rc<RefCell<Kernel>>,
    descriptor: Descriptor,
}

impl Drop for File {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close(self.descriptor);
    }
}

/// An open cgroup.
#[derive(Debug)]
pub struct ModelCgroup {
    id: CgroupId,
    path: PathBuf,
    _file: File,
}

/// An open program.
#[derive(Debug)]
pub struct ModelProgram {
    identity: ProgramIdentity,
    _file: File,
}

/// An open link.
#[derive(Debug)]
pub struct ModelLink {
    id: LinkId,
    _file: File,
}

/// A process with a socket.
#[derive(Debug)]
pub struct ModelProcess {
    pid: Pid,
    socket: ModelSocket,
    kernel: Rc<RefCell<Kernel>>,
}

impl Drop for ModelProcess {
    fn drop(&mut self) {
        self.kernel.borrow_mut().end(self.pid);
    }
}

/// A socket.
#[derive(Debug)]
pub struct ModelSocket {
    cgroup: CgroupId,
    kernel: Rc<RefCell<Kernel>>,
}

impl Drop for ModelSocket {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close_socket(self.cgroup);
    }
}

impl Model {
    /// Boots a kernel with one cgroup at `root`, seen from outside any process. What is pinned below `pins`
    /// counts as ours.
    pub fn boot(version: Version, root: &Path, pins: &Path) -> Self {
        let kernel = Rc::new(RefCell::new(Kernel::boot(version, root)));
        Self { kernel, process: 0, pins: pins.to_owned() }
    }

    /// The same kernel from a new process.
    #[must_use]
    pub fn new_process(&self) -> Self {
        // It names no cgroup that could be missing.
        let process = self.kernel.borrow_mut().spawn(None).unwrap_or_default();
        Self { kernel: Rc::clone(&self.kernel), process, pins: self.pins.clone() }
    }

    /// The number of this process.
    pub fn process(&self) -> Pid {
        self.process
    }

    /// Ends this process: its files are closed, nothing else is done.
    pub fn kill(&self) {
        self.kernel.borrow_mut().end(self.process);
    }

    /// How many files this process has open.
    pub fn open_files(&self) -> usize {
        self.kernel.borrow().open_files(self.process)
    }

    /// The cgroup of a process.
    pub fn cgroup_of(&self, pid: Pid) -> Option<PathBuf> {
        self.kernel.borrow().cgroup_of(pid)
    }

    /// A copy of the kernel that goes its own way from here, seen from outside any process.
    #[must_use]
    pub fn fork(&self) -> Self {
        let kernel = Rc::new(RefCell::new(self.kernel.borrow().clone()));
        Self { kernel, process: 0, pins: self.pins.clone() }
    }

    /// The kernel itself.
    pub fn kernel(&self) -> Kernel {
        self.kernel.borrow().clone()
    }

    fn file(&self, descriptor: Descriptor) -> File {
        File { kernel: Rc::clone(&self.kernel), descriptor }
    }

    fn program_from(&self, id: ProgramId, descriptor: Descriptor) -> ModelProgram {
        let kernel = self.kernel.borrow();
        let loaded_at_ns = kernel.program(id).map_or(0, |program| program.loaded_at);
        let tag = kernel.program(id).map_or("", |program| program.name.as_str());
        let identity = ProgramIdentity { id, tag: format!("{tag:0>16}"), loaded_at_ns };
        ModelProgram { identity, _file: self.file(descriptor) }
    }

    fn load(
        &self,
        programs: &[(&str, AttachType)],
        with_state: bool,
    ) -> impl Iterator<Item = ModelProgram> {
        let loaded = self.kernel.borrow_mut().load(self.process, programs, with_state);
        loaded.into_iter().map(|(id, descriptor)| self.program_from(id, descriptor))
    }
}

fn on_program(call: Call, program: &ModelProgram) -> impl FnOnce(Errno) -> Error {
    let target = format!("program {}", program.identity.id);
    move |errno| Error::new(call, target, errno)
}

fn on_link(call: Call, link: &ModelLink) -> impl FnOnce(Errno) -> Error {
    let target = format!("link {}", link.id);
    move |errno| Error::new(call, target, errno)
}

fn at(call: Call, cgroup: &ModelCgroup, attach_type: AttachType) -> impl FnOnce(Errno) -> Error {
    let target = format!("{} ({attach_type})", cgroup.path.display());
    move |errno| Error::new(call, target, errno)
}

fn on_path(call: Call, path: &Path) -> impl FnOnce(Errno) -> Error {
    let target = path.display().to_string();
    move |errno| Error::new(call, target, errno)
}

impl CgroupBpf for Model {
    type Cgroup = ModelCgroup;
    type Program = ModelProgram;
    type Link = ModelLink;

    fn support(&self) -> Result<Support> {
        let version = self.kernel.borrow().version();
        Ok(Support {
            links: version.since(5, 7),
            link_detach: version.since(5, 9),
            program_flags: version.since(6, 0),
            expected_revision: version.has_revisions(),
        })
    }

    fn now_ns(&self) -> u64 {
        self.kernel.borrow_mut().now()
    }

    fn is_alive(&self, owner: &Owner) -> Result<Option<bool>> {
        Ok(Some(self.kernel.borrow().is_alive(owner.pid)))
    }

    fn open_cgroup(&self, path: &Path) -> Result<ModelCgroup> {
        let opened = self.kernel.borrow_mut().open_cgroup(self.process, path);
        let (id, descriptor) = opened.map_err(on_path(Call::OpenCgroup, path))?;
        Ok(ModelCgroup { id, path: path.to_owned(), _file: self.file(descriptor) })
    }

    fn cgroup_id(&self, cgroup: &ModelCgroup) -> CgroupId {
        cgroup.id
    }

    fn load(&self, _owner: &Owner) -> Result<Loaded<ModelProgram>> {
        let wanted = [
            ("chadthrottle_ingress", AttachType::INET_INGRESS),
            ("chadthrottle_egress", AttachType::INET_EGRESS),
        ];
        let mut programs = Model::load(self, &wanted, true);
        let missing = || Error::new(Call::Load, "the packet programs", Errno::ENOMEM);
        let ingress = programs.next().ok_or_else(missing)?;
        Ok(Loaded { ingress, egress: programs.next().ok_or_else(missing)? })
    }

    fn open_program(&self, id: ProgramId) -> Result<ModelProgram> {
        let opened = self.kernel.borrow_mut().open_program(self.process, id);
        let fail = |errno| Error::new(Call::FdById, format!("program {id}"), errno);
        Ok(self.program_from(id, opened.map_err(fail)?))
    }

    fn identity(&self, program: &ModelProgram) -> ProgramIdentity {
        program.identity.clone()
    }

    fn query(
        &self,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Result<ProgramList> {
        let queried = self.kernel.borrow().query(cgroup.id, attach_type, scope);
        queried.map_err(at(Call::Query, cgroup, attach_type))
    }

    fn attach(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let has_revisions = self.support()?.expected_revision;
        let expected_revision = expected_revision.filter(|_| has_revisions);
        let asked = Attach { flags, replace: None, expected_revision };
        self.attach_with(program, cgroup, attach_type, &asked)
    }

    fn detach(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let has_revisions = self.support()?.expected_revision;
        let expected_revision = expected_revision.filter(|_| has_revisions);
        let none = AttachFlags::empty();
        self.detach_with(Some(program), cgroup, attach_type, none, expected_revision)
    }

    fn link_create(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
    ) -> Result<ModelLink> {
        let created = self.kernel.borrow_mut().link_create(
            self.process,
            program.identity.id,
            cgroup.id,
            attach_type,
        );
        let (id, descriptor) = created.map_err(at(Call::LinkCreate, cgroup, attach_type))?;
        Ok(ModelLink { id, _file: self.file(descriptor) })
    }

    fn link_open(&self, id: LinkId) -> Result<ModelLink> {
        let opened = self.kernel.borrow_mut().open_link(self.process, id);
        let fail = |errno| Error::new(Call::FdById, format!("link {id}"), errno);
        Ok(ModelLink { id, _file: self.file(opened.map_err(fail)?) })
    }

    fn link_id(&self, link: &ModelLink) -> LinkId {
        link.id
    }

    fn link_info(&self, link: &ModelLink) -> Result<LinkInfo> {
        self.kernel.borrow().link_info(link.id).map_err(on_link(Call::Info, link))
    }

    fn link_detach(&self, link: &ModelLink) -> Result<()> {
        let detached = self.kernel.borrow_mut().link_detach(link.id);
        detached.map_err(on_link(Call::LinkDetach, link))
    }

    fn link_pin(&self, link: &ModelLink, path: &Path) -> Result<()> {
        self.kernel.borrow_mut().pin(link.id, path).map_err(on_path(Call::ObjPin, path))
    }

    fn link_open_pinned(&self, path: &Path) -> Result<ModelLink> {
        let opened = self.kernel.borrow_mut().open_pinned(self.process, path);
        let (id, descriptor) = opened.map_err(on_path(Call::ObjGet, path))?;
        Ok(ModelLink { id, _file: self.file(descriptor) })
    }

    fn pin_exists(&self, path: &Path) -> bool {
        self.kernel.borrow().pin_exists(path)
    }

    fn unpin(&self, path: &Path) -> Result<()> {
        self.kernel.borrow_mut().unpin(path);
        Ok(())
    }

    fn state(
        &self,
        program: &ModelProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<ThrottleState>> {
        let found = self.kernel.borrow().state(program.identity.id, cgroup, attach_type);
        Ok(found.map(|(state, _)| state))
    }

    fn set_state(
        &self,
        program: &ModelProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
        state: &ThrottleState,
    ) -> Result<()> {
        let set =
            self.kernel.borrow_mut().set_state(program.identity.id, cgroup, attach_type, *state);
        set.map_err(on_program(Call::MapUpdate, program))
    }

    fn counters(
        &self,
        program: &ModelProgram,
        cgroup: CgroupId,
        attach_type: AttachType,
    ) -> Result<Option<Counters>> {
        let found = self.kernel.borrow().state(program.identity.id, cgroup, attach_type);
        Ok(found.map(|(_, counters)| counters))
    }
}

impl Lab for Model {
    type Process = ModelProcess;
    type Socket = ModelSocket;

    fn create_cgroup(&self, path: &Path) -> nix::Result<()> {
        self.kernel.borrow_mut().tree.create(path)
    }

    fn remove_cgroup(&self, path: &Path) -> nix::Result<()> {
        self.kernel.borrow_mut().remove_cgroup(path)
    }

    fn spawn(&self, cgroup: &Path) -> nix::Result<ModelProcess> {
        let socket = self.open_socket(cgroup)?;
        let pid = self.kernel.borrow_mut().spawn(Some(cgroup))?;
        Ok(ModelProcess { pid, socket, kernel: Rc::clone(&self.kernel) })
    }

    fn pid(&self, process: &ModelProcess) -> u32 {
        process.pid
    }

    fn move_to(&self, process: &ModelProcess, cgroup: &Path) -> nix::Result<()> {
        self.kernel.borrow_mut().move_to(process.pid, cgroup)
    }

    fn send(&self, process: &ModelProcess) -> nix::Result<()> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.packet(process.socket.cgroup, AttachType::INET_EGRESS);
        kernel.packet(process.socket.cgroup, AttachType::INET_INGRESS);
        Ok(())
    }

    fn open_socket(&self, cgroup: &Path) -> nix::Result<ModelSocket> {
        let cgroup = self.kernel.borrow_mut().open_socket(cgroup)?;
        Ok(ModelSocket { cgroup, kernel: Rc::clone(&self.kernel) })
    }

    fn load_pass(&self, name: &str, attach_type: AttachType) -> Result<ModelProgram> {
        let program = Model::load(self, &[(name, attach_type)], false).next();
        program.ok_or_else(|| Error::new(Call::Load, name, Errno::ENOMEM))
    }

    fn attach_with(
        &self,
        program: &ModelProgram,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        asked: &Attach<'_, ModelProgram>,
    ) -> Result<()> {
        let attached = self.kernel.borrow_mut().attach(
            program.identity.id,
            cgroup.id,
            attach_type,
            asked.flags,
            asked.replace.map(|program| program.identity.id),
            asked.expected_revision,
        );
        attached.map_err(at(Call::Attach, cgroup, attach_type))
    }

    fn detach_with(
        &self,
        program: Option<&ModelProgram>,
        cgroup: &ModelCgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()> {
        let program = program.map(|program| program.identity.id);
        let detached = self.kernel.borrow_mut().detach(
            program,
            cgroup.id,
            attach_type,
            flags,
            expected_revision,
        );
        detached.map_err(at(Call::Detach, cgroup, attach_type))
    }

    fn link_update(
        &self,
        link: &ModelLink,
        new: &ModelProgram,
        old: Option<&ModelProgram>,
    ) -> Result<()> {
        let old = old.map(|old| old.identity.id);
        let updated = self.kernel.borrow_mut().link_update(link.id, new.identity.id, old);
        updated.map_err(on_link(Call::LinkUpdate, link))
    }

    fn program_name(&self, id: ProgramId) -> Result<Option<String>> {
        Ok(self.kernel.borrow().program(id).map(|program| program.name.clone()))
    }

    fn census(&self) -> Result<Census> {
        let kernel = self.kernel.borrow();
        let programs: Vec<_> = kernel
            .programs()
            .filter(|(_, name)| name.starts_with("chadthrottle"))
            .map(|(id, _)| id)
            .collect();
        let is_ours = |id: &LinkId| {
            kernel.link_info(*id).is_ok_and(|info| programs.contains(&info.program_id))
        };
        Ok(Census {
            links: kernel.links().filter(is_ours).collect(),
            pins: kernel
                .pins()
                .filter(|path| path.starts_with(&self.pins))
                .map(|path| path.display().to_string())
                .collect(),
            maps: kernel.loads(),
            programs,
        })
    }
}
