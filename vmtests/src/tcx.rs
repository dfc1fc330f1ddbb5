//! Programs on network devices, which not every kernel takes.

use std::os::fd::AsFd;

use bpf::Owner;
use bpf::link::{Link, Way};
use bpf::throttle::{Parts, load};

/// Whether this kernel can attach programs to network devices through links.
///
/// # Panics
/// When it does not say.
pub fn has_tcx() -> bool {
    bpf::probe::tcx().expect("the kernel is asked as root")
}

/// What holds where it cannot: a program of a queue does not get onto the loopback.
///
/// # Panics
/// When it does, or when it is not said why.
pub fn assert_refused() {
    let owner = Owner::this_process("test").expect("/proc is read");
    let refused = load(&owner, 0, Parts { tcp: false, queue: true }).and_then(|loaded| {
        let queue = loaded.queue.expect("it was asked for");
        Link::create_on_device(queue.redirect.as_fd(), 1, Way::Ingress)
    });
    let told = refused.expect_err("there are no such links").to_string();
    assert!(told.contains("6.6") || told.contains("EINVAL"), "{told}");
}
