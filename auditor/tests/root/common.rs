//! What the root tests share. They look at programs of their own only, so that others may work on the host
//! meanwhile: leaks have a name of ours that is this process's alone, the others are named `chadtest_...`.
#![allow(
    dead_code,
    reason = "the tests of the program include this file, and use another part of it"
)]

use std::os::fd::AsFd;
use std::path::Path;

use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, Scope, attach, query};
use kernel::{AttachType, Program, ProgramId};
use testkit::leak::{foreign_name, own_name};

pub(crate) const INGRESS: AttachType = AttachType::INET_INGRESS;
pub(crate) const EGRESS: AttachType = AttachType::INET_EGRESS;

/// What an audit says between two looks, to who wants to know how things are done.
pub(crate) const LOOKS_AGAIN: &str = "looking again in";

/// Names of this test only: the kernel keeps 15 characters.
pub(crate) struct Names {
    /// Ours.
    pub(crate) leak: String,
    /// Somebody else's.
    pub(crate) foreign: String,
}

impl Names {
    /// Unique to this process, which nextest runs one test in.
    pub(crate) fn new() -> Self {
        Self { leak: own_name(), foreign: foreign_name() }
    }
}

/// Attaches a new program, which the process does not keep open.
pub(crate) fn plant(
    cgroup: &Path,
    name: &str,
    attach_type: AttachType,
    flags: AttachFlags,
) -> ProgramId {
    testkit::leak::plant_named(name, cgroup, attach_type, flags).unwrap()
}

/// Attaches a program that stays open in this process.
pub(crate) fn hold(cgroup: &Path, name: &str, attach_type: AttachType) -> Program {
    let program = Program::load_pass(name, attach_type).unwrap();
    let cgroup = Cgroup::open(cgroup).unwrap();
    attach(program.as_fd(), &cgroup, attach_type, AttachFlags::MULTI, None).unwrap();
    program
}

/// The programs on a cgroup, in order.
pub(crate) fn attached(cgroup: &Path, attach_type: AttachType) -> Vec<ProgramId> {
    let list = query(&Cgroup::open(cgroup).unwrap(), attach_type, Scope::Local, false).unwrap();
    list.programs.into_iter().map(|program| program.id).collect()
}
