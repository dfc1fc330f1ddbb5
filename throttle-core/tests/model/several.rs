//! Of several parts of a throttle each one counts, wherever it stands in its record.

use bpf::ledger::RecordedLimits;
use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::list::AttachFlags;
use kernel::{AttachType, CgroupId};
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::{Error, spec_of};

use crate::common::*;
use crate::neighbours::plant;

/// Takes the nth program of the first entry off its cgroup, as somebody else would.
fn detach(host: &Host, nth: usize) {
    let entry = host.entries().swap_remove(0);
    let cgroup = host.kernel.open_cgroup(&entry.cgroup_path).unwrap();
    let recorded = &entry.attachments[nth];
    let program = host.kernel.open_program(recorded.program_id).unwrap();
    host.kernel.detach(&program, &cgroup, recorded.attach_type, None).unwrap();
}

#[test]
fn a_throttle_of_which_any_program_was_left_is_said_to_be_removed() {
    for left in 0..PLACES.len() {
        for by_name in [true, false] {
            let host = Host::boot();
            let cgroup = host.cgroup("a");
            host.crash(&cgroup, Wish::Legacy);
            (0..PLACES.len()).filter(|nth| *nth != left).for_each(|nth| detach(&host, nth));
            assert_eq!(host.attached(&cgroup), 1);
            if by_name {
                assert!(!host.remove_recorded("1").unwrap().was_only_record, "{left}");
            } else {
                assert_removed(&host.settle(), &["1"]);
            }
            assert!(host.is_clean(), "{left}");
        }
    }
}

#[test]
fn a_record_of_which_any_program_exists_stays_its_owners() {
    for left in 0..PLACES.len() {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, Wish::Legacy);
        host.edit(|entry| {
            entry.owner.pid_namespace += 1;
            let others = entry.attachments.iter_mut().enumerate();
            others.filter(|(nth, _)| *nth != left).for_each(|(_, it)| it.loaded_at_ns += 1);
        });
        let before = host.entries();
        let error = host.remove_recorded("1").unwrap_err();
        assert!(matches!(error, Error::OwnerUnknown { .. }), "{left}: {error}");
        assert_removed(&host.settle(), &[]);
        assert_eq!((host.entries(), host.attached(&cgroup)), (before, 3), "{left}");
    }
}

#[test]
fn a_throttle_of_which_any_pin_is_out_of_sight_is_left_as_it_is() {
    for hidden in 0..PLACES.len() {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        host.crash(&cgroup, Wish::Pinned);
        host.edit(|entry| entry.attachments[hidden].pin = Some("/sys/fs/bpf/nowhere/x".into()));
        let before = host.entries();
        let error = host.remove_recorded("1").unwrap_err();
        assert!(matches!(error, Error::PinOutOfSight { .. }), "{hidden}: {error}");
        assert!(host.process().start().rearm("1").unwrap().is_none(), "{hidden}: it is armed");
        assert_removed(&host.settle(), &[]);
        assert_eq!((host.entries(), host.attached(&cgroup)), (before, 3), "{hidden}");
    }
}

#[test]
fn everybody_whose_program_would_go_out_of_force_is_named() {
    let host = Host::boot();
    let above = host.cgroup("a");
    let cgroup = host.cgroup("a/b");
    let firewalls =
        PLACES.map(|place| plant(&host.kernel, &above, place, AttachFlags::OVERRIDE).id());
    let error = host.process().start().add(&spec(&cgroup, Wish::Link)).unwrap_err();
    let told = error.to_string();
    for id in firewalls {
        assert!(told.contains(&format!("program {id} ")), "{id}: {told}");
    }
}

/// What is recorded of the cgroup that had the path before is no part of what was asked for.
#[test]
fn what_was_asked_for_is_what_a_throttle_is_now_and_not_what_it_was() {
    let host = Host::boot();
    host.crash(&host.cgroup("a"), Wish::Pinned);
    let whole = host.entries().swap_remove(0);
    let former = whole.attachments.iter().cloned().map(|mut it| {
        it.former_cgroup = Some(CgroupId(77));
        it.limits = it.limits.map(|limits| RecordedLimits { rate: rate(5_000), ..limits });
        it
    });
    let former: Vec<_> = former.collect();
    let asked = |own: &[AttachType], former_first: bool| {
        let mut entry = whole.clone();
        entry.attachments.retain(|it| own.contains(&it.attach_type));
        let at = if former_first { 0 } else { entry.attachments.len() };
        entry.attachments.splice(at..at, former.clone());
        spec_of(&entry)
    };
    let [download, upload, tcp] = PLACES;
    for former_first in [true, false] {
        let spec = asked(&PLACES, former_first).unwrap();
        assert_eq!((spec.download, spec.upload), (Some(rate(1_000_000)), Some(rate(2_000_000))));
        assert_eq!(spec.tcp, TcpWish::Auto);
        let spec = asked(&[download], former_first).unwrap();
        assert_eq!((spec.download, spec.upload), (Some(rate(1_000_000)), None));
        assert_eq!(spec.tcp, TcpWish::Police);
        let spec = asked(&[upload, tcp], former_first).unwrap();
        assert_eq!((spec.download, spec.upload), (None, Some(rate(2_000_000))));
        assert!(asked(&[tcp], former_first).is_none() && asked(&[], former_first).is_none());
    }
}

/// Only what is sent can wait in `fq`.
#[test]
fn the_devices_with_fq_are_those_of_the_upload_whatever_is_limited_beside_it() {
    let host = Host::boot();
    host.crash(&host.cgroup("a"), Wish::Pinned);
    let whole = host.entries().swap_remove(0);
    let asked = |of_download: &[u32], of_upload: &[u32]| -> Vec<u32> {
        let mut entry = whole.clone();
        for (at, devices) in [(PLACES[0], of_download), (PLACES[1], of_upload)] {
            let mut own = entry.attachments.iter_mut();
            let recorded = own.find(|it| it.attach_type == at).unwrap();
            recorded.limits.as_mut().unwrap().fq_devices = devices.to_vec();
        }
        spec_of(&entry).unwrap().departures.numbers().collect()
    };
    assert_eq!(asked(&[], &[2, 5]), [2, 5]);
    assert_eq!(asked(&[7], &[2]), [2]);
    assert_eq!(asked(&[7], &[]), [0; 0]);
}
