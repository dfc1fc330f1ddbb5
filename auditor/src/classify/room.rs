//! How much room is left at a place: a cgroup and an attach type.

use bpf::AttachType;

use crate::snapshot::AttachmentFact;

/// The most programs that the kernel takes at one place (`BPF_CGROUP_MAX_PROGS`).
pub(crate) const SLOTS: u32 = 64;

/// From so many programs on a place is nearly full.
pub(crate) const NEARLY_FULL: u32 = 48;

/// `BPF_F_ALLOW_MULTI`.
const MULTI: u32 = 2;

/// How much room there is for another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough, or nobody can tell.
    Enough,
    /// A quarter of the place, or less.
    Little,
    /// None: the kernel refuses the next program (`E2BIG`).
    None,
}

/// How much room there is.
///
/// A list of one (no flag, or `BPF_F_ALLOW_OVERRIDE`) is meant to be one. Of LSM programs the kernel counts
/// those of all hooks together, though each hook has a list of its own: there nobody can tell.
pub(crate) fn room(place: &AttachmentFact) -> Room {
    let flags = place.list_flags | place.program_flags.unwrap_or_default();
    if flags & MULTI == 0 || place.attach_type == AttachType::LSM {
        return Room::Enough;
    }
    match place.slots_used {
        SLOTS.. => Room::None,
        NEARLY_FULL.. => Room::Little,
        _ => Room::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpf::{CgroupId, ProgramId};

    fn place(slots_used: u32) -> AttachmentFact {
        AttachmentFact {
            cgroup: "/a".into(),
            cgroup_id: CgroupId(7),
            attach_type: AttachType::INET_INGRESS,
            program_id: ProgramId(1),
            list_flags: MULTI,
            program_flags: None,
            slots_used,
            state: None,
        }
    }

    #[test]
    fn a_place_is_nearly_full_from_48_on_and_full_with_64() {
        for (used, expected) in [
            (1, Room::Enough),
            (47, Room::Enough),
            (48, Room::Little),
            (63, Room::Little),
            (64, Room::None),
        ] {
            assert_eq!(room(&place(used)), expected, "{used}");
        }
    }

    #[test]
    fn a_list_of_one_and_the_lists_of_lsm_hooks_are_never_called_full() {
        assert_eq!(room(&AttachmentFact { list_flags: 1, ..place(64) }), Room::Enough);
        assert_eq!(room(&AttachmentFact { list_flags: 0, ..place(64) }), Room::Enough);
        let lsm = AttachmentFact { attach_type: AttachType::LSM, ..place(64) };
        assert_eq!(room(&AttachmentFact { program_flags: Some(2), ..lsm }), Room::Enough);
    }
}
