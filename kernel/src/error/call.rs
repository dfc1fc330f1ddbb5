//! The kernel calls that can fail, and the capabilities that each call needs.

use nix::errno::Errno;

use crate::host::rights::Capability;

/// A call of this crate into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is named as the kernel names it.
pub enum Call {
    Attach,
    Detach,
    Query,
    LinkCreate,
    /// Creating a link on a network device, where no cgroup's list can refuse.
    DeviceLink,
    LinkDetach,
    LinkUpdate,
    ObjPin,
    ObjGet,
    Unpin,
    NextId,
    FdById,
    Info,
    MapLookup,
    MapUpdate,
    Load,
    /// Loading programs, one of which traces the kernel.
    LoadTracing,
    /// Loading the type information that belongs to a program.
    BtfLoad,
    MapCreate,
    BtfFdById,
    EnableStats,
    OpenCgroup,
    FindCgroup2,
    OpenById,
    ReadProc,
    Iterate,
    Netlink,
    SetNs,
    Unshare,
    PerfEvent,
}

impl Call {
    /// Returns the command's name in `bpf(2)`, or the name of another system call.
    pub fn name(self) -> &'static str {
        match self {
            Call::Attach => "BPF_PROG_ATTACH",
            Call::Detach => "BPF_PROG_DETACH",
            Call::Query => "BPF_PROG_QUERY",
            Call::LinkCreate | Call::DeviceLink => "BPF_LINK_CREATE",
            Call::LinkDetach => "BPF_LINK_DETACH",
            Call::LinkUpdate => "BPF_LINK_UPDATE",
            Call::ObjPin => "BPF_OBJ_PIN",
            Call::ObjGet => "BPF_OBJ_GET",
            Call::Unpin => "unlink",
            Call::NextId => "BPF_*_GET_NEXT_ID",
            Call::FdById => "BPF_*_GET_FD_BY_ID",
            Call::Info => "BPF_OBJ_GET_INFO_BY_FD",
            Call::MapLookup => "BPF_MAP_LOOKUP_ELEM",
            Call::MapUpdate => "BPF_MAP_UPDATE_ELEM",
            Call::Load | Call::LoadTracing => "BPF_PROG_LOAD",
            Call::BtfLoad => "BPF_BTF_LOAD",
            Call::MapCreate => "BPF_MAP_CREATE",
            Call::BtfFdById => "BPF_BTF_GET_FD_BY_ID",
            Call::EnableStats => "BPF_ENABLE_STATS",
            Call::OpenCgroup => "open",
            Call::FindCgroup2 => "mountinfo",
            Call::OpenById => "open_by_handle_at",
            Call::ReadProc => "read",
            Call::Iterate => "BPF_ITER_CREATE",
            Call::Netlink => "rtnetlink",
            Call::SetNs => "setns",
            Call::Unshare => "unshare",
            Call::PerfEvent => "perf_event_open",
        }
    }

    /// Returns the capabilities that the call needs, for the errno with which the kernel refused it. A probe fails at
    /// the first check, which is for `CAP_BPF`.
    pub(super) fn capabilities(self, errno: Errno, is_probe: bool) -> &'static [Capability] {
        use Capability::{
            Bpf, DacOverride, DacReadSearch, NetAdmin, OpenById, Perfmon, SysAdmin, SysPtrace,
        };
        match self {
            Call::Query => &[NetAdmin],
            _ if is_probe => &[Bpf],
            Call::Netlink => &[NetAdmin],
            Call::Attach | Call::Detach | Call::LinkCreate | Call::DeviceLink | Call::Load => {
                &[Bpf, NetAdmin]
            }
            Call::LoadTracing => &[Bpf, NetAdmin, Perfmon],
            Call::NextId
            | Call::FdById
            | Call::BtfFdById
            | Call::EnableStats
            | Call::SetNs
            | Call::Unshare => &[SysAdmin],
            // The pin is a file, and its mode has refused.
            Call::ObjGet | Call::ObjPin if errno == Errno::EACCES => &[DacOverride],
            Call::LinkDetach
            | Call::LinkUpdate
            | Call::ObjPin
            | Call::ObjGet
            | Call::Info
            | Call::BtfLoad
            | Call::MapCreate
            | Call::MapLookup
            | Call::MapUpdate => &[Bpf],
            Call::OpenCgroup | Call::FindCgroup2 | Call::Unpin => &[DacOverride],
            // The files of another user's process need both.
            Call::ReadProc => &[SysPtrace, DacReadSearch],
            Call::Iterate => &[Bpf, Perfmon],
            Call::OpenById => &[OpenById],
            Call::PerfEvent => &[Perfmon],
        }
    }
}
