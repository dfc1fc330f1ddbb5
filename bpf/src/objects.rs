//! Every program and link that the kernel has.

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::error::{Call, Error, Kind, Result};
use crate::ids::{MapId, ProgramId};
use crate::link::{DeviceLinkInfo, LinkInfo, cgroup_link, device_link};
use crate::program::{Program, open_map};
use crate::sys::{self, ObjectKind};

/// The ids of every loaded program, ascending. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn program_ids() -> Result<Vec<ProgramId>> {
    Ok(ids(ObjectKind::Program, "programs")?.into_iter().map(ProgramId).collect())
}

/// Opens a program; `None` when it went away after its id was read.
///
/// # Errors
/// Any other failure.
pub fn program(id: ProgramId) -> Result<Option<Program>> {
    match Program::open(id) {
        Ok(program) => Ok(Some(program)),
        Err(error) if error.kind() == Kind::Vanished => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every link on a cgroup, defunct ones too, by id. Needs `CAP_SYS_ADMIN`. Links that go away in the
/// meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn cgroup_links() -> Result<Vec<LinkInfo>> {
    links(cgroup_link)
}

/// Every tcx link, which is on a network device, defunct ones too, by id: of all network namespaces. Needs
/// `CAP_SYS_ADMIN`. Links that go away in the meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn device_links() -> Result<Vec<DeviceLinkInfo>> {
    links(device_link)
}

fn links<T>(of: impl Fn(sys::RawLink) -> Option<T>) -> Result<Vec<T>> {
    let mut links = Vec::new();
    for id in ids(ObjectKind::Link, "links")? {
        let fd = match sys::fd_by_id(ObjectKind::Link, id) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(Error::new(Call::FdById, format!("link {id}"), errno)),
        };
        let raw = sys::link_info(fd.as_fd())
            .map_err(|errno| Error::new(Call::Info, format!("link {id}"), errno))?;
        links.extend(of(raw));
    }
    Ok(links)
}

/// The name of every map. Needs `CAP_SYS_ADMIN`. Maps that go away in the meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn map_names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for id in ids(ObjectKind::Map, "maps")? {
        match open_map(MapId(id)) {
            Ok(map) => names.push(map.name),
            Err(error) if error.kind() == Kind::Vanished => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

fn ids(kind: ObjectKind, name: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut last = 0;
    while let Some(id) =
        sys::next_id(kind, last).map_err(|errno| Error::new(Call::NextId, name, errno))?
    {
        ids.push(id);
        last = id;
    }
    Ok(ids)
}
