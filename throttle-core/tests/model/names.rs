//! Names that somebody else has: of a record in the ledger, of a pin.

use std::path::{Path, PathBuf};

use kernel::AttachType;
use kernel::boundary::{Cgroups as _, Links as _, Pins as _};
use sim::World;
use sim::{Model, ModelLink};
use throttle_core::mode::Wish;
use throttle_core::{Error, Spec};
use vmtests::sequences::step::{Fault, Mishap};

use crate::common::*;

const EGRESS: AttachType = AttachType::INET_EGRESS;

fn upload(cgroup: &Path) -> Spec {
    Spec { download: None, ..spec(cgroup, Wish::Pinned) }
}

/// Somebody else's link on that cgroup, pinned there.
fn pin_theirs(kernel: &Model, cgroup: &Path, pin: &Path) -> ModelLink {
    let program = kernel.load_pass("theirs", EGRESS).unwrap();
    let open = kernel.open_cgroup(cgroup).unwrap();
    let link = kernel.link_create(&program, &open, EGRESS).unwrap();
    kernel.link_pin(&link, pin).unwrap();
    link
}

fn is_pinned(kernel: &Model, link: &ModelLink, pin: &Path) -> bool {
    kernel.link_open_pinned(pin).is_ok_and(|found| kernel.link_id(&found) == kernel.link_id(link))
}

/// Where the programs of the first entry are pinned.
fn pins(host: &Host) -> Vec<PathBuf> {
    host.entries()[0].attachments.iter().map(|it| it.pin.clone().unwrap()).collect()
}

/// Somebody has removed the first one by its name, and the second one of the same owner has that now.
#[test]
fn a_name_that_an_owner_has_given_to_its_next_throttle_is_that_ones() {
    for same_cgroup in [true, false] {
        let host = Host::boot();
        let (one, two) = (host.cgroup("a"), host.cgroup("b"));
        let mut engine = host.process().start();
        let first = engine.add(&spec(&one, Wish::Pinned)).unwrap().id;
        host.remove_recorded("1").unwrap();
        let cgroup = if same_cgroup { one } else { two };
        let second = engine.add(&spec(&cgroup, Wish::Pinned)).unwrap();
        assert_eq!(second.name.as_deref(), Some("1"));
        let before = host.entries();
        engine.remove(first).unwrap();
        assert_eq!((host.entries(), host.attached(&cgroup)), (before, 3), "{same_cgroup}");
        engine.remove(second.id).unwrap();
        assert!(host.is_clean(), "{same_cgroup}");
    }
}

/// Somebody has removed its record, and perhaps somebody else has its name: it waits under another one, and is not kept.
#[test]
fn a_throttle_that_begins_to_wait_does_not_write_over_anothers_record() {
    for is_taken in [true, false] {
        for is_killed in [true, false] {
            let host = Host::boot();
            let (one, two) = (host.cgroup("a"), host.cgroup("b"));
            let process = host.process();
            let mut engine = process.start();
            let id = engine.add(&spec(&one, Wish::Pinned)).unwrap().id;
            host.remove_recorded("1").unwrap();
            if is_taken {
                host.crash(&two, Wish::Pinned);
            }
            let others = host.entries();
            host.kernel.remove_cgroup(&one).unwrap();
            assert!(!engine.wait_for_cgroup(id).unwrap());
            let entries = host.entries();
            assert_eq!(entries[..others.len()], others);
            let [waiting] = &entries[others.len()..] else { panic!("{entries:?}") };
            assert!(waiting.waiting && waiting.cgroup_path == one, "{waiting:?}");
            assert_eq!(waiting.throttle, if is_taken { "2" } else { "1" });
            assert!(!engine.wait_for_cgroup(id).unwrap());
            assert_removed(&host.settle(), &[]);
            assert_eq!(host.entries(), entries);
            if is_killed {
                process.kill(engine);
                assert_forgotten(&host.settle(), &[&waiting.throttle]);
            } else {
                engine.remove(id).unwrap();
            }
            assert_eq!(host.entries(), others);
            assert_eq!(host.attached(&two), if is_taken { 3 } else { 0 });
        }
    }
}

/// Nobody knows whose they are.
#[test]
fn a_number_that_has_pins_and_no_record_is_not_a_new_throttles_name() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    host.crash(&one, Wish::Pinned);
    let left = pins(&host);
    let ledger = host.ledger();
    ledger.remove(&ledger.path("1")).unwrap();
    let mut engine = host.process().start();
    for wish in [Wish::Pinned, Wish::Legacy] {
        let added = engine.add(&spec(&two, wish)).unwrap();
        assert_eq!(added.name.as_deref(), Some("2"), "{wish:?}");
        engine.remove(added.id).unwrap();
    }
    assert_eq!(host.attached(&one), 3);
    assert!(left.iter().all(|pin| host.kernel.pin_exists(pin)));
}

/// The links of the cgroup that had the path are pinned under the first names as long as its sockets are open.
#[test]
fn a_throttle_that_is_armed_again_has_pins_beside_its_former_ones() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    host.crash(&cgroup, Wish::Pinned);
    let former = pins(&host);
    let sockets = [(); 2].map(|()| {
        let socket = host.kernel.open_socket(&cgroup).unwrap();
        host.kernel.remove_cgroup(&cgroup).unwrap();
        host.cgroup("a");
        let mut engine = host.process().start();
        let rearmed = engine.rearm("1").unwrap().unwrap();
        engine.release(rearmed.started.id).unwrap();
        socket
    });
    let all = pins(&host);
    assert_eq!(all.len(), 9);
    let ends = |pin: &PathBuf, name: &str| pin.ends_with(Path::new("1").join(name));
    assert!(ends(&all[0], "download-3") && ends(&all[3], "download-2"), "{all:?}");
    assert_eq!(all[6..], former);
    assert!(all.iter().all(|pin| host.kernel.link_open_pinned(pin).is_ok()));
    drop(sockets);
    host.settle();
    assert_eq!(pins(&host), all[..3]);
    host.remove_recorded("1").unwrap();
    assert!(host.is_clean());
}

/// Somebody pins a link of theirs there after any call: it stays theirs, and the throttle comes to be whole or not at all.
#[test]
fn a_pin_that_somebody_makes_first_stays_theirs() {
    let (mut refused, mut nth) = (0, 1);
    loop {
        let host = Host::boot();
        let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
        let pin = PathBuf::from("/sys/fs/bpf/chadthrottle/1/upload");
        let (kernel, at, path) = (host.kernel.clone(), other.clone(), pin.clone());
        // What pins the link is its only holder; or nobody, where ours came first.
        let process = host.process_with(move || {
            if !kernel.pin_exists(&path) {
                drop(pin_theirs(&kernel, &at, &path));
            }
        });
        let mut engine = process.start();
        process.control.plan(Some(Fault { nth, mishap: Mishap::DieAfter }));
        let added = engine.add(&upload(&cgroup));
        let struck = process.control.struck();
        process.control.plan(None);
        let theirs = host.attached(&other) == 1;
        match added {
            Ok(started) => {
                assert_eq!(host.attached(&cgroup), 2, "call {nth}");
                engine.remove(started.id).unwrap();
            }
            Err(error) => {
                assert!(matches!(error, Error::Kernel(_)) && theirs, "call {nth}: {error}");
                refused += 1;
            }
        }
        assert_eq!((host.attached(&cgroup), host.entries().len()), (0, 0), "call {nth}");
        assert_eq!((host.kernel.pin_exists(&pin), host.loaded()), (theirs, 0), "call {nth}");
        if !struck {
            break;
        }
        nth += 1;
    }
    assert!(refused > 2 && nth > 10, "{refused} {nth}");
}

/// Somebody has pinned theirs in place of ours, which is detached all the same.
#[test]
fn a_pin_that_is_anothers_by_now_is_left_by_whoever_removes_the_throttle() {
    for by_name in [true, false] {
        let host = Host::boot();
        let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
        let process = host.process();
        let mut engine = process.start();
        let id = engine.add(&upload(&cgroup)).unwrap().id;
        let pin = pins(&host).remove(0);
        host.kernel.unpin(&pin).unwrap();
        let theirs = pin_theirs(&host.kernel, &other, &pin);
        if by_name {
            // Its owner lives and holds the link.
            host.remove_recorded("1").unwrap_err();
            assert!(is_pinned(&host.kernel, &theirs, &pin));
        }
        engine.remove(id).unwrap();
        assert!(is_pinned(&host.kernel, &theirs, &pin));
        assert_eq!((host.attached(&cgroup), host.attached(&other)), (0, 1));
        assert!(host.entries().is_empty());
    }
}
