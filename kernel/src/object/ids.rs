//! The kernel's ids, each with a type of its own, so that nobody confuses them.

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
    /// A cgroup's id: the inode number of its directory, which a cgroup link's information also has. Unique for one
    /// boot. A new directory of the same name has another id.
    CgroupId(u64)
}
id! {
    /// A loaded program's id. Ids count up, but they wrap. Before acting on an old id, compare tag and load time too.
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
