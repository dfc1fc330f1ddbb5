//! Everything of BPF that the kernel has, whatever it is for: what two moments are compared by.

use bpf::objects::{AnyLink, MapInfo};
use bpf::program::ProgramInfo;
use bpf::{LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Object;

/// Every program, link and map, of all types. The rest of a look has what can be on a cgroup, and more about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// Every loaded program, by id.
    pub programs: Vec<LoadedProgram>,
    /// Every link, by id.
    pub links: Vec<AnyLinkFact>,
    /// Every map, by id.
    pub maps: Vec<MapFact>,
}

impl Inventory {
    /// All of them.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
        let programs = self.programs.iter().map(|program| Object::Program(program.id));
        let links = self.links.iter().map(|link| Object::Link(link.id));
        programs.chain(links).chain(self.maps.iter().map(|map| Object::Map(map.id)))
    }
}

/// A loaded program of any type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedProgram {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: ProgramId,
    /// Its name, as the kernel kept it; empty for one that has none.
    pub name: String,
    /// Its tag, 16 hexadecimal digits.
    pub tag: String,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was loaded, in nanoseconds since boot.
    pub loaded_at_ns: u64,
    /// The same as wall-clock time, RFC 3339, UTC, to the second.
    pub loaded_at: String,
    /// The user who loaded it.
    pub uid: u32,
    /// Its maps.
    #[schemars(with = "Vec<u32>")]
    pub map_ids: Vec<MapId>,
}

impl LoadedProgram {
    /// `loaded_at` is its load time on the wall clock.
    pub(crate) fn new(info: &ProgramInfo, loaded_at: String) -> Self {
        Self {
            id: info.id,
            name: info.name.clone(),
            tag: info.tag.clone(),
            kind: info.kind.clone(),
            loaded_at_ns: info.loaded_at_ns,
            loaded_at,
            uid: info.uid,
            map_ids: info.map_ids.clone(),
        }
    }
}

/// A link of any type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnyLinkFact {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: LinkId,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The program that it holds; none for one of a `struct_ops` map.
    #[schemars(with = "Option<u32>")]
    pub program_id: Option<ProgramId>,
    /// The `struct_ops` map that it holds.
    #[schemars(with = "Option<u32>")]
    pub map_id: Option<MapId>,
}

impl From<AnyLink> for AnyLinkFact {
    fn from(link: AnyLink) -> Self {
        Self { id: link.id, kind: link.kind, program_id: link.program_id, map_id: link.map_id }
    }
}

/// A map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MapFact {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: MapId,
    /// Its name, as the kernel kept it; empty for one that has none.
    pub name: String,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: String,
}

impl From<MapInfo> for MapFact {
    fn from(map: MapInfo) -> Self {
        Self { id: map.id, name: map.name, kind: map.kind }
    }
}
