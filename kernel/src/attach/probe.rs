//! Finding out what this kernel supports, without side effects.
//!
//! Each probe makes a call with an invalid descriptor. A kernel that knows the call or the field checks the descriptor
//! and answers `EBADF`. A kernel that does not know it answers `EINVAL` before.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::attach::attach_type::AttachType;
use crate::attach::list::{Query, Scope, place};
use crate::cgroup::Cgroup;
use crate::error::{Call, Error, Result};
use crate::sys::{self, DeviceHook};

/// What the kernel supports.
#[allow(clippy::struct_excessive_bools)] // Independent facts, each its own question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// `BPF_LINK_CREATE` (5.7).
    pub links: bool,
    /// `BPF_PROG_QUERY` reports the flags of each program (6.0).
    pub program_flags: bool,
    /// `BPF_PROG_DETACH` accepts the revision that the list must have (6.17).
    pub expected_revision: bool,
    /// The kernel has type information (`CONFIG_DEBUG_INFO_BTF`), needed to load the program for TCP. Every kernel that
    /// runs the packet programs has the rest.
    pub tcp: bool,
}

/// The kernel's type information.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Probes the running kernel.
///
/// # Errors
/// `Denied` when a missing capability hides the answer: without `CAP_BPF`, where unprivileged BPF is off.
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

/// Tells whether the kernel has tcx (6.6), the lists of programs on network devices. A queue for downloads needs it.
///
/// The probe takes the lock of all network devices.
///
/// # Errors
/// `Denied` without `CAP_NET_ADMIN`.
pub fn tcx() -> Result<bool> {
    knows_devices(sys::query_device(NO_DEVICE, DeviceHook::TcxIngress).map(drop))
}

/// A number that no network device has.
const NO_DEVICE: u32 = i32::MAX.unsigned_abs();

/// Reads the answer to a query on a missing device. A kernel that knows the hook then looks for the device first.
fn knows_devices(answer: std::result::Result<(), Errno>) -> Result<bool> {
    match answer {
        Err(Errno::ENODEV) => Ok(true),
        answer => knows(Call::Query, answer),
    }
}

/// Tells whether the kernel has type information (BTF).
pub fn tells_types() -> bool {
    Path::new(KERNEL_TYPES).exists()
}

/// Reads the answer to a call that cannot succeed.
fn knows(call: Call, answer: std::result::Result<(), Errno>) -> Result<bool> {
    match answer {
        Ok(()) | Err(Errno::EBADF) => Ok(true),
        Err(Errno::EINVAL | Errno::E2BIG) => Ok(false),
        // `ENOSYS` is not an answer either, because it comes from a sandbox without any `bpf(2)`.
        Err(errno) => Err(Error::of_probe(call, errno)),
    }
}

/// Returns which of these attach types the kernel knows. Probes them on an existing cgroup.
///
/// Pass [`Support::program_flags`] as `program_flags`. A kernel with this feature lists LSM programs only in queries
/// that request the flags.
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
            // The kernel does not know the attach type, so nothing can be attached there.
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
