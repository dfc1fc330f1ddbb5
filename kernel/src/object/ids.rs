//! The kernel's numbers, one type each, so that none is taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A cgroup's id: the inode number of its directory, and what a cgroup link's info reports.
    /// Unique for one boot; a directory made again under the same name has another one.
    CgroupId(u64)
}
id! {
    /// A loaded program's id. Ids count up, but they wrap: compare tag and load time as well before
    /// acting on an id that was read a while ago.
    ProgramId(u32)
}
id! {
    /// A BPF link's id.
    LinkId(u32)
}
id! {
    /// A BPF map's id.
    MapId(u32)
}
