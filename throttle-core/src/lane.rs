//! One load of the packet programs.
//!
//! A load can serve every cgroup, but each (cgroup, attach type) only once: its state lies under that
//! key. A second throttle on the same place needs a second load, a second *lane*.

use std::rc::Rc;

use bpf::CgroupBpf;
use bpf::throttle::Loaded;
use bpf::{AttachType, CgroupId};

use crate::attachment::Attachment;

/// One load. Every attachment that runs one of its programs holds it, so that it goes with the last one.
pub(crate) struct Lane<B: CgroupBpf> {
    pub(crate) programs: Loaded<B::Program>,
}

/// The first lane that has all of these places free.
pub(crate) fn find_free<'a, B: CgroupBpf + 'a>(
    lanes: &[Rc<Lane<B>>],
    attachments: &(impl Iterator<Item = &'a Attachment<B>> + Clone),
    places: &[(CgroupId, AttachType)],
) -> Option<Rc<Lane<B>>> {
    lanes
        .iter()
        .find(|lane| {
            !attachments.clone().any(|attachment| {
                Rc::ptr_eq(attachment.lane(), lane) && places.contains(&attachment.place())
            })
        })
        .cloned()
}
