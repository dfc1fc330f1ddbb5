//! Defines calls with operands that mean the same on every world.

use std::fmt;
use std::sync::LazyLock;

use kernel::AttachType;
use kernel::list::AttachFlags;
use serde::{Deserialize, Serialize};

/// The cgroups' paths below the place of a sequence. A call names a path by its number.
pub(crate) const PATHS: [&str; 5] = ["a", "a/b", "a/b/c", "a/d", "e"];
/// The paths that exist when a sequence begins. So the second one can be removed most of the time.
pub(crate) const FIRST_PATHS: [usize; 3] = [0, 1, 4];
/// The most cgroups that are kept open.
pub(crate) const KEPT: usize = 2;
/// The most sockets.
pub(crate) const SOCKETS: usize = 2;
/// The most open links.
pub(crate) const LINKS: usize = 3;
/// The most pins.
pub(crate) const PINS: usize = 2;

/// The kind of a program. The program's number decides it, and the first call that names a program loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program that does nothing.
    Pass(On),
    /// The ingress program of a throttle. The next number is the egress program of the same load.
    ThrottleIngress,
    /// The egress program of that load.
    ThrottleEgress,
}

pub(crate) const PROGRAMS: [Kind; 11] = [
    Kind::Pass(On::Ingress),
    Kind::Pass(On::Ingress),
    Kind::Pass(On::Ingress),
    Kind::Pass(On::Egress),
    Kind::Pass(On::Egress),
    Kind::Pass(On::SockCreate),
    Kind::Pass(On::PostBind),
    Kind::ThrottleIngress,
    Kind::ThrottleEgress,
    Kind::ThrottleIngress,
    Kind::ThrottleEgress,
];

/// An attach type. Two are for packets in either direction, and two share another program type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // Named as the kernel names them.
pub enum On {
    Ingress,
    Egress,
    SockCreate,
    PostBind,
}

impl On {
    pub(crate) const ALL: [Self; 4] =
        [Self::Ingress, Self::Egress, Self::SockCreate, Self::PostBind];

    pub(crate) fn attach_type(self) -> AttachType {
        // Callers ask thousands of times a second.
        static TYPES: LazyLock<[AttachType; 4]> = LazyLock::new(|| {
            [
                "cgroup_inet_ingress",
                "cgroup_inet_egress",
                "cgroup_inet_sock_create",
                "cgroup_inet4_post_bind",
            ]
            .map(|name| name.parse().expect("an attach type as bpftool names it"))
        });
        TYPES[self as usize]
    }

    pub(crate) fn of(attach_type: AttachType) -> Option<Self> {
        Self::ALL.into_iter().find(|on| on.attach_type() == attach_type)
    }
}

/// A cgroup to call on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The latest cgroup at a path, even if it was removed.
    Path(u8),
    /// A cgroup that was kept open.
    Kept(u8),
}

/// A program named in a call about an existing attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Named {
    /// This program, whether it is attached or not.
    Program(u8),
    /// The program at this position of the list, modulo its length. For a link, the link's own program.
    Attached(u8),
}

/// The revision that a call expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revision {
    /// No expected revision.
    Any,
    /// The revision of the list, or 1 if the kernel has none.
    Right,
    /// A wrong revision.
    Wrong,
}

/// Flags, valid or not.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(pub u32);

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("NONE");
        }
        bitflags_names(self.0, f)
    }
}

fn bitflags_names(bits: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (mut between, mut rest) = ("", bits);
    for (name, flag) in AttachFlags::from_bits_retain(bits).iter_names() {
        write!(f, "{between}{name}")?;
        between = "|";
        rest &= !flag.bits();
    }
    if rest == 0 { Ok(()) } else { write!(f, "{between}{rest:#x}") }
}

/// A call of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are operands of the types above, or their numbers.
pub enum Call {
    /// `mkdir`.
    CreateCgroup { path: u8 },
    /// `rmdir`.
    RemoveCgroup { path: u8 },
    /// Opens a cgroup and keeps it. A cgroup that was kept under this number is closed.
    KeepCgroup { path: u8, kept: u8 },
    /// Opens a socket in a cgroup.
    OpenSocket { path: u8, socket: u8 },
    /// Closes a socket.
    CloseSocket { socket: u8 },
    /// Closes a program. The next call that names it loads a new one.
    CloseProgram { program: u8 },
    /// `BPF_PROG_ATTACH`.
    Attach {
        program: u8,
        place: Place,
        on: On,
        flags: Flags,
        replace: Option<Named>,
        revision: Revision,
    },
    /// `BPF_PROG_DETACH`.
    Detach { program: Option<Named>, place: Place, on: On, flags: Flags, revision: Revision },
    /// `BPF_LINK_CREATE`.
    CreateLink { link: u8, program: u8, place: Place, on: On },
    /// `BPF_LINK_UPDATE`.
    UpdateLink { link: u8, new: u8, old: Option<Named> },
    /// `BPF_LINK_DETACH`.
    DetachLink { link: u8 },
    /// Closes a link.
    CloseLink { link: u8 },
    /// `BPF_OBJ_PIN`.
    Pin { link: u8, pin: u8 },
    /// `unlink`.
    Unpin { pin: u8 },
    /// `BPF_OBJ_GET`.
    OpenPinned { pin: u8, link: u8 },
    /// Creates links of one program until the list has `up_to` programs, or until the kernel refuses.
    Fill { program: u8, place: Place, on: On, up_to: u8 },
    /// Closes this many of those links, the oldest first.
    CloseFilling { count: u8 },
    /// Writes a throttle's state.
    SetState { program: u8, place: Place, on: On, kilobytes: u16 },
    /// Reads a throttle's state.
    State { program: u8, place: Place, on: On },
    /// Waits a moment for unfinished work of the kernel. What should stay is then seen to stay.
    Wait,
}

impl Call {
    /// Returns the attach type that the call names, if any.
    pub(crate) fn on(&self) -> Option<On> {
        match *self {
            Self::Attach { on, .. }
            | Self::Detach { on, .. }
            | Self::CreateLink { on, .. }
            | Self::Fill { on, .. } => Some(on),
            _ => None,
        }
    }

    /// Tells whether the kernel finishes the call after it has returned.
    pub fn is_finished_later(&self) -> bool {
        matches!(
            self,
            Self::RemoveCgroup { .. }
                | Self::CloseSocket { .. }
                | Self::CloseLink { .. }
                | Self::CloseFilling { .. }
                | Self::Unpin { .. }
        )
    }
}
