//! Traits for the kernel, one for each subject. A simulated kernel, or a wrapper that injects faults, can implement
//! them.
//!
//! To the caller, one method is one kernel call. The errors are those that the kernel returns.

use std::path::Path;

use crate::attach::attach_type::AttachType;
use crate::attach::lineage::Lineage;
use crate::attach::list::{AttachFlags, ProgramList, Scope};
use crate::attach::probe::Support;
use crate::error::Result;
use crate::host::process::ProcessIdentity;
use crate::object::ids::{CgroupId, LinkId, ProgramId};
use crate::object::link::LinkInfo;
use crate::object::program::{ProgramIdentity, ProgramInfo};

/// The host: its kernel's features, its clock and its processes.
pub trait Host {
    /// Tells what this kernel supports; see [`crate::probe::support`].
    fn support(&self) -> Result<Support>;
    /// Returns `CLOCK_MONOTONIC` in nanoseconds as BPF programs read it, even if this process is in another time
    /// namespace.
    fn now_ns(&self) -> u64;
    /// Tells whether a process is running; see [`ProcessIdentity::is_alive`].
    fn is_alive(&self, process: &ProcessIdentity) -> Result<Option<bool>>;
}

/// Cgroups, and the lists of programs attached to them.
pub trait Cgroups {
    /// An open cgroup.
    type Cgroup;

    /// Opens a cgroup; see [`crate::Cgroup::open`].
    fn open_cgroup(&self, path: &Path) -> Result<Self::Cgroup>;
    /// Returns the id of an open cgroup.
    fn cgroup_id(&self, cgroup: &Self::Cgroup) -> CgroupId;
    /// Returns the cgroup at the top of its mount; see [`crate::lineage::top`]. `None` if it is unknown.
    fn cgroup_top(&self, cgroup: &Self::Cgroup) -> Option<CgroupId>;
    /// Lists the attached programs; see [`crate::list::query`].
    fn query(
        &self,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        scope: Scope,
    ) -> Result<ProgramList>;
    /// Lists the programs attached to a cgroup and its ancestors; see [`crate::lineage::lineages`].
    fn lineages(&self, cgroup: &Self::Cgroup, attach_types: &[AttachType]) -> Result<Vec<Lineage>>;
}

/// Programs, and attaching them the legacy way, without a link.
pub trait Programs: Cgroups {
    /// An open program.
    type Program;

    /// Opens a program by its id; see [`crate::Program::open`].
    fn open_program(&self, id: ProgramId) -> Result<Self::Program>;
    /// Returns the kernel's information about a program, with the full name if it is known; see
    /// [`crate::Program::open`].
    fn program_info(&self, id: ProgramId) -> Result<ProgramInfo>;
    /// Returns the identity of an open program.
    fn identity(&self, program: &Self::Program) -> ProgramIdentity;
    /// Attaches a program; see [`crate::list::attach_with`]. Ignores the revision if the kernel has none.
    fn attach(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        flags: AttachFlags,
        expected_revision: Option<u64>,
    ) -> Result<()>;
    /// Detaches a program; see [`crate::list::detach`]. Ignores the revision if the kernel has none.
    fn detach(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
        expected_revision: Option<u64>,
    ) -> Result<()>;
}

/// Cgroup links.
pub trait Links: Programs {
    /// An open link. When the last holder of an unpinned link is dropped, the kernel detaches its program.
    type Link;

    /// Attaches a program through a new link; see [`crate::Link::create`].
    fn link_create(
        &self,
        program: &Self::Program,
        cgroup: &Self::Cgroup,
        attach_type: AttachType,
    ) -> Result<Self::Link>;
    /// Opens a link by its id; see [`crate::Link::open`].
    fn link_open(&self, id: LinkId) -> Result<Self::Link>;
    /// Returns the id of an open link.
    fn link_id(&self, link: &Self::Link) -> LinkId;
    /// Returns the kernel's information about a link; see [`crate::Link::info`].
    fn link_info(&self, link: &Self::Link) -> Result<LinkInfo>;
    /// Detaches a link's program; see [`crate::Link::detach`].
    fn link_detach(&self, link: &Self::Link) -> Result<()>;
}

/// Pins of links, in a bpffs.
pub trait Pins: Links {
    /// Pins a link; see [`crate::Link::pin`]. Creates the pin's folder first, in an existing bpffs.
    fn link_pin(&self, link: &Self::Link, path: &Path) -> Result<()>;
    /// Opens a link by its pin; see [`crate::Link::open_pinned`].
    fn link_open_pinned(&self, path: &Path) -> Result<Self::Link>;
    /// Tells whether a path in the bpffs exists, as a pin or as a folder.
    fn pin_exists(&self, path: &Path) -> bool;
    /// Removes a pin; see [`crate::pins::unpin`]. Removes the pin's folder too, if it is then empty.
    fn unpin(&self, path: &Path) -> Result<()>;
    /// Removes the folder of a pin if it is empty; see [`crate::pins::remove_empty_folder_of`].
    fn remove_empty_folder_of(&self, pin: &Path) -> Result<()>;
}
