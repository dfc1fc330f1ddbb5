//! What this kernel can do, asked without side effects.
//!
//! Each question is a call with a descriptor that cannot be valid: a kernel that knows the call or the
//! field gets as far as the descriptor and answers `EBADF`, one that does not answers `EINVAL` before.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::attach::attach_type::AttachType;
use crate::attach::list::{Query, Scope, place};
use crate::cgroup::Cgroup;
use crate::error::{Call, Error, Result};
use crate::sys::{self, DeviceHook};

/// What the kernel can do.
#[allow(clippy::struct_excessive_bools)] // Independent facts, each its own question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// `BPF_LINK_CREATE` (5.7).
    pub links: bool,
    /// `BPF_PROG_QUERY` tells each program's own flags (6.0).
    pub program_flags: bool,
    /// `BPF_PROG_DETACH` takes the revision that the list is expected to have (6.17).
    pub expected_revision: bool,
    /// The kernel tells its own types (`CONFIG_DEBUG_INFO_BTF`), without which the program for TCP cannot be
    /// loaded; what else that one needs every kernel has that runs the packet programs.
    pub tcp: bool,
}

/// Where the kernel tells its types.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Asks this kernel.
///
/// # Errors
/// `Denied` when a right is missing that would tell (unprivileged BPF switched off, and no `CAP_BPF`).
pub fn support() -> Result<Support> {
    let ingress = AttachType::INET_INGRESS.kernel();
    let mut flags = [0; 1];
    Ok(Support {
        links: knows(Call::LinkCreate, sys::link_create(None, None, ingress).map(drop))?,
        program_flags: knows(
            Call::Query,
            sys::prog_query(None, ingress, 0, &mut [0; 1], Some(&mut flags)).1,
        )?,
        expected_revision: knows(Call::Detach, sys::prog_detach(None, None, ingress, 0, Some(1)))?,
        tcp: tells_types(),
    })
}

/// Whether the kernel has lists of programs on network devices (tcx, 6.6), which a queue for downloads needs. To answer it
/// takes the lock of all network devices.
///
/// # Errors
/// `Denied` without `CAP_NET_ADMIN`.
pub fn tcx() -> Result<bool> {
    knows_devices(sys::query_device(NO_DEVICE, DeviceHook::TcxIngress).map(drop))
}

/// The number of no network device.
const NO_DEVICE: u32 = i32::MAX.unsigned_abs();

/// Reads the answer to a query of a device that cannot be there: a kernel that knows the hook looks for it first.
fn knows_devices(answer: std::result::Result<(), Errno>) -> Result<bool> {
    match answer {
        Err(Errno::ENODEV) => Ok(true),
        answer => knows(Call::Query, answer),
    }
}

/// Whether the kernel tells its own types.
pub fn tells_types() -> bool {
    Path::new(KERNEL_TYPES).exists()
}

/// Reads the answer to a call that cannot succeed.
fn knows(call: Call, answer: std::result::Result<(), Errno>) -> Result<bool> {
    match answer {
        Ok(()) | Err(Errno::EBADF) => Ok(true),
        Err(Errno::EINVAL | Errno::E2BIG) => Ok(false),
        // ENOSYS as well: that is no kernel without this call, but a sandbox without any.
        Err(errno) => Err(Error::of_probe(call, errno)),
    }
}

/// Of these attach types those that the kernel knows, found out on a cgroup that exists.
///
/// `program_flags`: [`Support::program_flags`]; where the kernel has them, it tells of LSM programs only
/// to who asks for them.
///
/// # Errors
/// `Denied` without `CAP_NET_ADMIN`; `Vanished` when the cgroup is gone.
pub fn attach_types(
    cgroup: &Cgroup,
    asked: impl IntoIterator<Item = AttachType>,
    program_flags: bool,
) -> Result<Vec<AttachType>> {
    let mut query = Query::new(program_flags);
    let mut known = Vec::new();
    for attach_type in asked {
        match query.ask(cgroup.as_fd(), attach_type, Scope::Local) {
            Ok(_) => known.push(attach_type),
            // The kernel does not have it, so nothing can be attached there.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(Error::new(Call::Query, place(cgroup, attach_type), errno)),
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_must_know_to_answer_is_taken_for_support() {
        let knows = |answer| knows(Call::LinkCreate, answer);
        assert_eq!(knows(Ok(())), Ok(true));
        assert_eq!(knows(Err(Errno::EBADF)), Ok(true));
        for errno in [Errno::EINVAL, Errno::E2BIG] {
            assert_eq!(knows(Err(errno)), Ok(false), "{errno}");
        }
        assert_eq!(knows_devices(Err(Errno::ENODEV)), Ok(true));
        assert_eq!(knows_devices(Err(Errno::EINVAL)), Ok(false));
        for errno in [Errno::EPERM, Errno::ENOSYS] {
            let denied = Error::of_probe(Call::LinkCreate, errno);
            assert_eq!(knows(Err(errno)), Err(denied), "no answer is not a no");
        }
    }
}
