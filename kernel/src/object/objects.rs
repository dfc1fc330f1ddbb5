//! Every program, link and map that the kernel has.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::{Call, Error, Kind, Result};
use crate::object::again::{Reading, read_all};
use crate::object::ids::{LinkId, MapId, ProgramId};
use crate::object::link::{DeviceLinkInfo, LinkInfo, cgroup_link, device_link};
use crate::object::pins::Held;
use crate::object::program::Program;
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
    /// The number of the network device that it is on, in the device's network namespace, which the kernel does not tell;
    /// 0 where it is gone. None for a link of another type.
    pub device: Option<u32>,
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
    /// What it keeps in its slots: the programs of a `prog_array`, `devmap` or `cpumap`, the maps of a map of maps. An error
    /// where they could not be read.
    pub slots: Result<Vec<Slot>>,
}

/// A slot of a map that keeps a program or another map for as long as the map lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its key: an index, or hexadecimal digits where it is longer than four bytes.
    pub key: String,
    /// What is in it.
    pub held: Held,
}

/// The links that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links<T> {
    /// What the kernel says of each, by id.
    pub links: Vec<T>,
    /// Links that were being made whenever they were asked for, for an eighth of a second: the kernel tells nothing of
    /// them yet. They may be of any type.
    pub changing: Vec<LinkId>,
}

/// Every link, of whatever type, by id (5.8). Needs `CAP_SYS_ADMIN`. Links that go away in the meantime are left
/// out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
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

/// Every link on a cgroup, defunct ones too, by id. Needs `CAP_SYS_ADMIN`. Links that go away in the
/// meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
pub fn cgroup_links() -> Result<Links<LinkInfo>> {
    links(cgroup_link)
}

/// Every tcx link, which is on a network device, defunct ones too, by id: of all network namespaces. Needs
/// `CAP_SYS_ADMIN`. Links that go away in the meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
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

/// Every map, by id. Needs `CAP_SYS_ADMIN`. Maps that go away in the meantime are left out.
///
/// # Errors
/// `Denied` without the right. An error ends the enumeration and is never taken for its end.
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
        // A map has its id when it is made: no kernel is known that answers so.
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

/// Opens everything of a kind, and has it read. Returns what was read, by id, and the ids of what was being made at each
/// look.
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
