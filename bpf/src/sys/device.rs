//! What is attached to a network device: `BPF_PROG_QUERY` with a device's number.

use std::ffi::c_int;
use std::mem;

use libbpf_sys as sys;
use nix::errno::Errno;

use super::{Result, check};

/// Where on a network device programs are attached in a list.
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

    /// Those of devices of any kind.
    pub(crate) const TCX: [Self; 2] = [Self::TcxIngress, Self::TcxEgress];

    /// Its name, as bpftool has it.
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

/// The programs there with their links, 0 for one without, of a device of this thread's network namespace.
pub(crate) fn query_device(device: u32, hook: DeviceHook) -> Result<Vec<(u32, u32)>> {
    let device = c_int::try_from(device).map_err(|_| Errno::ENODEV)?;
    whole(|programs, links| {
        let room = programs.len().min(links.len());
        let mut options = sys::bpf_prog_query_opts {
            sz: mem::size_of::<sys::bpf_prog_query_opts>() as sys::size_t,
            prog_ids: programs.as_mut_ptr(),
            link_ids: links.as_mut_ptr(),
            ..Default::default()
        };
        options.__bindgen_anon_1.count = u32::try_from(room).map_err(|_| Errno::E2BIG)?;
        // SAFETY: both buffers live across the call and have room for as many ids as the kernel is told.
        let ret = unsafe { sys::bpf_prog_query_opts(device, hook.attach_type(), &raw mut options) };
        // SAFETY: both variants of the union are the same u32.
        let count = unsafe { options.__bindgen_anon_1.count } as usize;
        match check(ret) {
            Ok(_) => Ok(count),
            Err(Errno::ENOSPC) if count > room => Ok(count),
            Err(errno) => Err(errno),
        }
    })
}

/// Asks until there was room for the whole answer. `query` fills both buffers, and tells how many there are.
fn whole(
    mut query: impl FnMut(&mut [u32], &mut [u32]) -> Result<usize>,
) -> Result<Vec<(u32, u32)>> {
    let (mut programs, mut links) = (vec![0; 64], vec![0; 64]);
    loop {
        let count = query(&mut programs, &mut links)?;
        if count <= programs.len() {
            programs.truncate(count);
            return Ok(programs.into_iter().zip(links).collect());
        }
        programs.resize(count, 0);
        links.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_grows_while_it_is_asked_for_is_told_whole_with_each_link() {
        let mut lists = vec![1_000..1_064_u32, 2_000..2_200, 0..65];
        let mut room = Vec::new();
        let mut query = |programs: &mut [u32], links: &mut [u32]| {
            room.push((programs.len(), links.len()));
            let list = lists.pop().unwrap();
            programs.iter_mut().zip(list.clone()).for_each(|(to, id)| *to = id);
            links.iter_mut().zip(list.clone()).for_each(|(to, id)| *to = id + 7);
            Ok(list.len())
        };
        let expected: Vec<_> = (1_000..1_064).map(|id| (id, id + 7)).collect();
        assert_eq!(whole(&mut query), Ok(expected));
        assert_eq!(room, [(64, 64), (65, 65), (200, 200)]);
    }

    #[test]
    fn an_error_is_no_list_also_when_the_list_has_grown() {
        let mut answers = vec![Err(Errno::ENODEV), Ok(65)];
        assert_eq!(whole(|_, _| answers.pop().unwrap()), Err(Errno::ENODEV));
    }
}
