//! One load of the packet programs.
//!
//! A load can serve every cgroup, but each (cgroup, attach type) only once: its state and its counters lie
//! under these. A second throttle on the same place needs a second load, a second *lane*.

use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::throttle::Loaded;
use bpf::{AttachType, CgroupId};

/// One load. Every throttle that runs its programs holds it, so that it goes with the last one.
pub(crate) struct Lane<B: CgroupBpf> {
    pub(crate) programs: Loaded<B::Program>,
}

/// A (cgroup, attach type).
pub(crate) type Place = (CgroupId, AttachType);

/// The first lane that has all of these places free, where each throttle has a lane and places on it. It has
/// them until it is removed, also those that it was detached from already: its record still names them.
pub(crate) fn find_free<'a, B: CgroupBpf + 'a>(
    lanes: impl IntoIterator<Item = &'a Rc<Lane<B>>>,
    taken: &(impl Iterator<Item = (&'a Rc<Lane<B>>, &'a [Place])> + Clone),
    places: &[Place],
) -> Option<Rc<Lane<B>>> {
    let is_taken = |lane: &Rc<Lane<B>>| {
        taken.clone().any(|(other, its)| {
            Rc::ptr_eq(other, lane) && its.iter().any(|place| places.contains(place))
        })
    };
    lanes.into_iter().find(|lane| !is_taken(lane)).cloned()
}
