//! What the command line asks for and cannot be done.

use std::path::PathBuf;

use terminal::Unwritable;

/// What the command line asks for cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// The later output would replace the earlier one.
    #[error("--output names {} more than once: give each format a file of its own", .0.display())]
    SameFile(PathBuf),
    /// The file cannot be written.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
}
