//! Tells how much room a place has. A place is a cgroup and an attach type.

use kernel::AttachType;

use crate::facts::AttachmentFact;

/// The kernel's limit for programs at one place (`BPF_CGROUP_MAX_PROGS`).
pub(crate) const SLOTS: u32 = 64;

/// A place with at least this many programs is nearly full.
pub(crate) const NEARLY_FULL: u32 = 48;

/// `BPF_F_ALLOW_MULTI`.
const MULTI: u32 = 2;

/// The room that a place has for another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough room, or unknown.
    Enough,
    /// A quarter of the limit or less.
    Little,
    /// No room: the kernel refuses the next program with `E2BIG`.
    None,
}

/// Returns the room at a place.
///
/// A list without `BPF_F_ALLOW_MULTI` holds one program by design, so it never counts as full. For LSM programs the
/// kernel reports one count for all hooks together, though each hook has its own list. The room is unknown there.
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
    use kernel::{CgroupId, ProgramId};

    use super::*;

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
