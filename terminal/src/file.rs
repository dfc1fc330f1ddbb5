//! Writes results to files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::output::{Stream, print};
use crate::talk::cannot_write;

/// The kernel's limit for symbolic links in a path.
const MAX_LINKS: usize = 40;

/// Writes a result to a file, or to standard output.
///
/// A reader sees the old file or the new one, never a part. This writes in place to a device, a pipe or the path of
/// a descriptor (`/dev/fd/3`).
///
/// # Errors
/// The file cannot be written. The error says where and why, with the call and its errno at the end.
pub fn write(to: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match to {
        None => print(text),
        Some(path) => put(path, text),
    }
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    match descriptor(path) {
        Some(1) => return print(text),
        Some(2) => return Stream::Stderr.print(text),
        Some(_) => append(path, text.as_bytes()),
        None => replace(path, text.as_bytes()),
    }
    .map_err(|Failed(call, error)| anyhow!(cannot_write(path.display(), call, &error)))
}

/// The failed call, and the reason.
struct Failed(&'static str, io::Error);

fn failed(call: &'static str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed(call, error)
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let mut file = File::options().append(true).open(path).map_err(failed("open"))?;
    file.write_all(bytes).map_err(failed("write"))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let path = match fs::metadata(path) {
        // Write to a device or a pipe instead of replacing it.
        Ok(found) if !found.is_file() => {
            let mut there = File::options().write(true).open(path).map_err(failed("open"))?;
            return there.write_all(bytes).map_err(failed("write"));
        }
        // Replace the file itself, not a symbolic link to it.
        _ => resolved(path),
    };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    // Apply the umask, as for any other file. (The errors of `tempfile` itself would name the temporary file.)
    let make = |path: &Path| {
        File::options().read(true).write(true).create_new(true).mode(0o666).open(path)
    };
    let mut file = tempfile::Builder::new().make_in(folder, make).map_err(failed("open"))?;
    file.as_file_mut().write_all(bytes).map_err(failed("write"))?;
    // After a power failure the disk has the old file or the new one.
    file.as_file().sync_all().map_err(failed("fsync"))?;
    file.persist(path).map_err(|error| Failed("rename", error.error))?;
    Ok(())
}

/// Checks that a file can be written. Call it before the work whose result goes there.
///
/// # Errors
/// The file cannot be written.
pub fn check_file(file: &Path) -> Result<(), Unwritable> {
    let Some(place) = needed(file) else { return Ok(()) };
    access(&place, AccessFlags::W_OK).map_err(|errno| {
        let file = file.to_owned();
        Unwritable { file, place, errno }
    })
}

/// Returns the path that this process needs the right to write to; `None` if the file is already open.
fn needed(path: &Path) -> Option<PathBuf> {
    match descriptor(path) {
        Some(1 | 2) => return None,
        Some(_) => return Some(path.to_owned()),
        None => {}
    }
    if path.metadata().is_ok_and(|it| !it.is_file()) {
        return Some(path.to_owned());
    }
    // `write` makes a new file in the folder and renames it, so it needs rights on the folder.
    let file = resolved(path);
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    Some(folder.unwrap_or(Path::new(".")).to_owned())
}

/// Returns the descriptor of this process that a path names. `write` appends to such a file. It cannot replace the
/// file, because whoever opened it would keep the old one.
fn descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => ["/dev/fd/", "/proc/self/fd/"]
            .into_iter()
            .find_map(|folder| path.strip_prefix(folder)?.parse().ok()),
    }
}

/// Returns the file that a path leads to, even if it does not exist yet. Returns the path itself if that is unknown.
pub fn resolved(path: &Path) -> PathBuf {
    resolved_through(path, MAX_LINKS)
}

fn resolved_through(path: &Path, links: usize) -> PathBuf {
    if let Ok(file) = path.canonicalize() {
        return file;
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => match path.read_link() {
            // The link leads to a file that does not exist yet.
            Ok(target) if links > 0 => resolved_through(&folder.join(target), links - 1),
            _ => folder.join(name),
        },
        _ => path.to_owned(),
    }
}

/// The error for a file that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write to {}: {}: {} (access: {errno:?})", file.display(), place.display(), errno.desc())]
pub struct Unwritable {
    /// The file.
    pub file: PathBuf,
    /// The path that refuses: the file's folder, or the file itself.
    pub place: PathBuf,
    /// The reason.
    pub errno: Errno,
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        for text in ["a longer first text", "second"] {
            write(Some(&path), text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(Some(&link), "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        // This also works if the file does not exist yet.
        fs::remove_file(&file).unwrap();
        write(Some(&link), "newer").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "newer");
    }

    #[test]
    fn what_a_descriptor_is_of_is_written_to_and_not_replaced() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"before, ").unwrap();
        let fd = file.as_file().as_raw_fd();
        for folder in ["/dev/fd", "/proc/self/fd"] {
            write(Some(Path::new(&format!("{folder}/{fd}"))), "after;").unwrap();
        }
        let mut held = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut held).unwrap();
        assert_eq!(held, "before, after;after;");
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let null = Path::new("/dev/null");
        write(Some(null), "text").unwrap();
        assert!(!fs::metadata(null).unwrap().is_file());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = write(Some(Path::new("/nowhere/report")), "text").unwrap_err();
        let expected = "cannot write to /nowhere/report: No such file or directory (open: ENOENT)";
        assert_eq!(format!("{error:#}"), expected, "and no temporary file");
    }
}
