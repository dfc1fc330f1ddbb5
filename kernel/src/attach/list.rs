//! The programs attached to a cgroup: `BPF_PROG_QUERY`, attaching and detaching.

use std::os::fd::{AsFd, BorrowedFd};

use bitflags::bitflags;
use nix::errno::Errno;

use crate::attach::attach_type::AttachType;
use crate::cgroup::{Cgroup, shown};
use crate::error::{Call, Error, Result};
use crate::object::ids::ProgramId;
use crate::sys::{self, Queried};

/// The kernel's limit for one (cgroup, attach type): `BPF_CGROUP_MAX_PROGS`.
pub const MAX_PROGRAMS: usize = 64;

bitflags! {
    /// Flags of an attachment or of a list.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct AttachFlags: u32 {
        /// `BPF_F_ALLOW_OVERRIDE`: a descendant's program runs in its place.
        const OVERRIDE = 1 << 0;
        /// `BPF_F_ALLOW_MULTI`: other programs may join, and descendants' run too.
        const MULTI = 1 << 1;
        /// `BPF_F_REPLACE` (5.5): take the place of another program.
        const REPLACE = 1 << 2;
        /// `BPF_F_PREORDER` (6.15): run ancestors' programs first.
        const PREORDER = 1 << 6;
        const _ = !0;
    }
}

/// Which programs a query is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those attached to the cgroup itself.
    Local,
    /// Those that run for it, in order, ancestors' included.
    Effective,
}

/// One program of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Which.
    pub id: ProgramId,
    /// Its flags, for local queries on 6.0 and newer: those of its list (for LSM lists the only way to learn
    /// them). The kernel does not keep [`AttachFlags::PREORDER`] there.
    pub flags: Option<AttachFlags>,
}

/// What a query answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgramList {
    /// The programs, in the order in which they run.
    pub programs: Vec<AttachedProgram>,
    /// The list's flags; empty in an effective query.
    pub flags: AttachFlags,
    /// Counts up with every change; 6.17 and newer. A detach can ask that it is still the same.
    pub revision: Option<u64>,
}

impl ProgramList {
    /// How many times a program is in it (a link and a legacy attachment count as two).
    pub fn count(&self, id: ProgramId) -> usize {
        self.programs.iter().filter(|program| program.id == id).count()
    }
}

/// Buffers for queries, so that asking 10,000 cgroups allocates once.
#[derive(Debug)]
pub struct Query {
    ids: Vec<u32>,
    flags: Option<Vec<u32>>,
}

impl Query {
    /// `program_flags`: whether the kernel can tell each program's own flags
    /// ([`crate::attach::probe::Support::program_flags`]); asking an older one is `EINVAL`.
    pub fn new(program_flags: bool) -> Self {
        Self { ids: vec![0; MAX_PROGRAMS], flags: program_flags.then(|| vec![0; MAX_PROGRAMS]) }
    }

    /// Whether it asks for each program's own flags.
    pub fn tells_program_flags(&self) -> bool {
        self.flags.is_some()
    }

    /// Asks one cgroup for one attach type. The answer for an empty list, by far the most common one,
    /// costs one system call and no allocation.
    ///
    /// Needs `CAP_NET_ADMIN`. Nothing is left behind.
    ///
    /// # Errors
    /// `Denied` without the right; `Vanished` when the cgroup was removed; `EINVAL` when the kernel does
    /// not know the attach type.
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

    /// `query` fills the buffers, as far as they go.
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
            // The kernel refuses to tell single programs' flags in an effective query.
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

/// The programs of one cgroup and attach type; see [`Query::ask`].
///
/// # Errors
/// As [`Query::ask`].
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

/// What a legacy attachment asks for beside the place.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions<'a> {
    /// The kind of list, and how to join it.
    pub flags: AttachFlags,
    /// With [`AttachFlags::REPLACE`]: whose place to take.
    pub replace: Option<BorrowedFd<'a>>,
    /// Fail unless the list still has this revision (6.17; older kernels answer `EINVAL`).
    pub expected_revision: Option<u64>,
}

/// Attaches a program the legacy way: it stays attached whatever becomes of this process, until it is
/// detached or the cgroup goes. Needs `CAP_NET_ADMIN` (and `CAP_BPF`).
///
/// # Errors
/// `Full` when 64 are attached already; `Denied` without the right, or when the list has other flags or
/// an ancestor allows no other program; `EINVAL` when this program is attached here already; `Changed` when
/// the revision is another one.
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

/// [`attach_with`] flags and the program to replace alone.
///
/// # Errors
/// As [`attach_with`].
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

/// Takes off a program that was attached the legacy way. Needs `CAP_NET_ADMIN`.
///
/// Look at the list first: where it is not of the MULTI kind the kernel takes off whatever program is
/// there, whichever one is named. With `expected_revision` (6.17) that look cannot be out of date.
///
/// # Errors
/// `Vanished` when that program is not attached here, or is attached through a link, or the cgroup is
/// gone; `Changed` when the revision is another one.
pub fn detach(
    program: BorrowedFd<'_>,
    cgroup: &Cgroup,
    attach_type: AttachType,
    expected_revision: Option<u64>,
) -> Result<()> {
    let options = DetachOptions { flags: AttachFlags::empty(), expected_revision };
    detach_with(Some(program), cgroup, attach_type, &options)
}

/// What a detach can be asked beside the place. Right is only no flags at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct DetachOptions {
    /// The kernel refuses any (`EINVAL`): here so that it can be shown to.
    pub flags: AttachFlags,
    /// Fail unless the list still has this revision (6.17; older kernels answer `EINVAL`).
    pub expected_revision: Option<u64>,
}

/// [`detach`] with everything that the call takes, also what it should not be given: no program (where the
/// list is of the MULTI kind that is `EINVAL`, anywhere else it takes off what is there), and flags.
///
/// # Errors
/// As [`detach`].
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

/// A place for messages.
pub(crate) fn place(cgroup: &Cgroup, attach_type: AttachType) -> String {
    format!("{} ({attach_type})", shown(cgroup.path()))
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
