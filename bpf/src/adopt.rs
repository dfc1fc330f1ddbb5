//! Shaping TCP sockets that were open before their cgroup's throttle was added.
//!
//! The kernel calls the sockops program only for sockets with the right callback flags, set when a connection begins.
//! For open sockets an iterator sets the flags (6.12).
//!
//! The iterator visits one network namespace at a time: the caller's, and those of the cgroup's processes.

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

/// The sockets that were open before, by what happened to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// The number of sockets that are shaped from now on.
    pub shaped: u64,
    /// The number of sockets that stay policed, because the kernel is older than 6.12.
    pub policed: u64,
    /// The number of the cgroup's threads that are hidden or outside this pid namespace. A network namespace with only
    /// such threads was not visited. Its sockets stay policed.
    pub untold: u64,
}

/// Makes the kernel call the sockops program for the open sockets of a cgroup and of its descendants.
///
/// Needs `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`. Other network namespaces than the caller's need `CAP_SYS_ADMIN`.
/// The flags stay set until a socket is closed, and have no effect without a program.
///
/// Does not find sockets in a network namespace where no process of the cgroup runs any more.
///
/// # Errors
/// When the iterator cannot be loaded (before 6.1) or run, or when a namespace cannot be entered. Some sockets may then
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
