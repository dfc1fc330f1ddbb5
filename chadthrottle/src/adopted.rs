//! What is said of sockets that were open before the limit.

use bpf::adopt::Adopted;

use crate::words::warn;

/// Warns of open TCP connections that the limit polices instead of shaping them.
pub(crate) fn tell_of_open_sockets(adopted: &throttle_core::Result<Adopted>) {
    if let Ok(Adopted { untold: untold @ 1.., .. }) = adopted {
        warn(&format!(
            "the network namespaces of {untold} threads of the cgroup cannot be told (they are outside of this pid \
             namespace, or hidden): of TCP connections that are open already there, packets above the limit are dropped"
        ));
    }
    match adopted {
        Ok(Adopted { policed: 0, .. }) => {}
        Ok(Adopted { policed, .. }) => warn(&format!(
            "open TCP connections: {policed}; this kernel cannot shape them (that came with Linux 6.12): of \
             theirs, packets above the limit are dropped"
        )),
        Err(error) => warn(&format!(
            "TCP connections that are open already cannot be shaped, so packets above the limit are dropped \
             of theirs: {error}"
        )),
    }
}
