//! Lists every program, link and map of the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::{Call, Error, Kind, Result};
use crate::object::again::{Reading, read_all};
use crate::object::ids::{LinkId, MapId, ProgramId};
use crate::object::link::{DeviceLinkInfo, LinkInfo, cgroup_link, device_link};
use crate::object::pins::Held;
use crate::object::program::Program;
use crate::sys::{self, ObjectKind};

/// Returns the ids of every loaded program, ascending. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the capability. Any error ends the enumeration; no error counts as the end of the list.
pub fn program_ids() -> Result<Vec<ProgramId>> {
    Ok(ids(ObjectKind::Program, "programs")?.into_iter().map(ProgramId).collect())
}

/// Opens a program; `None` if it went away after its id was read.
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

/// The kernel's information about a link of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyLink {
    /// The link's id.
    pub id: LinkId,
    /// The link's type, under the name that bpftool uses.
    pub kind: String,
    /// The id of the program that the link holds. `None` for a link of a `struct_ops` map.
    pub program_id: Option<ProgramId>,
    /// The id of the `struct_ops` map that the link holds.
    pub map_id: Option<MapId>,
    /// The number of the link's network device; 0 if the device is gone. `None` for a link of another type.
    ///
    /// The number counts in the device's network namespace, which the kernel does not report.
    pub device: Option<u32>,
}

/// The kernel's information about a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapInfo {
    /// The map's id.
    pub id: MapId,
    /// The map's name, as the kernel has cut it; empty if there is none.
    pub name: String,
    /// The map's type, under the name that bpftool uses.
    pub kind: String,
    /// The programs in a `prog_array`, `devmap` or `cpumap`, or the maps in a map of maps. An error if they could not
    /// be read.
    pub slots: Result<Vec<Slot>>,
}

/// A map slot. It keeps a program or another map for as long as the map lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The slot's key: an index, or hexadecimal digits for a key longer than four bytes.
    pub key: String,
    /// The object in the slot.
    pub held: Held,
}

/// The kernel's links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links<T> {
    /// The information about each link, by id.
    pub links: Vec<T>,
    /// Links of any type that were still being created after an eighth of a second. The kernel gives no information
    /// about them yet.
    pub changing: Vec<LinkId>,
}

/// Lists every link of any type, by id (5.8). Leaves out links that go away meanwhile.
///
/// Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the capability. Any error ends the enumeration; no error counts as the end of the list.
pub fn all_links() -> Result<Links<AnyLink>> {
    links(|raw| {
        Some(AnyLink {
            id: LinkId(raw.id),
            kind: sys::link_type_name(raw.kind),
            program_id: (raw.program_id != 0).then_some(ProgramId(raw.program_id)),
            map_id: raw.map_id.filter(|id| *id != 0).map(MapId),
            device: raw.on_device,
        })
    })
}

/// Lists every cgroup link, including defunct ones, by id. Leaves out links that go away meanwhile.
///
/// Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the capability. Any error ends the enumeration; no error counts as the end of the list.
pub fn cgroup_links() -> Result<Links<LinkInfo>> {
    links(cgroup_link)
}

/// Lists every tcx link of all network namespaces, including defunct ones, by id. Leaves out links that go away
/// meanwhile.
///
/// Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the capability. Any error ends the enumeration; no error counts as the end of the list.
pub fn device_links() -> Result<Links<DeviceLinkInfo>> {
    links(device_link)
}

fn links<T>(of: impl Fn(sys::RawLink) -> Option<T>) -> Result<Links<T>> {
    let (links, changing) = read(ObjectKind::Link, "link", sys::link_info)?;
    Ok(Links {
        links: links.into_iter().filter_map(of).collect(),
        changing: changing.into_iter().map(LinkId).collect(),
    })
}

/// Lists every map, by id. Leaves out maps that go away meanwhile.
///
/// Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Denied` without the capability. Any error ends the enumeration; no error counts as the end of the list.
pub fn maps() -> Result<Vec<MapInfo>> {
    let (maps, changing) = read(ObjectKind::Map, "map", |fd| {
        let raw = sys::map_info(fd)?;
        let slots = sys::slots(fd, &raw)
            .map(|slots| slots.map(read_slots).unwrap_or_default())
            .map_err(|errno| Error::new(Call::MapLookup, format!("map {}", raw.id), errno));
        let kind = sys::map_type_name(raw.kind);
        Ok(MapInfo { id: MapId(raw.id), name: raw.name, kind, slots })
    })?;
    match changing.first() {
        None => Ok(maps),
        // A map gets its id when it is created, so no known kernel answers like this.
        Some(id) => Err(Error::new(Call::FdById, format!("map {id}"), Errno::EAGAIN)),
    }
}

fn read_slots((kind, slots): (ObjectKind, Vec<(Vec<u8>, u32)>)) -> Vec<Slot> {
    let slot = |(key, id): (Vec<u8>, u32)| Slot {
        key: match <[u8; 4]>::try_from(key.as_slice()) {
            Ok(index) => u32::from_ne_bytes(index).to_string(),
            Err(_) => hex::encode(&key),
        },
        held: match kind {
            ObjectKind::Map => Held::Map(MapId(id)),
            ObjectKind::Link => Held::Link(LinkId(id)),
            ObjectKind::Program => Held::Program(ProgramId(id)),
        },
    };
    slots.into_iter().map(slot).collect()
}

/// Opens and reads every object of a kind. Returns the results by id, and the ids of objects that were still being
/// created at each look.
fn read<T>(
    kind: ObjectKind,
    name: &str,
    info: impl Fn(BorrowedFd<'_>) -> std::result::Result<T, Errno>,
) -> Result<(Vec<T>, Vec<u32>)> {
    read_all(ids(kind, &format!("{name}s"))?, |id| {
        let fail = |call| move |errno| Error::new(call, format!("{name} {id}"), errno);
        match Reading::of(sys::fd_by_id(kind, id)).map_err(fail(Call::FdById))? {
            Reading::Here(fd) => Reading::of(info(fd.as_fd())).map_err(fail(Call::Info)),
            Reading::Gone => Ok(Reading::Gone),
            Reading::Changing => Ok(Reading::Changing),
        }
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_slot_is_told_by_its_kind_under_an_index_or_the_bytes_of_the_key() {
        type Hold = fn(u32) -> Held;
        let slots = vec![(258_u32.to_ne_bytes().to_vec(), 7), (vec![0xab, 0, 1], 8), (vec![], 9)];
        let held: [(ObjectKind, Hold); 3] = [
            (ObjectKind::Program, |id| Held::Program(ProgramId(id))),
            (ObjectKind::Map, |id| Held::Map(MapId(id))),
            (ObjectKind::Link, |id| Held::Link(LinkId(id))),
        ];
        for (kind, held) in held {
            let told: Vec<_> =
                read_slots((kind, slots.clone())).into_iter().map(|it| (it.key, it.held)).collect();
            let expected = [("258", 7), ("ab0001", 8), ("", 9)];
            assert_eq!(told, expected.map(|(key, id)| (key.to_owned(), held(id))));
        }
    }
}
