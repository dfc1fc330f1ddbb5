//! Defines what a process holds of the model. Its descriptors close when they are dropped.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kernel::error::{Call, Error};
use kernel::{AttachType, CgroupId, LinkId, ProgramId, ProgramIdentity};
use nix::errno::Errno;

use super::Version;
use super::kernel::{Descriptor, Kernel, Pid};

/// A simulated kernel, as one of its processes sees it. Clones are the same process.
///
/// Queries do not need a process, because [`Model::boot`] returns a view from outside.
#[derive(Debug, Clone)]
pub struct Model {
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pub(super) process: Pid,
    /// The folder of our pins, for the census.
    pub(super) pins: PathBuf,
}

/// An open file of a process. Dropping it closes the file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pub(super) descriptor: Descriptor,
}

impl Drop for File {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close(self.descriptor);
    }
}

/// An open cgroup.
#[derive(Debug)]
pub struct ModelCgroup {
    pub(super) id: CgroupId,
    pub(super) path: PathBuf,
    pub(super) _file: File,
}

/// An open program.
#[derive(Debug)]
pub struct ModelProgram {
    pub(super) identity: ProgramIdentity,
    pub(super) _file: File,
}

impl ModelProgram {
    /// Returns the id without copying the rest of the identity.
    pub fn id(&self) -> ProgramId {
        self.identity.id
    }
}

/// An open link.
#[derive(Debug)]
pub struct ModelLink {
    pub(super) id: LinkId,
    pub(super) _file: File,
}

/// A process with a socket.
#[derive(Debug)]
pub struct ModelProcess {
    pub(super) pid: Pid,
    pub(super) socket: ModelSocket,
    pub(super) kernel: Rc<RefCell<Kernel>>,
}

impl Drop for ModelProcess {
    fn drop(&mut self) {
        self.kernel.borrow_mut().end(self.pid);
    }
}

/// A socket.
#[derive(Debug)]
pub struct ModelSocket {
    pub(super) cgroup: CgroupId,
    pub(super) kernel: Rc<RefCell<Kernel>>,
}

impl Drop for ModelSocket {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close_socket(self.cgroup);
    }
}

impl Model {
    /// Boots a kernel with one cgroup at `root`, seen from outside any process. Pins below `pins` count as throttles'
    /// own in [`Model::census`].
    pub fn boot(version: Version, root: &Path, pins: &Path) -> Self {
        let kernel = Rc::new(RefCell::new(Kernel::boot(version, root)));
        Self { kernel, process: 0, pins: pins.to_owned() }
    }

    /// Starts a process and returns the same kernel, as the process sees it.
    #[must_use]
    pub fn new_process(&self) -> Self {
        // This cannot fail, because it names no cgroup.
        let process = self.kernel.borrow_mut().spawn(None).unwrap_or_default();
        Self { kernel: Rc::clone(&self.kernel), process, pins: self.pins.clone() }
    }

    /// Returns the pid of this process; 0 outside any.
    pub fn process(&self) -> Pid {
        self.process
    }

    /// Kills this process: its files close, and nothing else happens.
    pub fn kill(&self) {
        self.kernel.borrow_mut().end(self.process);
    }

    /// Returns how many files this process has open.
    pub fn open_files(&self) -> usize {
        self.kernel.borrow().open_files(self.process)
    }

    /// Returns the cgroup of a process.
    pub fn cgroup_of(&self, pid: Pid) -> Option<PathBuf> {
        self.kernel.borrow().cgroup_of(pid)
    }

    /// Returns the cgroup of a process's socket, unless it was removed.
    pub fn socket_cgroup(&self, process: &ModelProcess) -> Option<PathBuf> {
        self.kernel.borrow().cgroup_path(process.socket.cgroup)
    }

    /// Copies the kernel. The copy is independent from here on, and the view is from outside any process.
    #[must_use]
    pub fn fork(&self) -> Self {
        let kernel = Rc::new(RefCell::new(self.kernel.borrow().clone()));
        Self { kernel, process: 0, pins: self.pins.clone() }
    }

    /// Returns a copy of the kernel itself.
    pub fn kernel(&self) -> Kernel {
        self.kernel.borrow().clone()
    }

    pub(super) fn file(&self, descriptor: Descriptor) -> File {
        File { kernel: Rc::clone(&self.kernel), descriptor }
    }

    pub(super) fn program_from(&self, id: ProgramId, descriptor: Descriptor) -> ModelProgram {
        let kernel = self.kernel.borrow();
        let loaded_at_ns = kernel.program(id).map_or(0, |program| program.loaded_at);
        let tag = kernel.program(id).map_or("", |program| program.name.as_str());
        let identity = ProgramIdentity { id, tag: format!("{tag:0>16}"), loaded_at_ns };
        ModelProgram { identity, _file: self.file(descriptor) }
    }

    pub(super) fn load(
        &self,
        programs: &[(&str, AttachType)],
        with_state: bool,
    ) -> impl Iterator<Item = ModelProgram> {
        let loaded = self.kernel.borrow_mut().load(self.process, programs, with_state);
        loaded.into_iter().map(|(id, descriptor)| self.program_from(id, descriptor))
    }
}

// Most calls succeed, and tests make millions. So the text for an error is made only when a call fails.

pub(super) fn on_program(call: Call, program: &ModelProgram) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::new(call, format!("program {}", program.identity.id), errno)
}

pub(super) fn on_link(call: Call, link: &ModelLink) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::new(call, format!("link {}", link.id), errno)
}

pub(super) fn at(
    call: Call,
    cgroup: &ModelCgroup,
    attach_type: AttachType,
) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::new(call, format!("{} ({attach_type})", cgroup.path.display()), errno)
}

pub(super) fn on_path(call: Call, path: &Path) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::new(call, path.display().to_string(), errno)
}
