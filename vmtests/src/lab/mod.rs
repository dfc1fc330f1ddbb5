//! A machine to try throttle systems out on: the kernel's calls, and what happens around them.
//!
//! [`bpf::CgroupBpf`] is what a throttle needs. The rest of the world, that comes and goes while throttles do,
//! is here: cgroups, processes with sockets, other people's programs, and a census of what there is. The
//! running kernel is [`bpf::LinuxBpf`], the model of one is [`crate::model::Model`].

mod linux;
pub mod owners;

use std::fmt::Debug;
use std::path::Path;

use bpf::list::AttachFlags;
use bpf::{AttachType, CgroupBpf, LinkId, MapId, ProgramId};

pub use linux::{LinuxProcess, LinuxSocket};

/// What a legacy attachment asks for beside program and place.
#[derive(Debug)]
pub struct Attach<'a, P> {
    /// The kind of list, and how to join it.
    pub flags: AttachFlags,
    /// Whose place to take.
    pub replace: Option<&'a P>,
    /// The revision that the list must have.
    pub expected_revision: Option<u64>,
}

/// What a census found of the throttles' programs of this run, and of what belongs to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Programs.
    pub programs: Vec<ProgramId>,
    /// Links that have one of these programs, defunct ones too.
    pub links: Vec<LinkId>,
    /// Pins and folders for pins in the throttles' part of the bpffs.
    pub pins: Vec<String>,
    /// Maps of their kind that no other's program has.
    pub maps: Vec<MapId>,
}

impl Census {
    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
            && self.links.is_empty()
            && self.pins.is_empty()
            && self.maps.is_empty()
    }

    /// What has come since an earlier one.
    #[must_use]
    pub fn without(mut self, earlier: &Self) -> Self {
        self.programs.retain(|id| !earlier.programs.contains(id));
        self.links.retain(|id| !earlier.links.contains(id));
        self.pins.retain(|pin| !earlier.pins.contains(pin));
        self.maps.retain(|id| !earlier.maps.contains(id));
        self
    }
}

/// A machine.
pub trait Lab: CgroupBpf {
    /// A process that lives in a cgroup and has a socket that it made there; dropping this kills it and closes
    /// the socket.
    type Process: Debug;
    /// A socket that was made in a cgroup, held from outside.
    type Socket: Debug;

    /// Makes a cgroup.
    fn create_cgroup(&self, path: &Path) -> nix::Result<()>;
    /// Removes a cgroup.
    fn remove_cgroup(&self, path: &Path) -> nix::Result<()>;

    /// Starts a process in a cgroup.
    fn spawn(&self, cgroup: &Path) -> nix::Result<Self::Process>;
    /// Its number.
    fn pid(&self, process: &Self::Process) -> u32;
    /// Moves it; its socket stays its first cgroup's.
    fn move_to(&self, process: &Self::Process, cgroup: &Path) -> nix::Result<()>;
    /// It sends itself a packet: one out of its socket's cgroup, one into it.
    fn send(&self, process: &Self::Process) -> nix::Result<()>;
    /// Makes a socket in a cgroup; dropping it closes it.
    fn open_socket(&self, cgroup: &Path) -> nix::Result<Self::Socket>;

    /// Loads a program that lets everything pass.
    fn load_pass(&self, name: &str, attach_type: AttachType) -> bpf::Result<Self::Program>;
    /// `BPF_PROG_ATTACH` with all that it takes.
    fn attach_with(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        asked: &Attach<'_, Self::Program>,
    ) -> bpf::Result<()>;
    /// `BPF_PROG_DETACH` with all that it takes, also what is wrong.
    fn detach_with(
        &self,
        program: Option<&Self::Program>,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> bpf::Result<()>;
    /// `BPF_LINK_UPDATE`.
    fn link_update(
        &self,
        link: &Self::Link,
        new: &Self::Program,
        old: Option<&Self::Program>,
    ) -> bpf::Result<()>;

    /// A program's name, as the kernel has it; `None` when there is no such program.
    fn program_name(&self, id: ProgramId) -> bpf::Result<Option<String>>;
    /// What there is of ours.
    fn census(&self) -> bpf::Result<Census>;
}
