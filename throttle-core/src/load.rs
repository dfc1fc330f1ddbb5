//! One load of the packet programs.
//!
//! A load serves any number of cgroups, but each (cgroup, attach type) only once, because state and counters lie under
//! that key. A second throttle on the same place needs a second load.

use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::throttle::Loaded;
use kernel::{AttachType, CgroupId};

/// One load. Every throttle that runs its programs holds it, so the programs go with the last throttle.
pub(crate) struct Load<B: CgroupBpf> {
    pub(crate) programs: Loaded<B::Program>,
}

/// A (cgroup, attach type).
pub(crate) type Place = (CgroupId, AttachType);

/// Finds the first load that has all of these places free. `taken` has each throttle's load and places. A throttle keeps
/// its places until it is removed, also those that it was detached from already, because its record still names them.
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
