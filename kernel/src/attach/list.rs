//! Programs attached to a cgroup: querying the list (`BPF_PROG_QUERY`), attaching and detaching.

use std::os::fd::{AsFd, BorrowedFd};

use bitflags::bitflags;
use nix::errno::Errno;

use crate::attach::attach_type::AttachType;
use crate::cgroup::{Cgroup, shown};
use crate::error::{Call, Error, Result};
use crate::object::ids::ProgramId;
use crate::sys::{self, Queried};

/// The most programs that the kernel attaches for one cgroup and attach type (`BPF_CGROUP_MAX_PROGS`).
pub const MAX_PROGRAMS: usize = 64;

bitflags! {
    /// Flags of an attachment, or of a whole list.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct AttachFlags: u32 {
        /// `BPF_F_ALLOW_OVERRIDE`: a program attached to a descendant runs instead of this one.
        const OVERRIDE = 1 << 0;
        /// `BPF_F_ALLOW_MULTI`: other programs may be attached too, and descendants' programs run as well.
        const MULTI = 1 << 1;
        /// `BPF_F_REPLACE` (5.5): replaces an attached program.
        const REPLACE = 1 << 2;
        /// `BPF_F_PREORDER` (6.15): ancestors' programs run before descendants' programs.
        const PREORDER = 1 << 6;
        const _ = !0;
    }
}

/// Selects the programs that a query returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The programs attached to the cgroup itself.
    Local,
    /// The programs that run for the cgroup, in run order. They include programs attached to ancestors.
    Effective,
}

/// One attached program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The program's id.
    pub id: ProgramId,
    /// The flags of the list that the program is on. The kernel reports them in local queries since 6.0. For LSM lists
    /// no other query reports flags.
    ///
    /// The kernel does not report [`AttachFlags::PREORDER`] here.
    pub flags: Option<AttachFlags>,
}

/// The answer to a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgramList {
    /// The programs, in the order in which the kernel runs them.
    pub programs: Vec<AttachedProgram>,
    /// The list's flags; empty for an effective query.
    pub flags: AttachFlags,
    /// The list's revision (6.17), which the kernel increments with each change. A detach can require that it is
    /// unchanged.
    pub revision: Option<u64>,
}

impl ProgramList {
    /// Counts the entries of one program. A program attached both through a link and the legacy way has two.
    pub fn count(&self, id: ProgramId) -> usize {
        self.programs.iter().filter(|program| program.id == id).count()
    }
}

/// Buffers for queries. Reusing one `Query` for 10,000 cgroups allocates only once.
#[derive(Debug)]
pub struct Query {
    ids: Vec<u32>,
    flags: Option<Vec<u32>>,
}

impl Query {
    /// Creates the buffers. `program_flags` requests the flags of each program.
    ///
    /// Pass [`crate::attach::probe::Support::program_flags`]. A kernel without this feature answers `EINVAL`.
    pub fn new(program_flags: bool) -> Self {
        Self { ids: vec![0; MAX_PROGRAMS], flags: program_flags.then(|| vec![0; MAX_PROGRAMS]) }
    }

    /// Tells whether queries request the flags of each program.
    pub fn tells_program_flags(&self) -> bool {
        self.flags.is_some()
    }

    /// Queries one cgroup for one attach type. An empty list, by far the most common answer, costs one system call and
    /// no allocation.
    ///
    /// Needs `CAP_NET_ADMIN`. Leaves nothing behind if the process dies.
    ///
    /// # Errors
    /// `Denied` without the capability; `Vanished` when the cgroup was removed; `EINVAL` when the kernel does not know
    /// the attach type.
    pub fn ask(
        &mut self,
        cgroup: BorrowedFd<'_>,
        attach_type: AttachType,
        scope: Scope,
    ) -> std::result::Result<ProgramList, Errno> {
        let query_flags = match scope {
            Scope::Local => 0,
            Scope::Effective => sys::QUERY_EFFECTIVE,
        };
        self.fill(scope, |ids, flags| {
            sys::prog_query(Some(cgroup), attach_type.kernel(), query_flags, ids, flags)
        })
    }

    /// Copies the answer. `query` fills the buffers as far as they go.
    fn fill(
        &mut self,
        scope: Scope,
        mut query: impl FnMut(&mut [u32], Option<&mut [u32]>) -> (Queried, nix::Result<()>),
    ) -> nix::Result<ProgramList> {
        let (count, queried) = sys::until_all_fit(self.ids.len(), |room| {
            self.ids.resize(room, 0);
            if let Some(flags) = &mut self.flags {
                flags.resize(room, 0);
            }
            // The kernel refuses to report single programs' flags in an effective query.
            let flags = match scope {
                Scope::Local => self.flags.as_deref_mut(),
                Scope::Effective => None,
            };
            let (queried, result) = query(&mut self.ids, flags);
            (queried.count as usize, result.map(|()| queried))
        })?;
        let own_flags = |at: usize| match (scope, &self.flags) {
            (Scope::Local, Some(flags)) => Some(AttachFlags::from_bits_retain(flags[at])),
            _ => None,
        };
        Ok(ProgramList {
            programs: self.ids[..count]
                .iter()
                .enumerate()
                .map(|(at, &id)| AttachedProgram { id: ProgramId(id), flags: own_flags(at) })
                .collect(),
            flags: AttachFlags::from_bits_retain(queried.attach_flags),
            revision: (queried.revision != 0).then_some(queried.revision),
        })
    }
}

/// Returns the programs of one cgroup and attach type; see [`Query::ask`].
///
/// # Errors
/// Those of [`Query::ask`].
pub fn query(
    cgroup: &Cgroup,
    attach_type: AttachType,
    scope: Scope,
    program_flags: bool,
) -> Result<ProgramList> {
    Query::new(program_flags)
        .ask(cgroup.as_fd(), attach_type, scope)
        .map_err(|errno| Error::new(Call::Query, place(cgroup, attach_type), errno))
}

/// Options of a legacy attachment.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions<'a> {
    /// The flags, which also select the kind of list.
    pub flags: AttachFlags,
    /// The program to replace; used with [`AttachFlags::REPLACE`].
    pub replace: Option<BorrowedFd<'a>>,
    /// The revision that the list must still have (6.17). Older kernels answer `EINVAL`.
    pub expected_revision: Option<u64>,
}

/// Attaches a program the legacy way. The program stays attached after this process ends, until somebody detaches it or
/// the cgroup is removed.
///
/// Needs `CAP_NET_ADMIN` and `CAP_BPF`.
///
/// # Errors
/// `Full` when 64 programs are attached. `Denied` without the capabilities, when the list has other flags, or when an
/// ancestor allows no other program. `EINVAL` when this program is already attached here. `Changed` when the list has
/// another revision.
pub fn attach_with(
    program: BorrowedFd<'_>,
    cgroup: &Cgroup,
    attach_type: AttachType,
    options: &AttachOptions<'_>,
) -> Result<()> {
    let AttachOptions { flags, replace, expected_revision } = *options;
    let attached = sys::prog_attach(
        program,
        cgroup.as_fd(),
        attach_type.kernel(),
        flags.bits(),
        replace,
        expected_revision,
    );
    attached.map_err(|errno| Error::new(Call::Attach, place(cgroup, attach_type), errno))
}

/// Attaches a program as [`attach_with`] does, with no options but flags and the program to replace.
///
/// # Errors
/// Those of [`attach_with`].
pub fn attach(
    program: BorrowedFd<'_>,
    cgroup: &Cgroup,
    attach_type: AttachType,
    flags: AttachFlags,
    replace: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let options = AttachOptions { flags, replace, expected_revision: None };
    attach_with(program, cgroup, attach_type, &options)
}

/// Detaches a program that was attached the legacy way. Needs `CAP_NET_ADMIN`.
///
/// Query the list first. If it is not a MULTI list, the kernel detaches the only program there, whichever program the
/// caller names. `expected_revision` (6.17) ensures that the list has not changed since the query.
///
/// # Errors
/// `Vanished` when the program is not attached here, is attached through a link, or the cgroup was removed. `Changed`
/// when the list has another revision.
pub fn detach(
    program: BorrowedFd<'_>,
    cgroup: &Cgroup,
    attach_type: AttachType,
    expected_revision: Option<u64>,
) -> Result<()> {
    let options = DetachOptions { flags: AttachFlags::empty(), expected_revision };
    detach_with(Some(program), cgroup, attach_type, &options)
}

/// Options of a detach. The only correct flags are none.
#[derive(Debug, Clone, Copy, Default)]
pub struct DetachOptions {
    /// Flags for the call. The kernel refuses all of them with `EINVAL`; tests use the field to show that.
    pub flags: AttachFlags,
    /// The revision that the list must still have (6.17). Older kernels answer `EINVAL`.
    pub expected_revision: Option<u64>,
}

/// Detaches like [`detach`] does, with every argument of the call, including wrong ones.
///
/// Without a program, a MULTI list answers `EINVAL`; from any other list the kernel detaches the program that is there.
///
/// # Errors
/// Those of [`detach`].
pub fn detach_with(
    program: Option<BorrowedFd<'_>>,
    cgroup: &Cgroup,
    attach_type: AttachType,
    options: &DetachOptions,
) -> Result<()> {
    let DetachOptions { flags, expected_revision } = *options;
    let (target, place) = (Some(cgroup.as_fd()), place(cgroup, attach_type));
    sys::prog_detach(program, target, attach_type.kernel(), flags.bits(), expected_revision)
        .map_err(|errno| Error::new(Call::Detach, place, errno))
}

/// Names a cgroup and attach type in messages.
pub(crate) fn place(cgroup: &Cgroup, attach_type: AttachType) -> String {
    format!("{} ({attach_type})", shown(cgroup.path()))
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
