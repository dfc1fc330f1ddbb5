//! Throttles whose downloads wait in a queue: its device goes last, and never before what sends packets there.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use sim::Version;
use sim::World;
use throttle_core::mode::{Mode, Refusal, Wish};
use throttle_core::{Change, Error, Health, Spec};
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;
use crate::mishaps::{LINK, name, of_all, told};

const EPERM: Mishap = Mishap::Fail(Fail::EPERM);

fn queued(cgroup: &Path) -> Spec {
    Spec { queue: true, ..spec(cgroup, Wish::Link) }
}

/// The owners of all devices.
fn owners(host: &Host) -> Vec<u32> {
    host.kernel.queue_devices().into_iter().map(|(_, owner)| owner.pid).collect()
}

fn device(host: &Host) -> u32 {
    let [(device, _)] = host.kernel.queue_devices()[..] else { panic!("one device") };
    device
}

#[test]
fn a_queue_comes_and_goes_with_its_throttle() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    let started = engine.add(&queued(&cgroup)).unwrap();
    assert_eq!((started.mode, owners(&host)), (Mode::Link, vec![process.config.owner.pid]));
    // Two programs more than without one.
    assert_eq!((host.attached(&cgroup), host.loaded()), (3, 5));
    assert!(!engine.close_broken_queue(started.id).unwrap());
    let faster = Change { download: Some(rate(7_000_000)), ..Change::default() };
    engine.change(started.id, &faster).unwrap();
    assert_eq!(owners(&host).len(), 1, "a change closes nothing");
    assert_eq!(engine.remove(started.id).unwrap().directions.len(), 2);
    assert!(host.is_clean());
}

#[test]
fn only_downloads_of_a_throttle_that_goes_with_its_process_have_a_queue() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    for wish in [Wish::Pinned, Wish::Legacy] {
        let refused = engine.add(&Spec { queue: true, ..spec(&cgroup, wish) }).unwrap_err();
        assert!(matches!(refused, Error::Mode(Refusal::QueueNeedsLink)), "{refused}");
        assert!(host.is_clean());
    }
    let upload = engine.add(&Spec { download: None, ..queued(&cgroup) }).unwrap().id;
    assert_eq!((owners(&host), host.loaded()), (vec![], 3));
    assert!(!engine.close_broken_queue(upload).unwrap());
    let download = engine.add(&Spec { upload: None, ..queued(&cgroup) }).unwrap().id;
    assert_eq!(owners(&host).len(), 1);
    engine.remove(download).unwrap();
    engine.remove(upload).unwrap();
    assert!(host.is_clean());
}

#[test]
fn a_kernel_that_has_no_queues_is_left_as_it_was() {
    let host = Host::boot_as(Version::new(6, 5));
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let refused = engine.add(&queued(&cgroup)).unwrap_err();
    assert!(matches!(refused, Error::Kernel(_)), "{refused}");
    assert!(host.is_clean() && engine.list().is_empty());
    assert_eq!(host.attached(&cgroup), 0);
}

/// The programs of a queue are told of one cgroup and one device.
#[test]
fn each_queue_has_a_load_of_its_own_and_they_go_one_by_one() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("a/b"));
    let mut engine = host.process().start();
    let ids = [&one, &two, &one].map(|cgroup| engine.add(&queued(cgroup)).unwrap().id);
    assert_eq!((owners(&host).len(), host.loaded()), (3, 3 * 5));
    // Nor is one shared with who has none.
    let plain = engine.add(&spec(&host.cgroup("c"), Wish::Link)).unwrap().id;
    let last = engine.add(&queued(&host.cgroup("d"))).unwrap().id;
    assert_eq!(host.loaded(), 4 * 5 + 3);
    let devices = host.kernel.queue_devices();
    engine.remove(ids[1]).unwrap();
    assert_eq!((host.attached(&one), host.attached(&two)), (6, 0));
    let left: Vec<_> = host.kernel.queue_devices().into_iter().map(|(device, _)| device).collect();
    assert_eq!(left, [0, 2, 3].map(|nth| devices[nth].0));
    assert!(!engine.close_broken_queue(ids[0]).unwrap());
    for id in [ids[0], ids[2], plain, last] {
        engine.remove(id).unwrap();
    }
    assert!(host.is_clean());
}

/// Where a program stays on the cgroup, so does what its packets go through.
#[test]
fn whichever_call_of_a_removal_fails_the_device_stays_as_long_as_the_limit() {
    let calls = told(Fail::EPERM, |fault| {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let process = host.process();
        let mut engine = process.start();
        let id = engine.add(&queued(&cgroup)).unwrap().id;
        process.control.plan(Some(fault));
        let error = engine.remove(id).err();
        let struck = process.control.struck();
        process.control.plan(None);
        if error.is_some() {
            assert_eq!((owners(&host).len(), engine.list().len()), (1, 1), "it can be tried again");
            engine.remove(id).unwrap();
        }
        assert!(host.is_clean() && engine.list().is_empty());
        struck.then_some(error)
    });
    assert_eq!(calls, [&of_all(&LINK)[..], &["rtnetlink"]].concat());
}

#[test]
fn whichever_call_of_an_addition_fails_nothing_is_left() {
    let calls = told(Fail::EPERM, |fault| {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let process = host.process();
        let mut engine = process.start();
        process.control.plan(Some(fault));
        let error = engine.add(&queued(&cgroup)).err();
        let struck = process.control.struck();
        process.control.plan(None);
        if error.is_none() {
            assert_eq!((host.attached(&cgroup), owners(&host).len()), (3, 1));
            engine.shut_down().unwrap();
        }
        assert!(host.is_clean() && engine.list().is_empty());
        assert_eq!(host.attached(&cgroup), 0);
        struck.then_some(error)
    });
    assert!(calls.len() > 10 && calls.iter().all(|it| it != "-"), "{calls:?}");
    assert_eq!(calls.iter().filter(|it| *it == "rtnetlink").count(), 1, "{calls:?}");
}

/// The cgroup goes once the queue is there, and the device cannot be removed.
#[test]
fn an_addition_whose_queue_cannot_be_closed_again_stays_to_be_removed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let (kernel, path) = (host.kernel.clone(), cgroup.clone());
    let process = host.process_with(move || {
        let [(device, _)] = kernel.queue_devices()[..] else { panic!("one device") };
        kernel.set_busy(device, true).unwrap();
        kernel.remove_cgroup(&path).unwrap();
    });
    let mut engine = process.start();
    // The cgroup is opened, the lists are looked at, the programs loaded, and then it is opened.
    process.control.plan(Some(Fault { nth: 4, mishap: Mishap::DieAfter }));
    let error = engine.add(&queued(&cgroup)).unwrap_err();
    let Error::Several(errors) = &error else { panic!("{error}") };
    assert_eq!(errors.iter().map(name).collect::<Vec<_>>(), ["BPF_LINK_CREATE", "rtnetlink"]);
    let id = engine.list()[0].id;
    assert!(engine.remove(id).is_err() && engine.list().len() == 1);
    host.kernel.set_busy(device(&host), false).unwrap();
    engine.remove(id).unwrap();
    assert!(host.is_clean() && engine.list().is_empty());
}

#[test]
fn a_queue_that_works_or_cannot_be_asked_is_not_closed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    let id = engine.add(&queued(&cgroup)).unwrap().id;
    let before = device(&host);
    process.control.plan(Some(Fault { nth: 1, mishap: EPERM }));
    let unknown = engine.close_broken_queue(id).unwrap_err();
    assert!(process.control.struck() && matches!(unknown, Error::Kernel(_)), "{unknown}");
    assert_eq!(device(&host), before);
    assert!(!engine.close_broken_queue(id).unwrap());
    assert_eq!(device(&host), before);
    let other = throttle_core::ThrottleId(7);
    assert!(matches!(engine.close_broken_queue(other), Err(Error::NoSuchThrottle(_))));
    engine.remove(id).unwrap();
    assert!(host.is_clean());
}

#[test]
fn a_queue_whose_device_somebody_took_is_closed_once_and_the_limit_holds() {
    for is_gone in [true, false] {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let process = host.process();
        let mut engine = process.start();
        let id = engine.add(&queued(&cgroup)).unwrap().id;
        let taken = device(&host);
        if is_gone {
            host.kernel.remove_device(taken).unwrap();
        } else {
            host.kernel.take_down(taken).unwrap();
        }
        // Closing it fails once: it is tried again.
        process.control.plan(Some(Fault { nth: 2, mishap: EPERM }));
        engine.close_broken_queue(id).unwrap_err();
        assert!(process.control.struck());
        assert_eq!(owners(&host).len(), usize::from(!is_gone));
        assert!(engine.close_broken_queue(id).unwrap());
        assert_eq!(owners(&host), [0; 0]);
        assert!(!engine.close_broken_queue(id).unwrap(), "it is closed");
        assert_eq!(host.attached(&cgroup), 3);
        let status = engine.list().remove(0);
        assert!(status.directions.iter().all(|it| matches!(it.health, Health::Attached)));
        engine.remove(id).unwrap();
        assert!(host.is_clean());
    }
}

#[test]
fn a_broken_queue_is_none_of_another_throttles_business() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let ids = [(); 2].map(|()| engine.add(&queued(&cgroup)).unwrap().id);
    let [(first, _), (second, _)] = host.kernel.queue_devices()[..] else { panic!("two devices") };
    host.kernel.take_down(first).unwrap();
    assert!(!engine.close_broken_queue(ids[1]).unwrap());
    assert!(engine.close_broken_queue(ids[0]).unwrap());
    assert_eq!(device(&host), second);
    engine.shut_down().unwrap();
    assert!(host.is_clean());
}

#[test]
fn a_shutdown_goes_on_past_a_queue_that_cannot_be_closed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    let first = engine.add(&queued(&cgroup)).unwrap().id;
    engine.add(&queued(&cgroup)).unwrap();
    let calls = u16::try_from(of_all(&LINK).len()).unwrap();
    process.control.plan(Some(Fault { nth: calls + 1, mishap: EPERM }));
    let error = engine.shut_down().unwrap_err();
    assert_eq!(name(&error), "rtnetlink");
    process.control.plan(None);
    let left: Vec<_> = engine.list().iter().map(|status| status.id).collect();
    assert_eq!((left, owners(&host).len(), host.attached(&cgroup)), (vec![first], 1, 0));
    engine.shut_down().unwrap();
    assert!(host.is_clean());
}

#[test]
fn the_queue_of_a_removed_cgroup_stays_while_its_sockets_are_limited_and_goes_with_the_throttle() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let first = engine.add(&queued(&cgroup)).unwrap().id;
    let socket = host.kernel.open_socket(&cgroup).unwrap();
    host.kernel.remove_cgroup(&cgroup).unwrap();
    assert!(engine.wait_for_cgroup(first).unwrap());
    assert!(!engine.close_broken_queue(first).unwrap());
    host.cgroup("a");
    let second = engine.add(&queued(&cgroup)).unwrap().id;
    assert_eq!(owners(&host).len(), 2);
    drop(socket);
    assert!(!engine.wait_for_cgroup(first).unwrap());
    engine.remove(first).unwrap();
    assert_eq!((owners(&host).len(), host.attached(&cgroup)), (1, 3));
    engine.remove(second).unwrap();
    assert!(host.is_clean());
}

/// Its record stands for the device as well.
#[test]
fn a_throttle_that_waits_stays_recorded_until_its_queue_is_closed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let id = engine.add(&queued(&cgroup)).unwrap().id;
    host.kernel.remove_cgroup(&cgroup).unwrap();
    assert!(!engine.wait_for_cgroup(id).unwrap());
    host.kernel.set_busy(device(&host), true).unwrap();
    assert_eq!(name(&engine.remove(id).unwrap_err()), "rtnetlink");
    assert_eq!((engine.list().len(), host.entries().len(), owners(&host).len()), (1, 1, 1));
    host.kernel.set_busy(device(&host), false).unwrap();
    engine.remove(id).unwrap();
    assert!(host.is_clean() && engine.list().is_empty());
}

#[test]
fn an_engine_that_is_dropped_closes_its_queues() {
    let host = Host::boot();
    let mut engine = host.process().start();
    engine.add(&queued(&host.cgroup("a"))).unwrap();
    drop(engine);
    assert!(host.is_clean());
}

/// Only the device is left, and only a queue's owner that is known to be dead has left it.
#[test]
fn the_next_queue_removes_what_dead_owners_left_and_nothing_else() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    let living = host.process();
    let mut engine = living.start();
    engine.add(&queued(&one)).unwrap();
    // One that runs on in another pid namespace: its pid is nobody's here.
    let mut elsewhere = host.process();
    elsewhere.config.owner.pid_namespace = 2;
    elsewhere.config.owner.pid = 4_000;
    let mut its = elsewhere.start();
    let id = its.add(&queued(&two)).unwrap().id;
    let dead = host.process();
    let mut crashed = dead.start();
    crashed.add(&queued(&one)).unwrap();
    let pids = [living.config.owner.pid, 4_000, dead.config.owner.pid];
    dead.kill(crashed);
    assert_eq!((owners(&host), host.attached(&one)), (pids.to_vec(), 3), "the device stays");
    assert!(!its.close_broken_queue(id).unwrap());

    let mut next = host.process();
    next.config.owner.pid = 5_000;
    let mut last = next.start();
    let newest = last.add(&queued(&one)).unwrap().id;
    assert_eq!(owners(&host), [pids[0], 4_000, 5_000]);
    assert!(!its.close_broken_queue(id).unwrap(), "it is whole");
    last.remove(newest).unwrap();
    its.remove(id).unwrap();
    engine.shut_down().unwrap();
    assert!(host.is_clean());
}

/// Each call of a queue's life is its owner's last: nothing is left but the device, which the next one removes.
#[test]
fn wherever_its_owner_dies_the_next_queue_finds_all_of_it() {
    for mishap in [Mishap::DieBefore, Mishap::DieAfter] {
        let (mut nth, mut left) = (1, 0);
        loop {
            let host = Host::boot();
            let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
            let process = host.process_with(|| resume_unwind(Box::new("it dies")));
            let mut engine = process.start();
            process.control.plan(Some(Fault { nth, mishap }));
            let lives = catch_unwind(AssertUnwindSafe(|| {
                let id = engine.add(&queued(&cgroup)).unwrap().id;
                engine.close_broken_queue(id).unwrap();
                engine.remove(id).unwrap();
            }));
            let struck = process.control.struck();
            assert_eq!(lives.is_err(), struck, "call {nth}");
            process.kill(engine);
            assert_eq!(host.attached(&cgroup), 0, "call {nth}, {mishap:?}");
            left += owners(&host).len();
            let mut next = host.process().start();
            let id = next.add(&queued(&other)).unwrap().id;
            assert_eq!(owners(&host).len(), 1, "call {nth}, {mishap:?}");
            next.remove(id).unwrap();
            assert!(host.is_clean(), "call {nth}, {mishap:?}");
            if !struck {
                break;
            }
            nth += 1;
        }
        assert!(nth > 20 && left > 10, "{nth} {left}");
    }
}
