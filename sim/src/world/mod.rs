//! A world to try throttles out on: the kernel's calls, and what happens around them.

mod linux;

use std::fmt::Debug;
use std::path::Path;

use bpf::CgroupBpf;
use kernel::list::AttachFlags;
use kernel::{AttachType, LinkId, MapId, ProgramId};

pub use linux::{LinuxProcess, LinuxSocket};

/// The options of a legacy attachment (`BPF_PROG_ATTACH`).
#[derive(Debug)]
pub struct Attach<'a, P> {
    /// The kind of list to make or join, and how.
    pub flags: AttachFlags,
    /// The program to replace.
    pub replace: Option<&'a P>,
    /// The revision that the list must have; `ESTALE` otherwise.
    pub expected_revision: Option<u64>,
}

/// The throttles' programs in a world, and what belongs to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// The programs.
    pub programs: Vec<ProgramId>,
    /// The links to these programs, including defunct ones.
    pub links: Vec<LinkId>,
    /// The pins and their folders in the throttles' part of the bpffs.
    pub pins: Vec<String>,
    /// The throttles' maps that belong to no foreign program.
    pub maps: Vec<MapId>,
}

impl Census {
    /// Tells whether the census is empty.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
            && self.links.is_empty()
            && self.pins.is_empty()
            && self.maps.is_empty()
    }

    /// Removes what an earlier census already had.
    #[must_use]
    pub fn without(mut self, earlier: &Self) -> Self {
        self.programs.retain(|id| !earlier.programs.contains(id));
        self.links.retain(|id| !earlier.links.contains(id));
        self.pins.retain(|pin| !earlier.pins.contains(pin));
        self.maps.retain(|id| !earlier.maps.contains(id));
        self
    }
}

/// A machine on which throttles run: the kernel's calls ([`CgroupBpf`]), and what comes and goes around throttles.
pub trait World: CgroupBpf {
    /// A process in a cgroup, with a socket that it made there. Dropping this kills the process and closes the socket.
    type Process: Debug;
    /// A socket that belongs to a cgroup. Dropping this closes it.
    type Socket: Debug;

    /// Creates a cgroup.
    fn create_cgroup(&self, path: &Path) -> nix::Result<()>;
    /// Removes a cgroup.
    fn remove_cgroup(&self, path: &Path) -> nix::Result<()>;

    /// Starts a process in a cgroup.
    fn spawn(&self, cgroup: &Path) -> nix::Result<Self::Process>;
    /// Returns the pid of a process.
    fn pid(&self, process: &Self::Process) -> u32;
    /// Moves a process to another cgroup. Its socket stays with the cgroup in which it was made.
    fn move_to(&self, process: &Self::Process, cgroup: &Path) -> nix::Result<()>;
    /// Makes a process send itself a packet, which leaves and enters the cgroup of its socket.
    fn send(&self, process: &Self::Process) -> nix::Result<()>;
    /// Opens a socket in a cgroup.
    fn open_socket(&self, cgroup: &Path) -> nix::Result<Self::Socket>;

    /// Loads a program that lets everything pass.
    fn load_pass(&self, name: &str, attach_type: AttachType) -> kernel::Result<Self::Program>;
    /// Attaches with any options (`BPF_PROG_ATTACH`), valid or not.
    fn attach_with(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        asked: &Attach<'_, Self::Program>,
    ) -> kernel::Result<()>;
    /// Detaches with any options (`BPF_PROG_DETACH`), valid or not.
    fn detach_with(
        &self,
        program: Option<&Self::Program>,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> kernel::Result<()>;
    /// Replaces the program of a link (`BPF_LINK_UPDATE`).
    fn link_update(
        &self,
        link: &Self::Link,
        new: &Self::Program,
        old: Option<&Self::Program>,
    ) -> kernel::Result<()>;

    /// Returns a program's name as the kernel has it; `None` if there is no such program.
    fn program_name(&self, id: ProgramId) -> kernel::Result<Option<String>>;
}
