//! Calls whose operands mean the same on every world.

use std::fmt;
use std::sync::LazyLock;

use kernel::AttachType;
use kernel::list::AttachFlags;
use serde::{Deserialize, Serialize};

/// The cgroups' paths below the place where a sequence runs; a call names one by its number.
pub(crate) const PATHS: [&str; 5] = ["a", "a/b", "a/b/c", "a/d", "e"];
/// Those that are there when a sequence begins. So most of the time the second can be removed.
pub(crate) const FIRST_PATHS: [usize; 3] = [0, 1, 4];
/// How many cgroups can be kept open.
pub(crate) const KEPT: usize = 2;
/// How many sockets there can be.
pub(crate) const SOCKETS: usize = 2;
/// How many links can be open.
pub(crate) const LINKS: usize = 3;
/// How many pins there can be.
pub(crate) const PINS: usize = 2;

/// What can be attached: a program's number says which of these it is, and it is loaded when it is first named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does nothing.
    Pass(On),
    /// The packet programs of one load, this one for ingress, the next number for egress.
    ThrottleIngress,
    /// See there.
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

/// An attach type: both directions, and two that programs of one and the same other type are for.
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
        // Asked for thousands of times a second.
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

/// A cgroup to do something on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The last one that was made at a path, also after it was removed.
    Path(u8),
    /// One that was kept open.
    Kept(u8),
}

/// A program to name in a call that is about one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Named {
    /// This one, whether it is there or not.
    Program(u8),
    /// The one at this position of the list (counted round); of a link, its own.
    Attached(u8),
}

/// A revision to insist on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revision {
    /// None.
    Any,
    /// The list's own; 1 where the kernel has none.
    Right,
    /// Another one.
    Wrong,
}

/// Flags, right or wrong.
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

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are operands of the types above, or their numbers.
pub enum Call {
    /// `mkdir`.
    CreateCgroup { path: u8 },
    /// `rmdir`.
    RemoveCgroup { path: u8 },
    /// Opens a cgroup and keeps it; one that was kept there before is closed.
    KeepCgroup { path: u8, kept: u8 },
    /// Makes a socket in a cgroup.
    OpenSocket { path: u8, socket: u8 },
    /// Closes it.
    CloseSocket { socket: u8 },
    /// Closes a program; when it is named again it is a new one.
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
    /// Closes it.
    CloseLink { link: u8 },
    /// `BPF_OBJ_PIN`.
    Pin { link: u8, pin: u8 },
    /// `unlink`.
    Unpin { pin: u8 },
    /// `BPF_OBJ_GET`.
    OpenPinned { pin: u8, link: u8 },
    /// As many links of one program as it takes until there are so many programs in the list, or the kernel
    /// refuses.
    Fill { program: u8, place: Place, on: On, up_to: u8 },
    /// Closes so many of these links, the first ones first.
    CloseFilling { count: u8 },
    /// Writes a throttle's state.
    SetState { program: u8, place: Place, on: On, kilobytes: u16 },
    /// Reads it.
    State { program: u8, place: Place, on: On },
    /// Waits a moment, where a kernel may still have something to do: what should stay is seen to stay.
    Wait,
}

impl Call {
    /// The attach type that it is about, of a call that names one.
    pub(crate) fn on(&self) -> Option<On> {
        match *self {
            Self::Attach { on, .. }
            | Self::Detach { on, .. }
            | Self::CreateLink { on, .. }
            | Self::Fill { on, .. } => Some(on),
            _ => None,
        }
    }

    /// Whether the kernel does a part of it after it has answered.
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
