//! Programs attached to cgroups: attach types, lists of programs, and the kernel's support for them.

pub(crate) mod attach_type;
pub mod lineage;
pub mod list;
pub mod probe;
pub mod walk;
