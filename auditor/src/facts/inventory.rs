//! Describes every BPF object that the kernel has. A comparison of two moments needs such an inventory.

use std::fmt;

use kernel::device_programs::DeviceProgram;
use kernel::objects::{AnyLink, MapInfo};
use kernel::{LinkId, MapId, ProgramId, ProgramIdentity, ProgramInfo};
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
    /// Every program on a network device (XDP, tcx, netkit) in a network namespace that could be found; nobody looks where
    /// no program is of such a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_programs: Vec<DeviceProgramFact>,
}

impl Inventory {
    /// Returns all objects.
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
    /// The name that its author gave it, where the kernel has cut that and the program's type information tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
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
    /// Returns the program's name for people: the full name if known.
    pub fn shown_name(&self) -> &str {
        self.full_name.as_deref().unwrap_or(&self.name)
    }

    /// Returns the properties that distinguish the program from earlier and later programs with the same id.
    pub fn identity(&self) -> ProgramIdentity {
        let (id, tag) = (self.id, self.tag.clone());
        ProgramIdentity { id, tag, loaded_at_ns: self.loaded_at_ns }
    }

    /// Makes the fact. `loaded_at` is the load time on the wall clock.
    pub(crate) fn new(info: &ProgramInfo, full_name: Option<String>, loaded_at: String) -> Self {
        Self {
            id: info.id,
            name: info.name.clone(),
            full_name,
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
    /// The number of the network device that it is on (0: it is gone), in a network namespace that the link does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
}

impl From<AnyLink> for AnyLinkFact {
    fn from(link: AnyLink) -> Self {
        Self {
            id: link.id,
            kind: link.kind,
            program_id: link.program_id,
            map_id: link.map_id,
            device: link.device,
        }
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
    /// The programs or maps that it keeps in its slots, for as long as it lives itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotFact>,
}

/// A slot of a map that keeps something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotFact {
    /// Its key: an index, or hexadecimal digits.
    pub key: String,
    /// What is in it.
    pub object: Object,
}

impl From<MapInfo> for MapFact {
    fn from(map: MapInfo) -> Self {
        let slots = map.slots.unwrap_or_default().into_iter();
        let slots = slots.map(|slot| SlotFact { key: slot.key, object: slot.held.into() });
        Self { id: map.id, name: map.name, kind: map.kind, slots: slots.collect() }
    }
}

/// A program on a network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceProgramFact {
    /// The inode number of the network namespace that the device is in.
    pub network_namespace: u64,
    /// A way into that namespace, for people; none for the auditor's own.
    pub namespace_path: Option<String>,
    /// The device's number there.
    pub device: u32,
    /// Its name.
    pub name: String,
    /// Where on it: `xdp`, `tcx_ingress`, `tcx_egress`, `netkit_primary` or `netkit_peer`.
    pub hook: String,
    /// The program.
    #[schemars(with = "u32")]
    pub program_id: ProgramId,
    /// The link that attaches it; none where there is none, and for XDP, where the kernel does not tell.
    #[schemars(with = "Option<u32>")]
    pub link_id: Option<LinkId>,
}

impl From<DeviceProgram> for DeviceProgramFact {
    fn from(program: DeviceProgram) -> Self {
        let path = program.namespace_path;
        Self {
            network_namespace: program.network_namespace,
            namespace_path: path.map(|path| path.to_string_lossy().into_owned()),
            device: program.device,
            name: program.name,
            hook: program.hook.to_owned(),
            program_id: program.program_id,
            link_id: program.link_id,
        }
    }
}

/// Names the place for people: `device eth0 (2), xdp, in network namespace 4026531840 (the auditor's own)`.
impl fmt::Display for DeviceProgramFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ({}), {}, ", self.name, self.device, self.hook)?;
        in_namespace(f, self.network_namespace, self.namespace_path.as_deref())
    }
}

/// Formats as `in network namespace 4026532177 (/run/netns/blue)`.
pub(crate) fn in_namespace(
    f: &mut fmt::Formatter<'_>,
    inode: u64,
    path: Option<&str>,
) -> fmt::Result {
    write!(f, "in network namespace {inode} ({})", path.unwrap_or("the auditor's own"))
}
