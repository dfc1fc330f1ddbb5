//! What happens between two calls of the engine, whichever they are: packets, and others who attach.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use bpf::boundary::Throttles as _;
use bpf::state::{Count, Counters};
use kernel::AttachType;
use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::list::{AttachFlags, Scope};
use sim::Model;
use sim::World;
use throttle_core::Spec;
use throttle_core::mode::{TcpWish, Wish};
use vmtests::sequences::step::{Fail, Fault, Mishap};

use crate::common::*;

const DOWNLOAD: AttachType = AttachType::INET_INGRESS;
const UPLOAD: AttachType = AttachType::INET_EGRESS;

/// The rate that our program on a cgroup has in a direction. `None`: there is no such program.
fn rate_of(kernel: &Model, cgroup: &Path, direction: AttachType, at: AttachType) -> Option<u64> {
    let open = kernel.open_cgroup(cgroup).unwrap();
    let list = kernel.query(&open, at, Scope::Local).unwrap();
    let program = kernel.open_program(list.programs.first()?.id).unwrap();
    let state = kernel.state(&program, kernel.cgroup_id(&open), direction).unwrap();
    Some(state.map_or(0, |state| if state.is_armed() { state.rate() } else { 0 }))
}

/// What came before the limit is none of its doing, and what came since is.
#[test]
fn a_limit_counts_from_the_moment_on_that_it_holds() {
    for wish in EVERY_MODE {
        let (mut nth, mut counted) = (1, 0);
        loop {
            let host = Host::boot();
            let cgroup = host.cgroup("a");
            let sender = host.kernel.spawn(&cgroup).unwrap();
            let held = Rc::new(Cell::new([false; 2]));
            let (kernel, path, sees) = (host.kernel.clone(), cgroup.clone(), Rc::clone(&held));
            let process = host.process_with(move || {
                sees.set([DOWNLOAD, UPLOAD].map(|at| rate_of(&kernel, &path, at, at) > Some(0)));
                kernel.send(&sender).unwrap();
            });
            let mut engine = process.start();
            process.control.plan(Some(Fault { nth, mishap: Mishap::DieAfter }));
            let id = engine.add(&spec(&cgroup, wish)).unwrap().id;
            let struck = process.control.struck();
            process.control.plan(None);
            let status = engine.list().remove(0);
            let told = status.directions.iter().map(|it| it.counters.as_ref().unwrap().unwrap());
            let expected = held.get().map(|held| {
                let packets = u64::from(held);
                let passed = Count { packets, bytes: 100 * packets };
                Counters { passed, ..Counters::default() }
            });
            assert_eq!(told.collect::<Vec<_>>(), expected, "call {nth}, {wish:?}");
            counted += held.get().into_iter().filter(|held| *held).count();
            engine.remove(id).unwrap();
            if !struck {
                break;
            }
            nth += 1;
        }
        assert!(counted > 5 && nth > 10, "{counted} {nth}");
    }
}

/// An earlier throttle of the same load could not be disarmed, but was detached: its limits do not come back.
#[test]
fn what_an_earlier_throttle_allowed_never_holds_again() {
    for (is_both, tcp) in [(true, TcpWish::Shape), (true, TcpWish::Police), (false, TcpWish::Shape)]
    {
        let mut nth = 1;
        loop {
            let host = Host::boot();
            let (cgroup, other) = (host.cgroup("a"), host.cgroup("b"));
            let (kernel, path) = (host.kernel.clone(), cgroup.clone());
            let new = [if is_both { 8_000_000 } else { 0 }, 9_000_000];
            let process = host.process_with(move || {
                for (at, new) in [DOWNLOAD, UPLOAD].into_iter().zip(new) {
                    // That for TCP goes by both.
                    for program in [at, AttachType::SOCK_OPS] {
                        let rate = rate_of(&kernel, &path, at, program);
                        assert!(rate.is_none_or(|rate| rate == 0 || rate == new), "{at} {rate:?}");
                    }
                }
            });
            let mut engine = process.start();
            let earlier = |cgroup| Spec { tcp, ..spec(cgroup, Wish::Link) };
            // It keeps the load.
            engine.add(&earlier(&other)).unwrap();
            let first = engine.add(&earlier(&cgroup)).unwrap().id;
            process.control.plan(Some(Fault { nth: 1, mishap: Mishap::Fail(Fail::EPERM) }));
            engine.remove(first).unwrap();
            assert!(process.control.struck());
            process.control.plan(Some(Fault { nth, mishap: Mishap::DieAfter }));
            let download = is_both.then(|| rate(new[0]));
            let again = Spec { download, upload: Some(rate(new[1])), ..earlier(&cgroup) };
            engine.add(&again).unwrap();
            let struck = process.control.struck();
            process.control.plan(None);
            assert_eq!(host.loaded(), if tcp == TcpWish::Shape { 3 } else { 2 }, "one load");
            if !struck {
                break;
            }
            nth += 1;
        }
        assert!(nth > 8, "{nth}");
    }
}

/// Somebody takes ours off and puts theirs there, which lets no other join: then the kernel detaches whatever is there,
/// unless it is told which list was meant (6.17).
#[test]
fn a_program_that_takes_the_place_of_ours_at_any_moment_is_left_alone() {
    for by_name in [true, false] {
        let mut nth = 1;
        loop {
            let host = Host::boot();
            let cgroup = host.cgroup("a");
            let (kernel, path) = (host.kernel.clone(), cgroup.clone());
            let theirs = Rc::new(host.kernel.load_pass("theirs", UPLOAD).unwrap());
            let id = theirs.id();
            let process = host.process_with(move || {
                let open = kernel.open_cgroup(&path).unwrap();
                let list = kernel.query(&open, UPLOAD, Scope::Local).unwrap();
                for ours in list.programs {
                    let ours = kernel.open_program(ours.id).unwrap();
                    kernel.detach(&ours, &open, UPLOAD, None).unwrap();
                }
                kernel.attach(&theirs, &open, UPLOAD, AttachFlags::empty(), None).unwrap();
            });
            let upload = Spec { download: None, ..spec(&cgroup, Wish::Legacy) };
            let struck = if by_name {
                host.crash_with(&[upload]);
                process.control.plan(Some(Fault { nth, mishap: Mishap::DieAfter }));
                process.try_start().unwrap();
                process.control.struck()
            } else {
                let mut engine = process.start();
                let id = engine.add(&upload).unwrap().id;
                process.control.plan(Some(Fault { nth, mishap: Mishap::DieAfter }));
                engine.remove(id).unwrap();
                let struck = process.control.struck();
                process.control.plan(None);
                struck
            };
            let left = if struck { vec![id] } else { vec![] };
            assert_eq!(host.programs(&cgroup, UPLOAD), left, "call {nth}, {by_name}");
            assert!(host.entries().is_empty(), "call {nth}, {by_name}");
            if !struck {
                break;
            }
            nth += 1;
        }
        assert!(nth > 10, "{nth}");
    }
}
