//! The engine on the real kernel: add, change, remove, list, shut down.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::LinuxBpf;
use bpf::boundary::Throttles as _;
use bpf::limits::Traffic;
use kernel::boundary::{Cgroups as _, Programs as _};
use testkit::cgroup::{ScratchCgroup, remove_tree};
use testkit::isolation::isolate;
use testkit::traffic::{Flood, flood_above, socket};
use throttle_core::mode::{Mode, Tcp, Wish};
use throttle_core::{Change, Direction, Error, Health, Spec, ThrottleStatus};

use crate::common::*;

// Low rates: an emulated processor that is busy with other things sends a thousand packets a second, or half as many.
const SECOND: Duration = Duration::from_secs(1);
const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[test]
fn root_every_mode_attaches_both_directions_and_leaves_nothing() {
    isolate();
    let cgroup = ScratchCgroup::new("modes");
    for wish in EVERY_MODE {
        let mut engine = start();
        let started = engine.add(&spec(cgroup.path(), wish)).unwrap();
        let programs = ["chadthrottle_in", "chadthrottle_eg", "chadthrottle_so"];
        assert_eq!(names(cgroup.path()), programs, "{wish:?}");
        assert_eq!(ledger_files().len(), usize::from(started.mode.outlives_a_crash()), "{wish:?}");
        assert_eq!(pins().len(), if wish == Wish::Pinned { 3 } else { 0 }, "{wish:?}");
        let status = &engine.list()[0];
        assert_eq!(status.directions.len(), 2);
        assert!(
            status.directions.iter().all(|direction| matches!(direction.health, Health::Attached))
        );
        assert!(matches!(status.tcp_health, Some(Health::Attached)), "{status:?}");

        let removed = engine.remove(started.id).unwrap();
        assert_eq!(removed.directions.len(), 2);
        assert!(names(cgroup.path()).is_empty(), "{wish:?}");
        assert!(ledger_files().is_empty() && pins().is_empty() && engine.list().is_empty());
        assert!(matches!(engine.remove(started.id), Err(Error::NoSuchThrottle(_))));
    }
}

#[test]
fn root_auto_takes_a_link_on_this_kernel() {
    isolate();
    let cgroup = ScratchCgroup::new("auto");
    let mut engine = start();
    let started = engine.add(&spec(cgroup.path(), Wish::default())).unwrap();
    assert_eq!((started.mode, started.tcp, started.notes), (Mode::Link, Tcp::Shape, Vec::new()));
}

#[test]
fn root_an_engine_that_is_dropped_detaches_what_is_not_pinned() {
    isolate();
    let cgroup = ScratchCgroup::new("dropped");
    for wish in [Wish::Link, Wish::Legacy] {
        let mut engine = start();
        engine.add(&spec(cgroup.path(), wish)).unwrap();
        drop(engine);
        assert!(names(cgroup.path()).is_empty(), "{wish:?}");
        assert!(ledger_files().is_empty());
    }
    let mut engine = start();
    engine.add(&spec(cgroup.path(), Wish::Pinned)).unwrap();
    drop(engine);
    assert_eq!(names(cgroup.path()).len(), 3);
    assert_eq!(pins().len(), 3);
}

#[test]
fn root_foreign_programs_keep_their_places_and_their_order() {
    isolate();
    let cgroup = ScratchCgroup::new("foreign");
    for wish in EVERY_MODE {
        let mut engine = start();
        for attach_type in PLACES {
            plant_foreign(cgroup.path(), attach_type, "before");
        }
        let first = engine.add(&spec(cgroup.path(), wish)).unwrap();
        for attach_type in PLACES {
            plant_foreign(cgroup.path(), attach_type, "between");
        }
        let second = engine.add(&spec(cgroup.path(), wish)).unwrap();
        for attach_type in PLACES {
            plant_foreign(cgroup.path(), attach_type, "after");
        }
        let foreign = || -> Vec<_> {
            PLACES
                .iter()
                .flat_map(|at| attached(cgroup.path(), *at))
                .filter(|(_, name)| !name.starts_with("chadthrottle"))
                .collect()
        };
        let before = foreign();
        assert_eq!(before.len(), 9);
        engine.remove(first.id).unwrap();
        assert_eq!(foreign(), before, "{wish:?}");
        engine.remove(second.id).unwrap();
        assert_eq!(foreign(), before, "{wish:?}");
        assert_eq!(names(cgroup.path()).len(), 9);
        for attach_type in PLACES {
            for (id, _) in attached(cgroup.path(), attach_type) {
                detach(cgroup.path(), attach_type, id);
            }
        }
    }
}

#[test]
fn root_a_change_detaches_nothing_and_keeps_the_counters() {
    isolate();
    let cgroup = ScratchCgroup::new("change");
    let mut engine = start();
    let both = Spec { upload: Some(rate(100_000)), ..spec(cgroup.path(), Wish::Link) };
    let id = engine.add(&both).unwrap().id;
    let programs = attached(cgroup.path(), EGRESS);

    let receiver = socket(LOOPBACK);
    let sender = {
        let _inside = cgroup.enter();
        socket(LOOPBACK)
    };
    let slow = flood_above(&sender, &receiver, (100_000, BURST), SECOND);
    let change = Change { upload: Some(rate(300_000)), ..Change::default() };
    engine.change(id, &change).unwrap();
    let fast = flood_above(&sender, &receiver, (300_000, BURST), SECOND);

    assert_eq!(attached(cgroup.path(), EGRESS), programs);
    slow.assert_limited(100_000, BURST);
    fast.assert_limited(300_000, BURST);
    let status = &engine.list()[0];
    let upload = &status.directions[1];
    assert_eq!(upload.direction, Direction::Upload);
    assert_eq!(upload.limits.rate, rate(300_000));
    assert_eq!(status.directions[0].limits.rate, rate(1_000_000));
    let counters = upload.counters.as_ref().unwrap().unwrap();
    assert_eq!(counters.passed.packets, slow.received + fast.received);
    assert_eq!(counters.seen().packets, slow.sent() + fast.sent());
}

#[test]
fn root_a_change_of_a_direction_that_is_not_limited_is_refused_whole() {
    isolate();
    let cgroup = ScratchCgroup::new("refused");
    let mut engine = start();
    let only_upload = Spec { download: None, ..spec(cgroup.path(), Wish::Link) };
    let id = engine.add(&only_upload).unwrap().id;
    let change =
        Change { upload: Some(rate(5_000)), download: Some(rate(5_000)), ..Change::default() };
    assert!(matches!(
        engine.change(id, &change),
        Err(Error::NoSuchDirection(_, Direction::Download))
    ));
    assert_eq!(engine.list()[0].directions[0].limits.rate, rate(1_000_000));
}

/// Every program sees every packet, one after the other, but what one of them has dropped the later ones do
/// not charge: it is exempt there. So each passes what the lowest rate up to it lets through, and what the last
/// one passes arrives. The limits in the order in which they are met: a child's before its parent's.
fn assert_each_holds_its_own(flood: &Flood, list: &[ThrottleStatus], limits: &[(&Path, u64)]) {
    let (mut left, mut rates) = (flood.sent(), Vec::new());
    for (cgroup, rate) in limits {
        let status = list.iter().find(|it| it.cgroup == *cgroup && limit(it) == *rate).unwrap();
        let counters = status.directions[0].counters.as_ref().unwrap().unwrap();
        assert_eq!(counters.seen().packets, flood.sent(), "{counters:?}");
        assert_eq!(counters.exempt.packets, flood.sent() - left, "{counters:?}");
        left = counters.passed.packets;
        rates.push(*rate);
        let ideal = flood.ideal_in_turn(&rates, BURST);
        assert!(ideal.contains(&left), "{left} of {ideal:?} at {rates:?} B/s");
    }
    assert_eq!(flood.received, left);
    assert!(flood.received < flood.sent(), "too little was sent for a limit to be seen");
}

fn limit(status: &ThrottleStatus) -> u64 {
    status.directions[0].limits.rate.bytes_per_second()
}

fn upload(cgroup: &Path, bytes_per_second: u64) -> Spec {
    Spec { upload: Some(rate(bytes_per_second)), download: None, ..spec(cgroup, Wish::Link) }
}

#[test]
fn root_two_throttles_on_one_cgroup_both_hold_and_go_one_by_one() {
    isolate();
    let cgroup = ScratchCgroup::new("two");
    let mut engine = start();
    engine.add(&upload(cgroup.path(), 300_000)).unwrap();
    let narrow = engine.add(&upload(cgroup.path(), 100_000)).unwrap().id;
    // Each has a bucket of its own: a program of its own.
    let programs = attached(cgroup.path(), EGRESS);
    assert_eq!(programs.len(), 2);
    assert_ne!(programs[0].0, programs[1].0);

    let receiver = socket(LOOPBACK);
    let sender = {
        let _inside = cgroup.enter();
        socket(LOOPBACK)
    };
    let both = flood_above(&sender, &receiver, (300_000, BURST), SECOND);
    let limits = [(cgroup.path(), 300_000), (cgroup.path(), 100_000)];
    assert_each_holds_its_own(&both, &engine.list(), &limits);
    engine.remove(narrow).unwrap();
    assert_eq!(attached(cgroup.path(), EGRESS), programs[..1]);
    let one = flood_above(&sender, &receiver, (300_000, BURST), SECOND);
    one.assert_limited(300_000, BURST);
}

#[test]
fn root_a_parent_and_its_child_each_hold_their_own_limit() {
    isolate();
    for (of_parent, of_child) in [(200_000, 60_000), (200_000, 400_000)] {
        let parent = ScratchCgroup::new("parent");
        let child = parent.child("child");
        let mut engine = start();
        engine.add(&upload(parent.path(), of_parent)).unwrap();
        engine.add(&upload(&child, of_child)).unwrap();
        let receiver = socket(LOOPBACK);
        let sender = {
            let _inside = testkit::cgroup::enter(&child);
            socket(LOOPBACK)
        };
        let flood = flood_above(&sender, &receiver, (of_parent.max(of_child), BURST), SECOND);
        let limits = [(child.as_path(), of_child), (parent.path(), of_parent)];
        assert_each_holds_its_own(&flood, &engine.list(), &limits);
    }
}

/// The engines of one host share the secret by which a packet is marked that was dropped.
#[test]
fn root_what_a_child_drops_is_not_charged_to_its_parent_by_another_engine_either_way() {
    isolate();
    for is_download in [false, true] {
        for (of_parent, of_child) in [(300_000, 100_000), (100_000, 300_000)] {
            let parent = ScratchCgroup::new("parent");
            let child = parent.child("child");
            let (mut above, mut below) = (start(), start());
            let one_way = |cgroup: &Path, limit| {
                let limited = upload(cgroup, limit);
                if is_download {
                    Spec { upload: None, download: limited.upload, ..limited }
                } else {
                    limited
                }
            };
            above.add(&one_way(parent.path(), of_parent)).unwrap();
            below.add(&one_way(&child, of_child)).unwrap();
            let inside = {
                let _inside = testkit::cgroup::enter(&child);
                socket(LOOPBACK)
            };
            let outside = socket(LOOPBACK);
            let (sender, receiver) =
                if is_download { (&outside, &inside) } else { (&inside, &outside) };
            let flood = flood_above(sender, receiver, (of_parent.max(of_child), BURST), SECOND);
            let limits = [(child.as_path(), of_child), (parent.path(), of_parent)];
            let list: Vec<_> = above.list().into_iter().chain(below.list()).collect();
            assert_each_holds_its_own(&flood, &list, &limits);
        }
    }
}

#[test]
fn root_two_engines_do_not_touch_each_other() {
    isolate();
    let cgroup = ScratchCgroup::new("engines");
    for wish in EVERY_MODE {
        let (mut one, mut two) = (start(), start());
        let first = one.add(&spec(cgroup.path(), wish)).unwrap();
        let second = two.add(&spec(cgroup.path(), wish)).unwrap();
        if first.mode.outlives_a_crash() {
            assert_ne!(first.name, second.name);
        }
        assert_eq!(names(cgroup.path()).len(), 6);
        one.shut_down().unwrap();
        assert_eq!(names(cgroup.path()).len(), 3);
        // A third one starts while the second one lives: it leaves it alone.
        let (_three, settlement) = start_and_settle();
        assert!(settlement.removed.is_empty(), "{settlement:?}");
        assert!(matches!(two.list()[0].directions[0].health, Health::Attached));
        two.shut_down().unwrap();
        assert!(names(cgroup.path()).is_empty());
    }
}

#[test]
fn root_a_cgroup_that_vanishes_is_a_normal_case() {
    isolate();
    for wish in EVERY_MODE {
        let cgroup = ScratchCgroup::new("vanishing");
        let mut engine = start();
        let id = engine.add(&spec(cgroup.path(), wish)).unwrap().id;
        remove_tree(cgroup.path()).unwrap();
        // The kernel lets go of the programs a moment later; until then there may be sockets.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !matches!(engine.list()[0].directions[0].health, Health::CgroupVanished)
            || !matches!(engine.list()[0].tcp_health, Some(Health::CgroupVanished))
        {
            assert!(Instant::now() < deadline, "{wish:?}: {:?}", engine.list());
            sleep(Duration::from_millis(5));
        }
        let removed = engine.remove(id).unwrap();
        assert!(removed.directions.values().all(|detached| detached.cgroup_vanished), "{wish:?}");
        assert!(ledger_files().is_empty() && pins().is_empty(), "{wish:?}");
    }
}

#[test]
fn root_a_cgroup_made_again_under_the_name_is_another_one() {
    isolate();
    for wish in EVERY_MODE {
        let cgroup = ScratchCgroup::new("again");
        let mut engine = start();
        let id = engine.add(&spec(cgroup.path(), wish)).unwrap().id;
        remove_tree(cgroup.path()).unwrap();
        std::fs::create_dir(cgroup.path()).unwrap();
        let stranger = plant_foreign(cgroup.path(), EGRESS, "stranger");
        engine.remove(id).unwrap();
        assert_eq!(attached(cgroup.path(), EGRESS)[0].0, stranger, "{wish:?}");
    }
}

#[test]
fn root_a_full_list_attaches_nothing_and_says_so() {
    isolate();
    for full in [EGRESS, TCP] {
        let cgroup = ScratchCgroup::new("full");
        for _ in 0..64 {
            plant_foreign(cgroup.path(), full, "neighbour");
        }
        let lists = || PLACES.map(|at| attached(cgroup.path(), at));
        let before = lists();
        let mut engine = start();
        for wish in EVERY_MODE {
            // What is attached first would find room, what comes here would not.
            let error = engine.add(&spec(cgroup.path(), wish)).unwrap_err().to_string();
            assert!(error.contains("all 64 places are taken"), "{error}");
            assert_eq!(lists(), before, "{wish:?}");
            assert!(engine.list().is_empty() && ledger_files().is_empty() && pins().is_empty());
        }
    }
}

#[test]
fn root_what_somebody_else_detached_is_gone_and_told() {
    isolate();
    let cgroup = ScratchCgroup::new("others");
    let mut engine = start();
    let id = engine.add(&spec(cgroup.path(), Wish::Legacy)).unwrap().id;
    let (program, _) = attached(cgroup.path(), EGRESS)[0];
    detach(cgroup.path(), EGRESS, program);
    assert!(matches!(engine.list()[0].directions[1].health, Health::DetachedByOthers));
    let (program, _) = attached(cgroup.path(), TCP)[0];
    detach(cgroup.path(), TCP, program);
    assert!(matches!(engine.list()[0].tcp_health, Some(Health::DetachedByOthers)));
    engine.remove(id).unwrap();
    assert!(names(cgroup.path()).is_empty());
}

#[test]
fn root_the_class_of_traffic_reaches_the_kernel() {
    isolate();
    let cgroup = ScratchCgroup::new("class");
    let mut engine = start();
    let internet = Spec { traffic: Traffic::Internet, ..spec(cgroup.path(), Wish::Link) };
    engine.add(&internet).unwrap();
    let kernel = LinuxBpf::new().unwrap();
    let open = kernel.open_cgroup(cgroup.path()).unwrap();
    for attach_type in PLACES {
        let program = kernel.open_program(attached(cgroup.path(), attach_type)[0].0).unwrap();
        let state = kernel.state(&program, kernel.cgroup_id(&open), attach_type).unwrap().unwrap();
        assert_eq!(state.traffic(), Some(Traffic::Internet));
        assert_eq!(bpf::owner_of(&program).unwrap(), Some(config().owner));
    }
}
