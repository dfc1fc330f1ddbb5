//! Programs on network devices, which need a kernel with tcx (6.6).

use std::os::fd::AsFd;

use bpf::Owner;
use bpf::throttle::{Parts, load};
use kernel::link::{Link, Way};

/// Tells whether this kernel can attach programs to network devices through links.
///
/// # Panics
/// Panics if the kernel gives no answer.
pub fn has_tcx() -> bool {
    kernel::probe::tcx().expect("the kernel is asked as root")
}

/// Checks that this kernel, without tcx, refuses to attach a queue's program to the loopback.
///
/// # Panics
/// Panics if the kernel attaches it, or the error does not say why not.
pub fn assert_refused() {
    let owner = Owner::this_process("test").expect("/proc is read");
    let refused = load(&owner, 0, Parts { tcp: false, queue: true }).and_then(|loaded| {
        let queue = loaded.queue.expect("it was asked for");
        Link::create_on_device(queue.redirect.as_fd(), 1, Way::Ingress)
    });
    let told = refused.expect_err("there are no such links").to_string();
    assert!(told.contains("6.6") || told.contains("EINVAL"), "{told}");
}
