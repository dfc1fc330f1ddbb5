//! Plants the leaks of the historical throttle.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use bpf::Owner;
use bpf::ThrottleProgram;
use bpf::throttle::{Parts, load};
use kernel::cgroup::Cgroup;
use kernel::list::{self, AttachFlags};
use kernel::{AttachType, Program, ProgramId, objects};

/// Leaks a program like the historical throttle. The program does nothing and has the throttle's name. It is attached
/// without a link, with `BPF_F_ALLOW_MULTI`, and then closed. It stays until somebody detaches it or removes the
/// cgroup.
///
/// # Errors
/// Returns errors of the kernel.
pub fn plant(cgroup: &Path, attach_type: AttachType) -> kernel::Result<ProgramId> {
    let name = if attach_type == AttachType::INET_INGRESS {
        "chadthrottle_ingress"
    } else {
        "chadthrottle_egress"
    };
    plant_named(name, cgroup, attach_type, AttachFlags::MULTI)
}

/// Loads a throttle's program that names no owner, like one that leaks before its owner is written.
///
/// # Errors
/// Returns errors of the kernel.
pub fn load_nameless() -> kernel::Result<ThrottleProgram> {
    let nobody = Owner { pid: 0, ..Owner::this_process("test")? };
    load(&nobody, 0, Parts::default()).map(|loaded| loaded.ingress)
}

/// Returns a name that counts as ours, the same on each call. The auditor recognizes a program without metadata and
/// record by its name only.
///
/// The kernel keeps 15 characters, so only three are left for the pid. Pids that differ by a multiple of 238,328 would
/// share a name. So it picks a name that no program has at the first call.
///
/// # Panics
/// Panics if the kernel does not list its programs, which needs root.
pub fn own_name() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    let choose = || {
        let taken = names().expect("the kernel tells its programs; run as root");
        first_free(std::process::id(), |name| taken.contains(name))
    };
    NAME.get_or_init(choose).clone()
}

/// Returns a name that does not count as ours. No other process of this pid namespace uses it.
pub fn foreign_name() -> String {
    // 62⁴ is more than the kernel's highest pid.
    format!("chadtest_f{}", digits(std::process::id(), 4))
}

fn first_free(pid: u32, is_taken: impl Fn(&str) -> bool) -> String {
    let name = |number| format!("chadthrottle{}", digits(number, 3));
    let mut all = (0..62_u32.pow(3)).map(|more| name(pid.wrapping_add(more)));
    all.find(|name| !is_taken(name)).expect("the kernel has not so many programs")
}

/// Returns the last digits of a number in base 62, the lowest first.
fn digits(mut number: u32, count: u32) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut digit = || {
        let digit = DIGITS[number as usize % DIGITS.len()];
        number /= 62;
        char::from(digit)
    };
    (0..count).map(|_| digit()).collect()
}

/// Returns the names of all programs.
fn names() -> kernel::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for id in objects::program_ids()? {
        names.extend(objects::program(id)?.map(|program| program.info().name.clone()));
    }
    Ok(names)
}

/// Leaks a program with any name and any flags.
///
/// # Errors
/// Returns errors of the kernel.
pub fn plant_named(
    name: &str,
    cgroup: &Path,
    attach_type: AttachType,
    flags: AttachFlags,
) -> kernel::Result<ProgramId> {
    let program = Program::load_pass(name, attach_type)?;
    list::attach(program.as_fd(), &Cgroup::open(cgroup)?, attach_type, flags, None)?;
    Ok(program.info().id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_program_has_is_left_alone() {
        // These two pids have the same last three digits.
        let first = first_free(7, |_| false);
        assert_eq!(
            (first.as_str(), first_free(7 + 238_328, |_| false)),
            ("chadthrottle700", first.clone())
        );
        assert_ne!(first_free(7 + 238_328, |name| name == first), first);
        // Four digits identify every pid, from the highest to the lowest.
        assert_eq!((digits(1 << 22, 4).len(), digits(0, 4).as_str()), (4, "0000"));
        const { assert!(62_u32.pow(4) > 1 << 22) };
    }

    #[test]
    fn root_a_name_of_ours_stays_the_same_when_a_program_has_it() {
        let name = own_name();
        let program = Program::load_pass(&name, AttachType::INET_INGRESS).unwrap();
        assert_eq!((own_name(), &program.info().name), (name.clone(), &name));
        assert!(names().unwrap().contains(&name));
    }
}
