//! Programs attached to a network device: `BPF_PROG_QUERY` with a device's number.

use std::ffi::c_int;
use std::mem;

use libbpf_sys as sys;
use nix::errno::Errno;

use super::{Result, check, until_all_fit};

/// A hook of a network device with a list of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceHook {
    TcxIngress,
    TcxEgress,
    NetkitPrimary,
    NetkitPeer,
}

impl DeviceHook {
    pub(crate) const ALL: [Self; 4] =
        [Self::TcxIngress, Self::TcxEgress, Self::NetkitPrimary, Self::NetkitPeer];

    /// The hooks that devices of any kind have.
    pub(crate) const TCX: [Self; 2] = [Self::TcxIngress, Self::TcxEgress];

    /// Returns the hook's name, as bpftool prints it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TcxIngress => "tcx_ingress",
            Self::TcxEgress => "tcx_egress",
            Self::NetkitPrimary => "netkit_primary",
            Self::NetkitPeer => "netkit_peer",
        }
    }

    fn attach_type(self) -> u32 {
        match self {
            Self::TcxIngress => sys::BPF_TCX_INGRESS,
            Self::TcxEgress => sys::BPF_TCX_EGRESS,
            Self::NetkitPrimary => sys::BPF_NETKIT_PRIMARY,
            Self::NetkitPeer => sys::BPF_NETKIT_PEER,
        }
    }
}

/// Returns the programs on a device of this thread's network namespace, each with its link, or 0 without one.
pub(crate) fn query_device(device: u32, hook: DeviceHook) -> Result<Vec<(u32, u32)>> {
    let device = c_int::try_from(device).map_err(|_| Errno::ENODEV)?;
    let (count, (programs, links)) = until_all_fit(64, |room| {
        let (mut programs, mut links) = (vec![0_u32; room], vec![0_u32; room]);
        let mut options = sys::bpf_prog_query_opts {
            sz: mem::size_of::<sys::bpf_prog_query_opts>() as sys::size_t,
            prog_ids: programs.as_mut_ptr(),
            link_ids: links.as_mut_ptr(),
            ..Default::default()
        };
        options.__bindgen_anon_1.count = u32::try_from(room).unwrap_or(u32::MAX);
        // SAFETY: both buffers live across the call and have room for the number of ids that the kernel gets.
        let ret = unsafe { sys::bpf_prog_query_opts(device, hook.attach_type(), &raw mut options) };
        // SAFETY: both variants of the union are the same u32.
        let count = unsafe { options.__bindgen_anon_1.count } as usize;
        (count, check(ret).map(|_| (programs, links)))
    })?;
    Ok(programs.into_iter().zip(links).take(count).collect())
}
