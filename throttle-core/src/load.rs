//! One load of the packet programs.
//!
//! A load serves any number of cgroups, but each cgroup and attach type only once, because they are the key of state
//! and counters. A second throttle on the same place needs a second load.

use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::throttle::Loaded;
use kernel::{AttachType, CgroupId};

/// One load. Each throttle that uses its programs holds it, so the programs end with the last throttle.
pub(crate) struct Load<B: CgroupBpf> {
    pub(crate) programs: Loaded<B::Program>,
}

/// A cgroup and attach type.
pub(crate) type Place = (CgroupId, AttachType);

/// Finds the first load in which all these places are free. `taken` lists each throttle's load and places.
///
/// A throttle keeps all its places until its removal succeeds, because its ledger entry still names them.
pub(crate) fn find_free<'a, B: CgroupBpf + 'a>(
    loads: impl IntoIterator<Item = &'a Rc<Load<B>>>,
    taken: &(impl Iterator<Item = (&'a Rc<Load<B>>, &'a [Place])> + Clone),
    places: &[Place],
) -> Option<Rc<Load<B>>> {
    let is_taken = |load: &Rc<Load<B>>| {
        taken.clone().any(|(other, its)| {
            Rc::ptr_eq(other, load) && its.iter().any(|place| places.contains(place))
        })
    };
    loads.into_iter().find(|load| !is_taken(load)).cloned()
}
