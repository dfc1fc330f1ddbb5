//! Describes the things that come and go, as reports show them.

use std::fmt;
use std::path::Path;

use kernel::{AttachType, LinkId, MapId, ProgramId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::in_namespace;
use crate::report::Cgroup;

/// One thing that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Item {
    /// A program on a cgroup.
    Attachment {
        /// The cgroup.
        cgroup: Cgroup,
        /// Where on it.
        #[schemars(with = "String")]
        attach_type: AttachType,
        /// What is attached.
        program: ProgramRef,
        /// Through which link; null for a legacy attachment.
        link: Option<LinkRef>,
    },
    /// A link of any type.
    Link {
        /// The link.
        link: LinkRef,
        /// The program that it holds; null for one of a `struct_ops` map.
        program: Option<ProgramRef>,
        /// The `struct_ops` map that it holds.
        map: Option<MapRef>,
        /// The network device that it is on; left out where it is on none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<DeviceRef>,
    },
    /// A file in a bpffs.
    Pin {
        /// Its absolute path. Bytes that are not UTF-8 are replaced.
        path: String,
        /// The path's bytes, in hexadecimal digits, where `path` could not keep them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path_hex: Option<String>,
        /// The link that it holds, if it holds one.
        link: Option<LinkRef>,
        /// The program that it holds, or that the link holds.
        program: Option<ProgramRef>,
        /// The map that it holds.
        map: Option<MapRef>,
    },
    /// A loaded program.
    Program {
        /// The program.
        program: ProgramRef,
    },
    /// A map.
    Map {
        /// The map.
        map: MapRef,
    },
}

/// The kinds of thing, in the order of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Item::Attachment`].
    Attachment,
    /// [`Item::Link`].
    Link,
    /// [`Item::Pin`].
    Pin,
    /// [`Item::Program`].
    Program,
    /// [`Item::Map`].
    Map,
}

impl Kind {
    /// Every kind, in the order of a report.
    pub const ALL: [Self; 5] = [Self::Attachment, Self::Link, Self::Pin, Self::Program, Self::Map];

    /// Returns the kind's name, as reports use it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attachment => "attachment",
            Self::Link => "link",
            Self::Pin => "pin",
            Self::Program => "program",
            Self::Map => "map",
        }
    }
}

/// A program. What is null could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProgramRef {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: ProgramId,
    /// Its name, at most 15 characters; empty for one that has none.
    pub name: Option<String>,
    /// The name that its author gave it, where that is longer and could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// When it was loaded, in RFC 3339, UTC.
    pub loaded_at: Option<String>,
    /// The user who loaded it.
    pub uid: Option<u32>,
}

/// A link. What is null could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LinkRef {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: LinkId,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A network device. What is null could not be found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRef {
    /// Its number in its network namespace; 0 where it is gone.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
    /// Where on it: `xdp`, `tcx_ingress`, `tcx_egress`, `netkit_primary` or `netkit_peer`.
    pub hook: Option<String>,
    /// The inode number of its network namespace.
    pub network_namespace: Option<u64>,
    /// A way into that namespace; null for the auditor's own, too.
    pub namespace_path: Option<String>,
}

/// A map. What is null could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MapRef {
    /// Its id.
    #[schemars(with = "u32")]
    pub id: MapId,
    /// Its name, at most 15 characters; empty for one that has none.
    pub name: Option<String>,
    /// Its type, as bpftool names it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

impl Item {
    /// Returns the kind of the thing.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Attachment { .. } => Kind::Attachment,
            Self::Link { .. } => Kind::Link,
            Self::Pin { .. } => Kind::Pin,
            Self::Program { .. } => Kind::Program,
            Self::Map { .. } => Kind::Map,
        }
    }

    /// Returns the program that the thing is or belongs to.
    pub fn program(&self) -> Option<&ProgramRef> {
        match self {
            Self::Attachment { program, .. } | Self::Program { program } => Some(program),
            Self::Link { program, .. } | Self::Pin { program, .. } => program.as_ref(),
            Self::Map { .. } => None,
        }
    }

    /// Returns the name of the program or map that the thing is or belongs to.
    pub fn name(&self) -> Option<&str> {
        let of_map = || match self {
            Self::Map { map } => map.name.as_deref(),
            Self::Link { map, .. } | Self::Pin { map, .. } => map.as_ref()?.name.as_deref(),
            Self::Attachment { .. } | Self::Program { .. } => None,
        };
        self.program().and_then(ProgramRef::shown_name).or_else(of_map)
    }

    /// Makes the item for a pin.
    pub(super) fn pin(
        path: &Path,
        link: Option<LinkRef>,
        program: Option<ProgramRef>,
        map: Option<MapRef>,
    ) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let path_hex = path.to_str().is_none().then(|| hex::encode(bytes));
        Self::Pin { path: path.to_string_lossy().into_owned(), path_hex, link, program, map }
    }
}

/// Describes the thing for people: `link 7 (cgroup) of program 41 (chadthrottle_in)`. Names appear exactly as the
/// system has them. Escape the text before printing it to a terminal.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attachment { cgroup, attach_type, program, link } => {
                write!(f, "{program} on {}, {attach_type}, ", cgroup.path)?;
                match link {
                    Some(link) => write!(f, "through link {}", link.id),
                    None => f.write_str("attached the legacy way"),
                }
            }
            Self::Link { link, program, map, device } => {
                link.fmt(f)?;
                match (program, map) {
                    (Some(program), _) => write!(f, " of {program}")?,
                    (None, Some(map)) => write!(f, " of {map}")?,
                    (None, None) => {}
                }
                match device {
                    Some(device) => write!(f, " on {device}"),
                    None => Ok(()),
                }
            }
            Self::Pin { path, link: Some(link), program: Some(program), .. } => {
                write!(f, "pin {path} of {link} of {program}")
            }
            Self::Pin { path, link: Some(link), .. } => write!(f, "pin {path} of {link}"),
            Self::Pin { path, program: Some(program), .. } => write!(f, "pin {path} of {program}"),
            Self::Pin { path, map: Some(map), .. } => write!(f, "pin {path} of {map}"),
            Self::Pin { path, .. } => write!(f, "pin {path}"),
            Self::Program { program } => match &program.kind {
                Some(kind) => write!(f, "{program}, {kind}"),
                None => program.fmt(f),
            },
            Self::Map { map } => match &map.kind {
                Some(kind) => write!(f, "{map}, {kind}"),
                None => map.fmt(f),
            },
        }
    }
}

impl ProgramRef {
    /// Returns the program's name for people: the full name if known.
    fn shown_name(&self) -> Option<&str> {
        self.full_name.as_deref().or(self.name.as_deref())
    }
}

impl fmt::Display for ProgramRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, "program", self.id.0, self.shown_name())
    }
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, "link", self.id.0, self.kind.as_deref())
    }
}

/// Formats as `device eth0 (2), tcx_ingress, in network namespace 4026532177 (/run/netns/blue)`.
impl fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.index == 0 {
            return f.write_str("a network device that is gone");
        }
        match &self.name {
            Some(name) => write!(f, "device {name} ({})", self.index)?,
            None => write!(f, "device {}", self.index)?,
        }
        if let Some(hook) = &self.hook {
            write!(f, ", {hook}")?;
        }
        f.write_str(", ")?;
        match self.network_namespace {
            Some(inode) => in_namespace(f, inode, self.namespace_path.as_deref()),
            None => f.write_str("in an unknown network namespace"),
        }
    }
}

impl fmt::Display for MapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, "map", self.id.0, self.name.as_deref())
    }
}

fn named(f: &mut fmt::Formatter<'_>, what: &str, id: u32, name: Option<&str>) -> fmt::Result {
    write!(f, "{what} {id}")?;
    match name {
        Some(name) if !name.is_empty() => write!(f, " ({name})"),
        _ => Ok(()),
    }
}
