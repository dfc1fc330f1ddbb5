//! BPF links on cgroups and network devices. A link's attachment ends with the link's last holder.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use crate::attach::attach_type::AttachType;
use crate::attach::list::place;
use crate::cgroup::{Cgroup, shown};
use crate::error::{Call, Error, Result};
use crate::object::again::settled;
use crate::object::ids::{CgroupId, LinkId, ProgramId};
use crate::sys::{self, ObjectKind};

/// An open cgroup link.
#[must_use = "dropping the last holder of a link that is not pinned detaches its program"]
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    id: LinkId,
}

/// The kernel's information about a cgroup link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// The link's id.
    pub id: LinkId,
    /// The id of the program that the link holds.
    pub program_id: ProgramId,
    /// The cgroup's id; `None` for a defunct link, which is detached or has lost its cgroup.
    pub cgroup_id: Option<CgroupId>,
    /// The link's attach type; `None` for a type that this build does not know.
    pub attach_type: Option<AttachType>,
}

/// The direction of the packets that a tcx link's program handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Packets that the device receives (`tcx_ingress`).
    Ingress,
    /// Packets that the device sends (`tcx_egress`).
    Egress,
}

impl Way {
    /// Returns the number in `enum bpf_attach_type`.
    fn kernel(self) -> u32 {
        match self {
            Self::Ingress => sys::TCX_INGRESS,
            Self::Egress => sys::TCX_EGRESS,
        }
    }
}

/// The kernel's information about a tcx link, a link on a network device (6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLinkInfo {
    /// The link's id.
    pub id: LinkId,
    /// The id of the program that the link holds.
    pub program_id: ProgramId,
    /// The device's number in its network namespace; the kernel does not report the namespace. `None` for a defunct
    /// link, which is detached or has lost its device.
    pub device: Option<u32>,
    /// The direction of the packets.
    pub way: Way,
}

impl Link {
    /// Attaches a program to a cgroup through a new link (5.7). The kernel detaches the program when the last holder
    /// closes the link, even if the process is killed. A pin is a holder too.
    ///
    /// Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `Full` when 64 programs are attached. `Denied` without the capabilities, or when this list or an ancestor's list
    /// is not MULTI.
    pub fn create(
        program: BorrowedFd<'_>,
        cgroup: &Cgroup,
        attach_type: AttachType,
    ) -> Result<Self> {
        let fd = sys::link_create(Some(program), Some(cgroup.as_fd()), attach_type.kernel())
            .map_err(|errno| Error::new(Call::LinkCreate, place(cgroup, attach_type), errno))?;
        Self::from_fd(fd, "a new link")
    }

    /// Attaches a queue's program to a network device through a tcx link (6.6). `device` is the number in this thread's
    /// network namespace.
    ///
    /// The link ends with its last holder or with the device. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `Vanished` when there is no such device. `EINVAL` when the kernel has no tcx links, or when the program has
    /// another type.
    pub fn create_on_device(program: BorrowedFd<'_>, device: u32, way: Way) -> Result<Self> {
        let fd = sys::link_on_device(program, device, way.kernel()).map_err(|errno| {
            Error::new(Call::DeviceLink, format!("network device {device}"), errno)
        })?;
        Self::from_fd(fd, "a new link")
    }

    /// Opens a link by its pin.
    ///
    /// # Errors
    /// `Vanished` when nothing is pinned there; `EINVAL` when the pin is not a link's.
    pub fn open_pinned(path: &Path) -> Result<Self> {
        let fd =
            sys::obj_get(path).map_err(|errno| Error::new(Call::ObjGet, shown(path), errno))?;
        Self::from_fd(fd, &shown(path))
    }

    /// Opens a link by its id. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// `Vanished` when no link has this id. `Changed` when another process is still creating the link after an eighth
    /// of a second.
    pub fn open(id: LinkId) -> Result<Self> {
        let fd = settled(|| sys::fd_by_id(ObjectKind::Link, id.0))
            .map_err(|errno| Error::new(Call::FdById, format!("link {id}"), errno))?;
        Ok(Self { fd, id })
    }

    fn from_fd(fd: OwnedFd, name: &str) -> Result<Self> {
        let raw =
            sys::link_info(fd.as_fd()).map_err(|errno| Error::new(Call::Info, name, errno))?;
        Ok(Self { fd, id: LinkId(raw.id) })
    }

    /// Returns the link's id.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Reads the current information about a cgroup link.
    ///
    /// # Errors
    /// `EINVAL` when the link is not a cgroup link.
    pub fn info(&self) -> Result<LinkInfo> {
        let fail = |errno| Error::new(Call::Info, format!("link {}", self.id), errno);
        let raw = sys::link_info(self.fd.as_fd()).map_err(fail)?;
        cgroup_link(raw).ok_or_else(|| self.is_not("not a cgroup link"))
    }

    /// Reads the current information about a tcx link.
    ///
    /// # Errors
    /// `EINVAL` when the link is not a tcx link.
    pub fn device_info(&self) -> Result<DeviceLinkInfo> {
        let fail = |errno| Error::new(Call::Info, format!("link {}", self.id), errno);
        let raw = sys::link_info(self.fd.as_fd()).map_err(fail)?;
        device_link(raw).ok_or_else(|| self.is_not("not a tcx link"))
    }

    fn is_not(&self, what: &str) -> Error {
        Error::found(Call::Info, format!("link {}", self.id), Errno::EINVAL).with_detail(what)
    }

    /// Detaches the program (5.9). The link is then defunct. It keeps the program loaded until its last holder closes
    /// it.
    ///
    /// Needs no capability, only the open link. Detaching an already detached link (`ENOLINK`) succeeds.
    ///
    /// # Errors
    /// Any other errno of the call.
    pub fn detach(&self) -> Result<()> {
        match sys::link_detach(self.fd.as_fd()) {
            Ok(()) | Err(Errno::ENOLINK) => Ok(()),
            Err(errno) => Err(Error::new(Call::LinkDetach, format!("link {}", self.id), errno)),
        }
    }

    /// Replaces the link's program (5.7). With `old`, replaces it only if `old` is the link's current program.
    ///
    /// # Errors
    /// `Denied` when `old` is not the current program. `Vanished` when the link is defunct. `EINVAL` when the new
    /// program has another type.
    pub fn update(&self, new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> Result<()> {
        sys::link_update(self.fd.as_fd(), new, old)
            .map_err(|errno| Error::new(Call::LinkUpdate, format!("link {}", self.id), errno))
    }

    /// Pins the link at a path in a bpffs. The link then outlives this process.
    ///
    /// # Errors
    /// `Vanished` when the folder does not exist. `EEXIST` when the path is taken. `EPERM` when the folder is not in a
    /// bpffs, or without `CAP_BPF`.
    pub fn pin(&self, path: &Path) -> Result<()> {
        sys::obj_pin(self.fd.as_fd(), path)
            .map_err(|errno| Error::new(Call::ObjPin, shown(path), errno))
    }
}

/// Returns the information about a cgroup link, `None` for any other link.
pub(crate) fn cgroup_link(raw: sys::RawLink) -> Option<LinkInfo> {
    let (cgroup_id, attach_type) = raw.cgroup?;
    Some(LinkInfo {
        id: LinkId(raw.id),
        program_id: ProgramId(raw.program_id),
        cgroup_id: (cgroup_id != 0).then_some(CgroupId(cgroup_id)),
        attach_type: AttachType::from_kernel(attach_type),
    })
}

/// Returns the information about a tcx link, `None` for any other link.
pub(crate) fn device_link(raw: sys::RawLink) -> Option<DeviceLinkInfo> {
    let (device, attach_type) = raw.device?;
    Some(DeviceLinkInfo {
        id: LinkId(raw.id),
        program_id: ProgramId(raw.program_id),
        device: (device != 0).then_some(device),
        way: if attach_type == sys::TCX_INGRESS { Way::Ingress } else { Way::Egress },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: sys::RawLink = sys::RawLink {
        id: 8,
        kind: 0,
        program_id: 7,
        map_id: None,
        cgroup: None,
        device: None,
        on_device: None,
    };

    #[test]
    fn a_link_on_a_cgroup_is_told_with_it_until_it_is_defunct() {
        let egress = AttachType::INET_EGRESS.kernel();
        let of = |cgroup| cgroup_link(sys::RawLink { cgroup, ..NONE });
        assert_eq!(of(None), None);
        let told = of(Some((9, egress))).unwrap();
        assert_eq!((told.id, told.program_id), (LinkId(8), ProgramId(7)));
        let expected = (Some(CgroupId(9)), Some(AttachType::INET_EGRESS));
        assert_eq!((told.cgroup_id, told.attach_type), expected);
        assert_eq!(of(Some((0, egress))).unwrap().cgroup_id, None);
        let newer = of(Some((9, u32::MAX))).unwrap();
        assert_eq!(newer.attach_type, None, "a type that this build does not know");
        assert_eq!(cgroup_link(sys::RawLink { device: Some((2, 0)), ..NONE }), None);
    }

    #[test]
    fn a_link_on_a_device_is_told_with_it_until_that_is_gone() {
        let of = |device| device_link(sys::RawLink { device, ..NONE });
        assert_eq!(of(None), None);
        for (attach_type, way) in
            [(sys::TCX_INGRESS, Way::Ingress), (sys::TCX_INGRESS + 1, Way::Egress)]
        {
            let told = of(Some((2, attach_type))).unwrap();
            assert_eq!((told.id, told.program_id), (LinkId(8), ProgramId(7)));
            assert_eq!((told.device, told.way), (Some(2), way));
            assert_eq!(of(Some((0, attach_type))).unwrap().device, None);
        }
        assert_eq!(device_link(sys::RawLink { cgroup: Some((9, 0)), ..NONE }), None);
    }
}
