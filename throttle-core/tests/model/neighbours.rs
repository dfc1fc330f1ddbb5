//! Other people's programs above a throttle: they stay in force, or somebody has asked for it.

use std::path::{Path, PathBuf};

use kernel::boundary::{Cgroups as _, Programs as _};
use kernel::list::{AttachFlags, MAX_PROGRAMS, Scope};
use kernel::{AttachType, ProgramId};
use sim::{Attach, World};
use sim::{Model, ModelProgram};
use throttle_core::mode::{Tcp, TcpWish, Wish};
use throttle_core::{Error, Spec};
use vmtests::sequences::step::{Fault, Mishap};

use crate::common::*;

const EGRESS: AttachType = AttachType::INET_EGRESS;
const TCP: AttachType = AttachType::SOCK_OPS;

/// Attaches a program of somebody else's, who holds it.
pub(crate) fn plant(
    kernel: &Model,
    at: &Path,
    attach_type: AttachType,
    flags: AttachFlags,
) -> ModelProgram {
    let cgroup = kernel.open_cgroup(at).unwrap();
    let program = kernel.load_pass("firewall", attach_type).unwrap();
    let asked = Attach { flags, replace: None, expected_revision: None };
    kernel.attach_with(&program, &cgroup, attach_type, &asked).unwrap();
    program
}

fn in_force(host: &Host, cgroup: &Path, attach_type: AttachType) -> Vec<ProgramId> {
    let cgroup = host.kernel.open_cgroup(cgroup).unwrap();
    let list = host.kernel.query(&cgroup, attach_type, Scope::Effective).unwrap();
    list.programs.iter().map(|program| program.id).collect()
}

/// A cgroup, and one two levels below it.
fn slice_and_app(host: &Host) -> (PathBuf, PathBuf) {
    let slice = host.cgroup("slice");
    host.cgroup("slice/inner");
    (slice, host.cgroup("slice/inner/app"))
}

#[test]
fn a_throttle_that_would_switch_a_firewall_off_is_refused_before_anything_is_done() {
    for wish in EVERY_MODE {
        let host = Host::boot();
        let (slice, app) = slice_and_app(&host);
        let firewall = plant(&host.kernel, &slice, EGRESS, AttachFlags::OVERRIDE);
        let process = host.process();
        let mut engine = process.start();
        let error = engine.add(&spec(&app, wish)).unwrap_err();
        let Error::WouldDisplace { cgroup, programs, .. } = &error else { panic!("{error}") };
        assert_eq!(cgroup, &app);
        assert_eq!(programs.len(), 1, "{programs:?}");
        assert_eq!((programs[0].id, programs[0].cgroup.as_ref()), (firewall.id(), Some(&slice)));
        let told = error.to_string();
        for word in ["'firewall'", "/slice (cgroup_inet_egress)", "ALLOW_OVERRIDE", "--displace"] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(in_force(&host, &app, EGRESS), [firewall.id()]);
        assert_eq!((host.attached(&app), host.loaded(), host.entries().len()), (0, 0, 0));
        assert!(engine.list().is_empty());
    }
}

#[test]
fn with_leave_it_is_added_names_what_is_out_of_force_and_that_comes_back() {
    for wish in EVERY_MODE {
        let host = Host::boot();
        let (slice, app) = slice_and_app(&host);
        let firewall = plant(&host.kernel, &slice, EGRESS, AttachFlags::OVERRIDE);
        let mut engine = host.process().start();
        let started = engine.add(&Spec { displace: true, ..spec(&app, wish) }).unwrap();
        let named: Vec<_> = started.displaced.iter().map(|program| program.id).collect();
        assert_eq!(named, [firewall.id()], "each once: {:?}", started.displaced);
        assert!(!in_force(&host, &app, EGRESS).contains(&firewall.id()));
        engine.remove(started.id).unwrap();
        assert_eq!(in_force(&host, &app, EGRESS), [firewall.id()]);
    }
}

#[test]
fn where_no_firewall_yields_nothing_is_said_of_any() {
    let host = Host::boot();
    let (slice, app) = slice_and_app(&host);
    let above = plant(&host.kernel, &slice, EGRESS, AttachFlags::MULTI);
    let below = host.cgroup("slice/inner/app/below");
    let alone = plant(&host.kernel, &below, EGRESS, AttachFlags::empty());
    let mut engine = host.process().start();
    let started = engine.add(&spec(&app, Wish::Link)).unwrap();
    assert_eq!(started.displaced, []);
    assert!(in_force(&host, &app, EGRESS).contains(&above.id()));
    assert!(in_force(&host, &below, EGRESS).contains(&alone.id()));
}

#[test]
fn tcp_is_policed_where_the_program_that_shapes_it_would_be_in_somebodys_way() {
    for flags in [AttachFlags::OVERRIDE, AttachFlags::empty()] {
        let host = Host::boot();
        let (slice, app) = slice_and_app(&host);
        let theirs = plant(&host.kernel, &slice, TCP, flags);
        let mut engine = host.process().start();
        let auto = Spec { tcp: TcpWish::Auto, ..spec(&app, Wish::Link) };
        let started = engine.add(&auto).unwrap();
        assert_eq!(started.tcp, Tcp::Police);
        assert!(started.notes.iter().any(|note| note.contains("leaves no room")), "{started:?}");
        assert_eq!(in_force(&host, &app, TCP), [theirs.id()]);
        engine.remove(started.id).unwrap();

        let error = engine.add(&spec(&app, Wish::Link)).unwrap_err();
        assert!(error.to_string().contains("'firewall'"), "{error}");
        assert_eq!(in_force(&host, &app, TCP), [theirs.id()]);
    }
}

#[test]
fn who_takes_a_place_for_himself_is_named() {
    for (flags, level) in [
        (AttachFlags::empty(), "slice"),
        (AttachFlags::empty(), "slice/inner/app"),
        (AttachFlags::OVERRIDE, "slice/inner/app"),
    ] {
        let host = Host::boot();
        let (slice, app) = slice_and_app(&host);
        let there = slice.parent().unwrap().join(level);
        plant(&host.kernel, &there, EGRESS, flags);
        let mut engine = host.process().start();
        // Leave to displace is no leave to detach.
        let error = engine.add(&Spec { displace: true, ..spec(&app, Wish::Link) }).unwrap_err();
        assert!(matches!(error, Error::Exclusive { .. }), "{error}");
        let place = format!("attached to {} (", there.display());
        assert!(error.to_string().contains(&place), "{error}");
    }
}

#[test]
fn a_full_place_is_told_of_before_anything_is_loaded() {
    let host = Host::boot();
    let app = host.cgroup("app");
    let taken: Vec<_> =
        (0..MAX_PROGRAMS).map(|_| plant(&host.kernel, &app, EGRESS, AttachFlags::MULTI)).collect();
    let mut engine = host.process().start();
    let error = engine.add(&spec(&app, Wish::Link)).unwrap_err();
    assert!(matches!(error, Error::Full { attach_type: EGRESS, .. }), "{error}");
    assert_eq!(host.attached(&app), taken.len());
}

/// Somebody puts a firewall up right after the engine has looked.
#[test]
fn a_firewall_that_comes_between_the_look_and_the_throttle_is_noticed_and_left_in_force() {
    for displace in [false, true] {
        for wish in EVERY_MODE {
            let host = Host::boot();
            let (slice, app) = slice_and_app(&host);
            let (kernel, place) = (host.kernel.clone(), slice.clone());
            let process = host.process_with(move || {
                drop(plant(&kernel, &place, EGRESS, AttachFlags::OVERRIDE));
            });
            let mut engine = process.start();
            // The cgroup is opened, and then come the lists.
            process.control.plan(Some(Fault { nth: 2, mishap: Mishap::DieAfter }));
            let added = engine.add(&Spec { displace, ..spec(&app, wish) });
            assert!(process.control.struck());
            let firewall = host.programs(&slice, EGRESS);
            if displace {
                let named = added.unwrap().displaced;
                assert_eq!(named.iter().map(|it| it.id).collect::<Vec<_>>(), firewall);
                continue;
            }
            let error = added.unwrap_err();
            let Error::Displaced { programs, .. } = &error else { panic!("{error}") };
            assert_eq!(programs[0].cgroup.as_ref(), Some(&slice));
            assert_eq!(in_force(&host, &app, EGRESS), firewall, "{wish:?}");
            assert_eq!((host.attached(&app), host.entries().len()), (0, 0), "{wish:?}");
            assert!(engine.list().is_empty());
        }
    }
}

/// What kept the firewall out of force leaves right after the engine has looked.
#[test]
fn a_firewall_that_would_have_come_back_into_force_is_noticed_as_well() {
    let host = Host::boot();
    let (slice, app) = slice_and_app(&host);
    plant(&host.kernel, &slice, EGRESS, AttachFlags::OVERRIDE);
    let other = plant(&host.kernel, &app, EGRESS, AttachFlags::MULTI);
    let (kernel, place) = (host.kernel.clone(), app.clone());
    let process = host.process_with(move || {
        let cgroup = kernel.open_cgroup(&place).unwrap();
        kernel.detach(&other, &cgroup, EGRESS, None).unwrap();
    });
    let mut engine = process.start();
    process.control.plan(Some(Fault { nth: 2, mishap: Mishap::DieAfter }));
    let error = engine.add(&spec(&app, Wish::Link)).unwrap_err();
    assert!(matches!(error, Error::Displaced { .. }), "{error}");
    assert_eq!(in_force(&host, &app, EGRESS), host.programs(&slice, EGRESS));
}
