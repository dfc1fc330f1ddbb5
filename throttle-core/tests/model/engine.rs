//! Adding, changing, listing, letting go, shutting down.

use std::time::Duration;

use bpf::boundary::Throttles as _;
use bpf::limits::{Burst, Traffic};
use bpf::state::{Count, Counters};
use kernel::AttachType;
use kernel::boundary::{Cgroups as _, Links as _, Pins as _, Programs as _};
use kernel::list::AttachFlags;
use sim::World;
use throttle_core::mode::{Mode, Tcp, TcpWish, Wish};
use throttle_core::{Change, Direction, Error, Health, Spec, ThrottleStatus};
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;

fn passed(packets: u64) -> Counters {
    Counters { passed: Count { packets, bytes: 100 * packets }, ..Counters::default() }
}

fn counters(status: &ThrottleStatus) -> Vec<Counters> {
    status.directions.iter().map(|it| it.counters.as_ref().unwrap().unwrap()).collect()
}

#[test]
fn what_a_throttle_did_is_told_while_it_lasts_and_when_it_goes() {
    for wish in EVERY_MODE {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let sender = host.kernel.spawn(&cgroup).unwrap();
        let mut engine = host.process().start();
        let id = engine.add(&spec(&cgroup, wish)).unwrap().id;
        host.kernel.send(&sender).unwrap();
        host.kernel.send(&sender).unwrap();

        let status = &engine.list()[0];
        assert_eq!((status.id, &status.cgroup), (id, &cgroup));
        assert_eq!(counters(status), [passed(2); 2], "{wish:?}");
        let healthy = |it: &throttle_core::DirectionStatus| matches!(it.health, Health::Attached);
        assert!(status.directions.iter().all(healthy), "{status:?}");
        assert!(matches!(status.tcp_health, Some(Health::Attached)), "{status:?}");

        let removed = engine.remove(id).unwrap().directions;
        let directions: Vec<_> = removed.keys().copied().collect();
        assert_eq!(directions, [Direction::Download, Direction::Upload]);
        for detached in removed.into_values() {
            assert!(!detached.cgroup_vanished);
            assert_eq!(detached.counters, Ok(Some(passed(2))), "{wish:?}");
        }
    }
}

#[test]
fn another_cgroup_than_the_one_that_was_looked_up_is_not_limited() {
    let host = Host::boot();
    let (cgroup, another) = (host.cgroup("a"), host.cgroup("b"));
    let id = |path| host.kernel.cgroup_id(&host.kernel.open_cgroup(path).unwrap());
    let (expected, found) = (id(&cgroup), id(&another));
    let mut engine = host.process().start();
    for wish in EVERY_MODE {
        let wrong = Spec { cgroup_id: Some(expected), ..spec(&another, wish) };
        let error = engine.add(&wrong).unwrap_err();
        let ids = match error {
            Error::AnotherCgroup { expected, found, .. } => (expected, found),
            other => panic!("{other}"),
        };
        assert_eq!(ids, (expected, found));
        assert!(host.attached(&another) == 0 && host.loaded() == 0 && host.entries().is_empty());
        let right = Spec { cgroup_id: Some(found), ..spec(&another, wish) };
        let id = engine.add(&right).unwrap().id;
        engine.remove(id).unwrap();
    }
}

/// The second is served by the load of the first, whose counters go on.
#[test]
fn a_throttle_counts_from_zero_where_an_earlier_one_has_counted() {
    let host = Host::boot();
    let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
    let sender = host.kernel.spawn(&cgroup).unwrap();
    let mut engine = host.process().start();
    // Keeps the load.
    engine.add(&spec(&other, Wish::Link)).unwrap();
    let first = engine.add(&spec(&cgroup, Wish::Link)).unwrap().id;
    host.kernel.send(&sender).unwrap();
    engine.remove(first).unwrap();
    engine.add(&spec(&cgroup, Wish::Link)).unwrap();
    assert_eq!(host.loaded(), 3);
    assert_eq!(counters(&engine.list()[1]), [passed(0); 2]);
}

#[test]
fn a_load_serves_every_place_once_and_goes_with_its_last_throttle() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    let mut engine = host.process().start();
    let both = |cgroup| Spec { tcp: TcpWish::Police, ..spec(cgroup, Wish::Link) };
    let upload = |cgroup| Spec { download: None, ..both(cgroup) };
    let download = |cgroup| Spec { upload: None, ..both(cgroup) };
    let ids = [upload(&one), download(&one), both(&two)].map(|spec| engine.add(&spec).unwrap().id);
    assert_eq!(host.loaded(), 2);
    // This place is taken.
    let again = engine.add(&upload(&one)).unwrap().id;
    assert_eq!(host.loaded(), 4);
    // The second load has this one free.
    engine.add(&download(&one)).unwrap();
    assert_eq!(host.loaded(), 4);
    for id in ids {
        engine.remove(id).unwrap();
    }
    assert_eq!(host.loaded(), 2);
    engine.remove(again).unwrap();
    engine.shut_down().unwrap();
    assert_eq!(host.loaded(), 0);
}

/// Its program for TCP has one place on a cgroup, whichever direction is limited.
#[test]
fn a_load_that_shapes_tcp_serves_every_cgroup_once_and_goes_with_its_last_throttle() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    let mut engine = host.process().start();
    let upload = |cgroup| Spec { download: None, ..spec(cgroup, Wish::Link) };
    let download = |cgroup| Spec { upload: None, ..spec(cgroup, Wish::Link) };
    let ids = [upload(&one), spec(&two, Wish::Link)].map(|spec| engine.add(&spec).unwrap().id);
    assert_eq!(host.loaded(), 3);
    // Of this cgroup the place for TCP is taken.
    let again = engine.add(&download(&one)).unwrap().id;
    assert_eq!(host.loaded(), 6);
    // The second load has this one free.
    engine.add(&upload(&two)).unwrap();
    assert_eq!(host.loaded(), 6);
    for id in ids {
        engine.remove(id).unwrap();
    }
    assert_eq!(host.loaded(), 3);
    engine.remove(again).unwrap();
    engine.shut_down().unwrap();
    assert_eq!(host.loaded(), 0);
}

#[test]
fn a_throttle_that_polices_tcp_has_no_program_for_it_and_a_load_of_its_own() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    let mut engine = host.process().start();
    let police = |cgroup| Spec { tcp: TcpWish::Police, ..spec(cgroup, Wish::Link) };
    engine.add(&spec(&one, Wish::Link)).unwrap();
    let policed = engine.add(&police(&two)).unwrap();
    assert_eq!(policed.tcp, Tcp::Police);
    assert_eq!((host.attached(&one), host.attached(&two), host.loaded()), (3, 2, 5));
    assert!(host.programs(&two, AttachType::SOCK_OPS).is_empty());
    let status = engine.list().remove(1);
    assert!(status.tcp == Tcp::Police && status.tcp_health.is_none(), "{status:?}");
    engine.remove(policed.id).unwrap();
    assert_eq!((host.attached(&two), host.loaded()), (0, 3));
}

#[test]
fn throttles_of_one_engine_have_ids_of_their_own_and_those_that_outlive_it_names() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let mut started = Vec::new();
    for wish in [Wish::Pinned, Wish::Link, Wish::Legacy, Wish::Link] {
        started.push(engine.add(&spec(&cgroup, wish)).unwrap());
    }
    let ids: Vec<_> = started.iter().map(|it| it.id.to_string()).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    let names: Vec<_> = started.iter().map(|it| it.name.as_deref()).collect();
    assert_eq!(names, [Some("1"), None, Some("2"), None]);
    let listed = engine.list();
    assert_eq!(listed.iter().map(|it| it.name.as_deref()).collect::<Vec<_>>(), names);
    let modes: Vec<_> = listed.iter().map(|it| it.mode).collect();
    assert_eq!(modes, [Mode::Pinned, Mode::Link, Mode::Legacy, Mode::Link]);
}

#[test]
fn the_ledger_says_how_a_throttle_can_be_found_again() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    engine.add(&spec(&cgroup, Wish::Pinned)).unwrap();
    engine.add(&spec(&cgroup, Wish::Legacy)).unwrap();
    let entries = host.entries();
    assert_eq!((entries[0].persist, entries[1].persist), (true, false));
    let pins: Vec<_> = entries[0].attachments.iter().map(|it| it.pin.clone().unwrap()).collect();
    assert!(pins[0].ends_with("1/download") && pins[1].ends_with("1/upload"), "{pins:?}");
    assert!(pins.len() == 3 && pins[2].ends_with("1/tcp"), "{pins:?}");
    for recorded in &entries[0].attachments {
        let pinned = host.kernel.link_open_pinned(recorded.pin.as_ref().unwrap()).unwrap();
        assert_eq!(recorded.link_id, Some(host.kernel.link_id(&pinned)));
    }
    for recorded in &entries[1].attachments {
        assert_eq!((&recorded.pin, recorded.link_id), (&None, None));
        assert_eq!(host.programs(&cgroup, recorded.attach_type)[1], recorded.program_id);
    }
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let id = engine.add(&spec(&cgroup, Wish::Link)).unwrap().id;
    let burst = Burst::new(Duration::from_millis(20)).unwrap();
    let faster = Change { upload: Some(rate(5_000_000)), ..Change::default() };
    let other =
        Change { burst: Some(burst), traffic: Some(Traffic::Internet), ..Change::default() };
    for (change, upload, burst, traffic) in [
        (faster, 5_000_000, Burst::DEFAULT, Traffic::All),
        (other, 5_000_000, burst, Traffic::Internet),
    ] {
        engine.change(id, &change).unwrap();
        let status = &engine.list()[0];
        for (status, bytes_per_second) in status.directions.iter().zip([1_000_000, upload]) {
            let limits = status.limits;
            assert_eq!(limits.rate, rate(bytes_per_second));
            assert_eq!((limits.burst, limits.traffic), (burst, traffic));
            // Not only said: in force.
            let at = status.direction.attach_type();
            let program = host.kernel.open_program(host.programs(&cgroup, at)[0]).unwrap();
            let open = host.kernel.open_cgroup(&cgroup).unwrap();
            let state = host.kernel.state(&program, host.kernel.cgroup_id(&open), at);
            let state = state.unwrap().unwrap();
            assert_eq!((state.rate(), state.traffic()), (bytes_per_second, Some(traffic)));
        }
    }
}

#[test]
fn a_change_of_a_direction_that_is_not_limited_is_refused_whole() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    for (missing, spec) in [
        (Direction::Download, Spec { download: None, ..spec(&cgroup, Wish::Link) }),
        (Direction::Upload, Spec { upload: None, ..spec(&cgroup, Wish::Link) }),
    ] {
        let id = engine.add(&spec).unwrap().id;
        let both = Change {
            download: Some(rate(7_000_000)),
            upload: Some(rate(7_000_000)),
            ..Change::default()
        };
        let error = engine.change(id, &both).unwrap_err();
        assert!(matches!(error, Error::NoSuchDirection(_, named) if named == missing), "{error}");
        let status = engine.list().pop().unwrap();
        let before = spec.download.or(spec.upload).unwrap();
        assert_eq!(status.directions[0].limits.rate, before);
        // What it does limit can be changed alone.
        let alone = match missing {
            Direction::Download => Change { download: None, ..both },
            Direction::Upload => Change { upload: None, ..both },
        };
        engine.change(id, &alone).unwrap();
    }
}

#[test]
fn a_cgroup_that_was_removed_is_told_of_and_a_normal_case() {
    for wish in EVERY_MODE {
        let host = Host::boot();
        let cgroup = host.cgroup("a");
        let mut engine = host.process().start();
        let id = engine.add(&spec(&cgroup, wish)).unwrap().id;
        host.kernel.remove_cgroup(&cgroup).unwrap();
        let status = &engine.list()[0];
        assert!(matches!(status.tcp_health, Some(Health::CgroupVanished)), "{status:?}");
        for status in &status.directions {
            assert!(matches!(status.health, Health::CgroupVanished), "{status:?}");
            assert!(matches!(status.counters, Ok(None)), "{status:?}");
        }
        for detached in engine.remove(id).unwrap().directions.into_values() {
            assert!(detached.cgroup_vanished);
            assert_eq!(detached.counters, Ok(None));
        }
        assert!(host.is_clean());
    }
}

#[test]
fn what_somebody_else_detached_is_told_of() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let id = engine.add(&spec(&cgroup, Wish::Legacy)).unwrap().id;
    let open = host.kernel.open_cgroup(&cgroup).unwrap();
    let detach = |at| {
        let program = host.kernel.open_program(host.programs(&cgroup, at)[0]).unwrap();
        host.kernel.detach(&program, &open, at, None).unwrap();
    };
    detach(AttachType::INET_EGRESS);
    let status = engine.list().remove(0);
    assert!(matches!(status.tcp_health, Some(Health::Attached)), "{status:?}");
    let health: Vec<_> = status.directions.into_iter().map(|it| it.health).collect();
    assert!(matches!(health[..], [Health::Attached, Health::DetachedByOthers]), "{health:?}");
    detach(AttachType::SOCK_OPS);
    let status = engine.list().remove(0);
    assert!(matches!(status.tcp_health, Some(Health::DetachedByOthers)), "{status:?}");
    engine.remove(id).unwrap();
}

#[test]
fn where_the_kernel_cannot_be_asked_the_health_is_unknown() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let process = host.process();
    let mut engine = process.start();
    engine.add(&spec(&cgroup, Wish::Link)).unwrap();
    // Of the program for TCP there is nothing but its health.
    process.control.plan(Some(Fault { nth: 1, mishap: Mishap::Fail(Fail::EPERM) }));
    let status = engine.list().remove(0);
    assert!(matches!(status.tcp_health, Some(Health::Unknown(_))), "{status:?}");
    process.control.plan(Some(Fault { nth: 2, mishap: Mishap::Fail(Fail::EPERM) }));
    let status = engine.list().remove(0);
    assert!(matches!(status.directions[0].health, Health::Unknown(_)), "{status:?}");
    process.control.plan(Some(Fault { nth: 3, mishap: Mishap::Fail(Fail::EPERM) }));
    assert!(engine.list()[0].directions[0].counters.is_err());
}

#[test]
fn only_a_pinned_throttle_can_be_let_go_of() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    for wish in [Wish::Link, Wish::Legacy] {
        let id = engine.add(&spec(&cgroup, wish)).unwrap().id;
        assert!(matches!(engine.release(id), Err(Error::NoSuchThrottle(refused)) if refused == id));
        assert_eq!(engine.list().len(), 1);
        engine.remove(id).unwrap();
    }
    let pinned = engine.add(&spec(&cgroup, Wish::Pinned)).unwrap();
    engine.release(pinned.id).unwrap();
    assert!(engine.list().is_empty());
    assert!(engine.shut_down().unwrap().is_empty());
    assert_eq!(host.attached(&cgroup), 3);
    assert!(matches!(engine.release(pinned.id), Err(Error::NoSuchThrottle(_))));
    host.remove_recorded(&pinned.name.unwrap()).unwrap();
    assert!(host.is_clean());
}

/// The load of a throttle that was let go of is not there for the next one: its place is taken.
#[test]
fn a_load_whose_throttle_was_let_go_of_is_closed() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let pinned = engine.add(&spec(&cgroup, Wish::Pinned)).unwrap();
    engine.release(pinned.id).unwrap();
    host.remove_recorded(&pinned.name.unwrap()).unwrap();
    assert_eq!(host.loaded(), 0);
}

#[test]
fn shutting_down_says_what_every_throttle_did() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let ids = EVERY_MODE.map(|wish| engine.add(&spec(&cgroup, wish)).unwrap().id);
    let removed = engine.shut_down().unwrap();
    assert_eq!(removed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert!(removed.iter().all(|(_, removed)| removed.directions.len() == 2));
    assert!(host.is_clean());
}

#[test]
fn an_engine_that_is_dropped_detaches_what_is_not_pinned() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    for wish in EVERY_MODE {
        engine.add(&spec(&cgroup, wish)).unwrap();
    }
    drop(engine);
    assert_eq!(host.attached(&cgroup), 3);
    let entries = host.entries();
    assert!(entries.len() == 1 && entries[0].persist, "{entries:?}");
}

/// Somebody has removed it by its name, and somebody else has its name now.
#[test]
fn a_name_that_was_given_to_another_throttle_is_not_written_or_removed() {
    let host = Host::boot();
    let (one, two) = (host.cgroup("a"), host.cgroup("b"));
    let mut engine = host.process().start();
    let id = engine.add(&spec(&one, Wish::Pinned)).unwrap().id;
    host.remove_recorded("1").unwrap();
    host.crash(&two, Wish::Pinned);
    let others = host.entries();
    engine.remove(id).unwrap();
    assert_eq!(host.entries(), others);
    assert_eq!((host.attached(&one), host.attached(&two)), (0, 3));
}

/// Somebody has removed the pin, and put a link of theirs there.
#[test]
fn a_pin_that_somebody_has_replaced_is_left_alone() {
    let host = Host::boot();
    let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
    let mut engine = host.process().start();
    let upload = Spec { download: None, ..spec(&cgroup, Wish::Pinned) };
    let id = engine.add(&upload).unwrap().id;
    let pin = host.entries()[0].attachments[0].pin.clone().unwrap();
    let program = host.kernel.load_pass("theirs", AttachType::INET_EGRESS).unwrap();
    let open = host.kernel.open_cgroup(&other).unwrap();
    let theirs = host.kernel.link_create(&program, &open, AttachType::INET_EGRESS).unwrap();
    host.kernel.unpin(&pin).unwrap();
    host.kernel.link_pin(&theirs, &pin).unwrap();
    engine.remove(id).unwrap();
    let found = host.kernel.link_open_pinned(&pin).unwrap();
    assert_eq!(host.kernel.link_id(&found), host.kernel.link_id(&theirs));
    assert_eq!((host.attached(&cgroup), host.attached(&other)), (0, 1));
}

/// On a list that is not of the MULTI kind the kernel detaches whatever is there, whoever asks.
#[test]
fn a_program_that_took_the_place_of_ours_is_left_alone() {
    let host = Host::boot();
    let cgroup = host.cgroup("a");
    let mut engine = host.process().start();
    let upload = Spec { download: None, ..spec(&cgroup, Wish::Legacy) };
    let id = engine.add(&upload).unwrap().id;
    let at = AttachType::INET_EGRESS;
    let open = host.kernel.open_cgroup(&cgroup).unwrap();
    let ours = host.kernel.open_program(host.programs(&cgroup, at)[0]).unwrap();
    host.kernel.detach(&ours, &open, at, None).unwrap();
    let theirs = host.kernel.load_pass("theirs", at).unwrap();
    host.kernel.attach(&theirs, &open, at, AttachFlags::empty(), None).unwrap();
    engine.remove(id).unwrap();
    assert_eq!(host.attached(&cgroup), 1);
}
