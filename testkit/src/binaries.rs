//! Finds the programs of the workspace.

use std::path::PathBuf;

/// Finds a program that was built with this one: in the same folder, or in the one above (a test lies in `deps`).
///
/// # Errors
/// Fails if it is missing. The error says what to build.
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
