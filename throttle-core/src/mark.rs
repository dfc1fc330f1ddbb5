//! The secret by which the throttles of a host tell each other what they have dropped (see
//! [`Config::mark`](crate::Config::mark)).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Action, Result};
use crate::ledger::fail;

/// The mark in that folder; made up, and written for the owners to come, if there is none yet. Only its owner
/// can read the file, and it stays until the host restarts.
///
/// # Errors
/// When the folder or the file cannot be read or written: without root.
pub fn shared(dir: &Path) -> Result<u64> {
    let path = dir.join("mark");
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map_err(|error| fail(Action::Read, &path, error)),
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|error| fail(Action::MakeFolder, dir, error))?;
    write(dir, &path).map_err(|error| fail(Action::Write, &path, error))
}

/// A link to a whole file either comes to be or finds another's: nobody reads half of one. Returns what stands there.
fn write(dir: &Path, path: &Path) -> io::Result<u64> {
    // A draft whose writer is killed is swept up as those of the ledger are.
    let draft = dir.join(format!(".mark-{}.json.draft", std::process::id()));
    let mark = made_up()?;
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let linked = writeln!(file, "{mark}").and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(path),
    }
}

fn read(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().ok().filter(|&mark: &u64| mark != 0).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "it has no mark in it: remove it")
    })
}

fn made_up() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // The lower half is not 0, which would mean none.
    Ok(u64::from_ne_bytes(bytes) | 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn all_owners_share_one_mark_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("chadthrottle");
        let mark = shared(&dir).unwrap();
        assert_ne!(mark, 0);
        assert_eq!(shared(&dir).unwrap(), mark);
        let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(files, ["mark"]);
        let mode = fs::metadata(dir.join("mark")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let elsewhere = folder.path().join("elsewhere");
        assert_ne!(shared(&elsewhere).unwrap(), mark, "two hosts have the same");
    }

    #[test]
    fn what_is_no_mark_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "0", "four", "18446744073709551616"] {
            fs::write(folder.path().join("mark"), text).unwrap();
            let error = shared(folder.path()).unwrap_err();
            assert!(error.to_string().ends_with("no mark in it: remove it"), "{text:?}: {error}");
        }
    }
}
