//! Other people's programs above a throttle, on the real kernel.

use std::os::fd::AsFd;
use std::path::Path;

use bpf::LinuxBpf;
use kernel::boundary::{Cgroups as _, Links as _};
use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, Scope, attach, query};
use kernel::{AttachType, Program, ProgramId};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use throttle_core::neighbours::{Joining, joining};
use throttle_core::{Error, Spec};

use crate::common::*;

fn plant(cgroup: &Path, attach_type: AttachType, flags: AttachFlags) -> ProgramId {
    let program = Program::load_pass("chadtest_firewall", attach_type).unwrap();
    attach(program.as_fd(), &Cgroup::open(cgroup).unwrap(), attach_type, flags, None).unwrap();
    program.info().id
}

fn in_force(cgroup: &Path, attach_type: AttachType) -> Vec<ProgramId> {
    let list = query(&Cgroup::open(cgroup).unwrap(), attach_type, Scope::Effective, false);
    list.unwrap().programs.iter().map(|program| program.id).collect()
}

#[test]
fn root_a_throttle_below_a_program_that_yields_is_refused_in_every_mode_and_that_stays_in_force() {
    isolate();
    let scratch = ScratchCgroup::new("yields");
    let app = scratch.child("inner/app");
    let theirs = plant(scratch.path(), EGRESS, AttachFlags::OVERRIDE);
    for wish in EVERY_MODE {
        let mut engine = start();
        let error = engine.add(&spec(&app, wish)).unwrap_err();
        assert!(matches!(error, Error::WouldDisplace { .. }), "{wish:?}: {error}");
        let told = error.to_string();
        assert!(told.contains(&format!("program {theirs} 'chadtest_firewa' (tag ")), "{told}");
        let place = format!("attached to {} (cgroup_inet_egress)", scratch.path().display());
        assert!(told.contains(&place), "{told}");
        assert!(in_force(&app, EGRESS).contains(&theirs), "{wish:?}");
        assert!(names(&app).is_empty() && ledger_files().is_empty() && pins().is_empty());

        let started = engine.add(&Spec { displace: true, ..spec(&app, wish) }).unwrap();
        let named: Vec<_> = started.displaced.iter().map(|program| program.id).collect();
        assert_eq!(named, [theirs], "{wish:?}");
        assert!(!in_force(&app, EGRESS).contains(&theirs), "{wish:?}");
        engine.remove(started.id).unwrap();
        assert!(in_force(&app, EGRESS).contains(&theirs), "{wish:?}");
    }
}

/// What is decided in advance is what the kernel does: for each kind of list on the cgroup and on two above it.
#[test]
fn root_what_comes_of_joining_is_what_was_decided_for_every_kind_of_list() {
    isolate();
    let kernel = LinuxBpf::new().unwrap();
    let kinds =
        [None, Some(AttachFlags::empty()), Some(AttachFlags::OVERRIDE), Some(AttachFlags::MULTI)];
    let mut tried = 0;
    for top in kinds {
        for middle in kinds {
            for own in kinds {
                let scratch = ScratchCgroup::new("joining");
                let (inner, app) = (scratch.child("inner"), scratch.child("inner/app"));
                // From below, so that a list of one above does not forbid those below it.
                let lists = [(&app, own), (&inner, middle), (&scratch.path().to_owned(), top)];
                for (place, flags) in lists {
                    flags.map(|flags| plant(place, EGRESS, flags));
                }
                let cgroup = Cgroup::open(&app).unwrap();
                let lineage = kernel.lineages(&cgroup, &[EGRESS]).unwrap().remove(0);
                let before = in_force(&app, EGRESS);
                assert_eq!(lineage.in_force, before);
                let decided = joining(&lineage);
                let program = Program::load_pass("chadtest_joins", EGRESS).unwrap().into();
                let link = kernel.link_create(&program, &cgroup, EGRESS);
                let after = in_force(&app, EGRESS);
                let gone: Vec<_> = before.iter().filter(|id| !after.contains(id)).collect();
                let what = format!("{own:?} below {middle:?} below {top:?}: {decided:?}");
                match &decided {
                    Joining::Free => assert!(link.is_ok() && gone.is_empty(), "{what}"),
                    Joining::Exclusive(_) => assert!(link.is_err(), "{what}"),
                    Joining::Displaces(level) => {
                        assert!(link.is_ok(), "{what}");
                        let named: Vec<_> = level.list.programs.iter().map(|it| &it.id).collect();
                        assert_eq!(gone, named, "{what}");
                    }
                    other => panic!("{other:?}"),
                }
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 64);
}
