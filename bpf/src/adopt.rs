//! Sockets that are open already when their cgroup's TCP is to be shaped.
//!
//! The kernel asks the sockops program only about sockets that want it to, which they say when their
//! connection begins. Those that are open already are gone over by an iterator, which says it for them (6.12).
//! It goes over one network namespace at a time: that of the caller, and those of the processes in the cgroup.

// Generated code: neither its style nor its documentation is ours.
#[allow(warnings, unsafe_code, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/adopt.skel.rs"));
}

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use kernel::error::Call;
use kernel::{CgroupId, Error, Result, iterator, libbpf, netns};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

const WHAT: &str = "the iterator over open sockets";

/// What became of the sockets that were open already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// So many are shaped from now on.
    pub shaped: u64,
    /// So many are not, because the kernel has no means for it (before 6.12): they are policed.
    pub policed: u64,
    /// So many threads of the cgroup are outside of this pid namespace, or hidden. Sockets in network namespaces in which
    /// only such ones live were not found: they are policed, too.
    pub untold: u64,
}

/// Has the kernel ask the sockops program of a cgroup about its sockets that are open already, and those of
/// the cgroups below. Needs `CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON` and, for other network namespaces than
/// the caller's, `CAP_SYS_ADMIN`. What it does to a socket stays until that is closed, and is nothing without a program.
///
/// A socket in a network namespace in which no process of the cgroup lives (any more) is not found.
///
/// # Errors
/// When the iterator cannot be loaded (before 6.1) or run, or a namespace not be entered: then some sockets may
/// be shaped, and the others are not.
pub fn adopt(cgroup: CgroupId, path: &Path) -> Result<Adopted> {
    let fail = |error: libbpf_rs::Error| Error::of_load(Call::Iterate, WHAT, &error);
    libbpf::listen();
    let mut storage = MaybeUninit::uninit();
    let mut open = skeleton::AdoptSkelBuilder::default().open(&mut storage).map_err(fail)?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.cgroup_id = cgroup.0;
    }
    let skeleton = open.load().map_err(fail)?;
    let program = skeleton.progs.chadthrottle_adopt.as_fd();

    let (letters, untold) = netns::in_each(path, || iterator::all_printed(program, WHAT))?;
    let (shaped, policed): (Vec<u8>, Vec<u8>) =
        letters.concat().into_iter().partition(|&letter| letter == b'y');
    Ok(Adopted { shaped: shaped.len() as u64, policed: policed.len() as u64, untold })
}
