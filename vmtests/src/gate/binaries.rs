//! The programs of the workspace that the gate runs.

use std::path::PathBuf;

/// A program that was built with this one: it lies beside it, or in the folder above (a test lies in `deps`).
///
/// # Errors
/// When it is not there: what to build.
pub fn find(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|it| it.is_file())
        .ok_or_else(|| {
            format!("{name} was not built with {}: cargo build --workspace --bins", own.display())
        })
}
