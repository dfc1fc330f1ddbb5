//! The secret that cooperating throttles on a host share. With it a program signals that it has already dropped a
//! packet (see [`Config::mark`](crate::Config::mark)).

use std::io;
use std::path::Path;

use crate::error::{Action, Result};
use crate::files::Files;
use crate::ledger::fail;

/// Returns the mark in a folder, and creates it if there is none. Only its owner can read the file. The file stays
/// until the host restarts.
///
/// # Errors
/// When the folder or the file cannot be read or written, which needs root.
pub fn shared(files: &dyn Files, dir: &Path) -> Result<u64> {
    let path = dir.join("mark");
    match read(files, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map_err(|error| fail(Action::Read, &path, error)),
    }
    files.make_folder(dir).map_err(|error| fail(Action::MakeFolder, dir, error))?;
    write(files, dir, &path).map_err(|error| fail(Action::Write, &path, error))
}

/// The most attempts at writing, while others sweep up the draft.
const MAX_RACES: usize = 16;

/// Publishes a complete draft through a hard link, so that nobody reads half of a file. Returns the mark that the file
/// then has.
fn write(files: &dyn Files, dir: &Path, path: &Path) -> io::Result<u64> {
    link(files, path, || link_new(files, dir, path))
}

fn link(files: &dyn Files, path: &Path, link_new: impl Fn() -> io::Result<()>) -> io::Result<u64> {
    // An engine's start removes drafts of killed writers, and may remove one that was just written.
    for _ in 0..MAX_RACES {
        match link_new() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => return read(files, path),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Makes up a mark and writes it, unless one exists.
fn link_new(files: &dyn Files, dir: &Path, path: &Path) -> io::Result<()> {
    // The name is random. Other threads may write here, and processes with the same pid in other pid namespaces.
    let draft = dir.join(format!(".mark-{:x}.json.draft", made_up(files)?));
    let mark = made_up(files)?;
    let written = files.write_secret(&draft, format!("{mark}\n").as_bytes());
    let linked = written.and_then(|()| files.link(&draft, path));
    match files.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => linked.and(Err(error)),
        _ => linked,
    }
}

fn read(files: &dyn Files, path: &Path) -> io::Result<u64> {
    let bytes = files.read(path)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    text.trim().parse().ok().filter(|&mark: &u64| mark != 0).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "it has no mark in it: remove it")
    })
}

fn made_up(files: &dyn Files) -> io::Result<u64> {
    // The lower half must not be 0, because 0 turns the mark off.
    Ok(files.random()? | 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::thread::ScopedJoinHandle;

    use super::*;
    use crate::files::FileSystem;

    #[test]
    fn all_owners_share_one_mark_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("chadthrottle");
        let mark = shared(&FileSystem, &dir).unwrap();
        assert_ne!(mark, 0);
        assert_eq!(shared(&FileSystem, &dir).unwrap(), mark);
        assert_eq!(files(&dir), ["mark"]);
        let mode = fs::metadata(dir.join("mark")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let elsewhere = folder.path().join("elsewhere");
        assert_ne!(shared(&FileSystem, &elsewhere).unwrap(), mark, "two hosts have the same");
    }

    fn files(dir: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name()).collect()
    }

    /// The mark did not exist at the first look.
    #[test]
    fn who_comes_second_takes_the_mark_of_who_came_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        fs::write(&path, "4711\n").unwrap();
        assert_eq!(write(&FileSystem, folder.path(), &path).unwrap(), 4_711);
        assert_eq!(fs::read_to_string(&path).unwrap(), "4711\n");
        assert_eq!(files(folder.path()), ["mark"]);
        fs::write(&path, "four").unwrap();
        let error = write(&FileSystem, folder.path(), &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert_eq!(files(folder.path()), ["mark"]);
    }

    #[test]
    fn a_draft_that_was_swept_up_is_written_again_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let tries = std::cell::Cell::new(0);
        let swept = |times| {
            tries.set(0);
            link(&FileSystem, &path, || {
                tries.set(tries.get() + 1);
                if tries.get() > times {
                    return fs::write(&path, "7\n");
                }
                Err(io::ErrorKind::NotFound.into())
            })
        };
        assert_eq!(swept(usize::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((swept(0).unwrap(), tries.get()), (7, 1));
        assert_eq!((swept(3).unwrap(), tries.get()), (7, 4));
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            link(&FileSystem, &path, denied).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn where_it_cannot_be_written_it_is_not_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        assert_eq!(
            write(&FileSystem, &gone, &gone.join("mark")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        shared(&FileSystem, &file).unwrap_err();
    }

    /// Threads of one process write, while others sweep up drafts at their start.
    #[test]
    fn all_who_start_at_once_share_one_mark() {
        const AT_ONCE: usize = 4;
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path();
            let start = std::sync::Barrier::new(AT_ONCE + 1);
            let marks: Vec<u64> = std::thread::scope(|scope| {
                let one = || {
                    start.wait();
                    shared(&FileSystem, dir).unwrap()
                };
                let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one)).collect();
                start.wait();
                // Fewer sweeps than a writer waits for.
                let mut swept = 0;
                while swept < MAX_RACES / 2 && !threads.iter().all(ScopedJoinHandle::is_finished) {
                    let drafts = files(dir).into_iter().filter(|it| *it != "mark");
                    swept += drafts.filter(|it| fs::remove_file(dir.join(it)).is_ok()).count();
                }
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(marks, [marks[0]; AT_ONCE]);
            assert_eq!(shared(&FileSystem, dir).unwrap(), marks[0]);
        }
    }

    #[test]
    fn what_is_no_mark_is_not_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "0", "four", "18446744073709551616"] {
            fs::write(folder.path().join("mark"), text).unwrap();
            let error = shared(&FileSystem, folder.path()).unwrap_err();
            assert!(error.to_string().ends_with("no mark in it: remove it"), "{text:?}: {error}");
        }
    }
}
