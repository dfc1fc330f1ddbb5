//! The historical leak, made on purpose.

use std::os::fd::AsFd;
use std::path::Path;

use bpf::cgroup::Cgroup;
use bpf::list::{self, AttachFlags};
use bpf::program::Program;
use bpf::{AttachType, ProgramId};

/// Attaches a program that does nothing, named as the historical throttle named its own, the way it did:
/// legacy, with `BPF_F_ALLOW_MULTI`, and forgotten. It stays until somebody detaches it or the cgroup
/// goes.
///
/// # Errors
/// Those of the kernel.
pub fn plant(cgroup: &Path, attach_type: AttachType) -> bpf::Result<ProgramId> {
    let name = if attach_type == AttachType::INET_INGRESS {
        "chadthrottle_ingress"
    } else {
        "chadthrottle_egress"
    };
    plant_named(name, cgroup, attach_type, AttachFlags::MULTI)
}

/// A name that counts as ours, and that no other process uses: what has neither metadata nor a record is judged
/// only if it is named as ours is.
pub fn own_name() -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = std::process::id() as usize;
    let mut name = "chadthrottle".to_owned();
    // The kernel keeps 15 characters.
    for _ in 0..3 {
        name.push(char::from(DIGITS[rest % DIGITS.len()]));
        rest /= DIGITS.len();
    }
    name
}

/// The same under any name and with any flags.
///
/// # Errors
/// Those of the kernel.
pub fn plant_named(
    name: &str,
    cgroup: &Path,
    attach_type: AttachType,
    flags: AttachFlags,
) -> bpf::Result<ProgramId> {
    let program = Program::load_pass(name, attach_type)?;
    list::attach(program.as_fd(), &Cgroup::open(cgroup)?, attach_type, flags, None)?;
    Ok(program.info().id)
}
