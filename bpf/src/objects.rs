//! Every program, link and map that the kernel has.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Call, Error, Kind, Result};
use crate::ids::{LinkId, MapId, ProgramId};
use crate::link::{DeviceLinkInfo, LinkInfo, cgroup_link, device_link};
use crate::program::Program;
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

/// What the kernel says of a link of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyLink {
    /// Its id.
    pub id: LinkId,
    /// Its type, as bpftool names it.
    pub kind: String,
    /// The program that it holds; none for one of a `struct_ops` map.
    pub program_id: Option<ProgramId>,
    /// The `struct_ops` map that it holds.
    pub map_id: Option<MapId>,
}

/// What the kernel says of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapInfo {
    /// Its id.
    pub id: MapId,
    /// Its name, as the kernel kept it; empty for one that has none.
    pub name: String,
    /// Its type, as bpftool names it.
    pub kind: String,
}

/// Every link, of whatever type, by id (5.8). Needs `CAP_SYS_ADMIN`. Links that go away in the meantime are left
/// out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn all_links() -> Result<Vec<AnyLink>> {
    links(|raw| {
        Some(AnyLink {
            id: LinkId(raw.id),
            kind: sys::link_type_name(raw.kind),
            program_id: (raw.program_id != 0).then_some(ProgramId(raw.program_id)),
            map_id: raw.map_id.filter(|id| *id != 0).map(MapId),
        })
    })
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
        let Some(fd) = open(ObjectKind::Link, id, "link")? else { continue };
        let raw = sys::link_info(fd.as_fd())
            .map_err(|errno| Error::new(Call::Info, format!("link {id}"), errno))?;
        links.extend(of(raw));
    }
    Ok(links)
}

/// Every map, by id. Needs `CAP_SYS_ADMIN`. Maps that go away in the meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn maps() -> Result<Vec<MapInfo>> {
    let mut maps = Vec::new();
    for id in ids(ObjectKind::Map, "maps")? {
        let Some(fd) = open(ObjectKind::Map, id, "map")? else { continue };
        let raw = sys::map_info(fd.as_fd())
            .map_err(|errno| Error::new(Call::Info, format!("map {id}"), errno))?;
        maps.push(MapInfo {
            id: MapId(raw.id),
            name: raw.name,
            kind: sys::map_type_name(raw.kind),
        });
    }
    Ok(maps)
}

/// Opens what has an id; `None` when it went away after its id was read.
fn open(kind: ObjectKind, id: u32, name: &str) -> Result<Option<OwnedFd>> {
    match sys::fd_by_id(kind, id) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::new(Call::FdById, format!("{name} {id}"), errno)),
    }
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
