//! What is attached to cgroups: the attach types, the lists of programs, and what this kernel knows of them.

pub(crate) mod attach_type;
pub mod lineage;
pub mod list;
pub mod probe;
pub mod walk;
