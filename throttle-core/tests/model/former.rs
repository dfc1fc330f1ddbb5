//! What sockets of a removed cgroup keep of a throttle that is armed again: it stays while they are open, and goes with the
//! throttle.

use bpf::ledger::RecordedAttachment;
use kernel::AttachType;
use kernel::boundary::{Links as _, Pins as _};
use sim::World;
use throttle_core::mode::Wish;

use crate::again::rearm;
use crate::common::*;

/// Sockets of the old cgroup stay limited beside the new one, and what keeps them goes when they are closed.
#[test]
fn arming_again_leaves_what_sockets_of_the_removed_cgroup_keep() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    let socket = host.kernel.open_socket(&cgroup).unwrap();
    host.kernel.remove_cgroup(&cgroup).unwrap();
    host.cgroup("a");
    assert!(rearm(&host, "1").unwrap());
    assert_eq!((host.attached(&cgroup), host.kernel.census().links.len()), (3, 6));
    assert!(!rearm(&host, "1").unwrap());
    host.settle();
    assert_eq!(host.kernel.census().links.len(), 6);
    drop(socket);
    host.settle();
    assert_eq!((host.attached(&cgroup), host.kernel.census().links.len()), (3, 3));
    host.remove_recorded("1").unwrap();
    assert!(host.is_clean());
}

/// It is armed once more on the cgroup that it is on, as somebody has taken a part of it off: what is of the removed cgroups
/// before that stays theirs.
#[test]
fn arming_it_once_more_leaves_what_sockets_of_every_cgroup_before_keep() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    let mut sockets = Vec::new();
    for kept in [3, 6] {
        sockets.push(host.kernel.open_socket(&cgroup).unwrap());
        host.kernel.remove_cgroup(&cgroup).unwrap();
        host.cgroup("a");
        assert!(rearm(&host, "1").unwrap());
        let own = |it: &&RecordedAttachment| {
            it.former_cgroup.is_none() && it.attach_type == AttachType::INET_EGRESS
        };
        let upload = host.entries()[0].attachments.iter().find(own).unwrap().pin.clone().unwrap();
        host.kernel.link_detach(&host.kernel.link_open_pinned(&upload).unwrap()).unwrap();
        assert!(rearm(&host, "1").unwrap());
        let links = host.kernel.census().links.len();
        assert_eq!((host.attached(&cgroup), links), (3, 3 + kept));
    }
    drop(sockets);
    host.settle();
    assert_eq!((host.attached(&cgroup), host.kernel.census().links.len()), (3, 3));
    host.remove_recorded("1").unwrap();
    assert!(host.is_clean());
}

/// An owner that has not let go of it removes it as a whole, whatever others' starts have let go of meanwhile.
#[test]
fn its_owner_removes_all_of_what_was_armed_again() {
    for is_closed in [false, true] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, Wish::Pinned);
        let mut socket = Some(host.kernel.open_socket(&cgroup).unwrap());
        host.kernel.remove_cgroup(&cgroup).unwrap();
        host.cgroup("a");
        let mut engine = host.process().start();
        let id = engine.rearm("1").unwrap().unwrap().started.id;
        if is_closed {
            socket = None;
            host.settle();
            assert_eq!(host.entries()[0].attachments.len(), 3);
        }
        engine.remove(id).unwrap();
        assert!(host.is_clean(), "closed: {is_closed}");
        drop(socket);
    }
}

#[test]
fn removing_it_ends_also_what_sockets_of_the_removed_cgroup_keep() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    let _socket = host.kernel.open_socket(&cgroup).unwrap();
    host.kernel.remove_cgroup(&cgroup).unwrap();
    host.cgroup("a");
    assert!(rearm(&host, "1").unwrap());
    host.remove_recorded("1").unwrap();
    assert!(host.is_clean());
}
