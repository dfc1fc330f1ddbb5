//! Pins: files in a bpffs that hold a program, a link or a map.

use std::collections::HashSet;
use std::fs::FileType;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{EINVAL, ENOENT, ENOTDIR, ESRCH};

use crate::cgroup::{Mount, mounts, parse_mountinfo, shown};
use crate::error::{Call, Error, Result};
use crate::object::again::settled;
use crate::object::ids::{LinkId, MapId, ProgramId};
use crate::sys;

/// The usual mount point of the bpffs.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// The most looks at one path that keeps changing between a folder and a pin.
const LOOKS: usize = 8;

/// The object that a pin or a descriptor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    /// A program.
    Program(ProgramId),
    /// A link of any kind.
    Link(LinkId),
    /// A map.
    Map(MapId),
}

/// Selects the objects to look for. Looking for maps too opens more files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// Programs and links: whatever is attached, or keeps a program attached.
    ProgramsAndLinks,
    /// Programs, links and maps.
    MapsToo,
}

impl Sought {
    pub(crate) fn has(self, file: HoldingFile) -> bool {
        self == Self::MapsToo || file != HoldingFile::Map
    }
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The pin's path.
    pub path: PathBuf,
    /// The object that the pin holds.
    pub held: Held,
}

/// The pins found, and the errors met.
#[derive(Debug, Default)]
pub struct Pins {
    /// Every matching pin in every bpffs that this mount namespace shows.
    pub pins: Vec<Pin>,
    /// Folders that could not be listed and files that could not be opened.
    pub unreadable: Vec<Error>,
    /// Mount points where another mount covers a bpffs.
    pub covered: Vec<PathBuf>,
    /// The number of bpffs walked.
    pub walked: usize,
}

/// Finds the pins in every bpffs of this mount namespace. Pins in other mount namespaces are out of reach; see
/// [`pins_of`].
///
/// Needs root, because only its owner may read a bpffs. Opens each pin for a moment, and leaves nothing behind.
///
/// # Errors
/// When the mounts cannot be read. Errors below one mount go into [`Pins::unreadable`].
pub fn pins(sought: Sought) -> Result<Pins> {
    let mut found = Pins::default();
    for mount in mounts("bpf")? {
        if mount.is_on_top() {
            let before = found.unreadable.len();
            walk(&mount.point, sought, &mut found);
            // The errors may come from a bpffs that was unmounted during the walk.
            if found.unreadable.len() == before || is_mounted(&mount)? {
                found.walked += 1;
            } else {
                found.unreadable.truncate(before);
            }
        } else {
            found.covered.push(mount.point);
        }
    }
    found.tell_each_once();
    Ok(found)
}

impl Pins {
    /// Sorts, and removes duplicates. A bpffs mounted twice is harmless: each path is a pin, and unlinking one unlinks
    /// both. But where mounts cover or contain each other, the walk meets the same path twice.
    fn tell_each_once(&mut self) {
        self.pins.sort_by(|a, b| (&a.path, a.held).cmp(&(&b.path, b.held)));
        self.pins.dedup();
        let mut seen = HashSet::new();
        self.unreadable.retain(|error| seen.insert(error.to_string()));
    }
}

/// Finds the pins in every bpffs of another process's mount namespace, through `/proc/PID/root/…`. Returned paths begin
/// with that prefix.
///
/// Errors go into [`Pins::unreadable`]. A process that has ended has no pins. Needs `CAP_SYS_PTRACE` for other users'
/// processes.
pub fn pins_of(pid: u32, sought: Sought) -> Pins {
    let mut found = Pins::default();
    let mountinfo = format!("/proc/{pid}/mountinfo");
    let text = match std::fs::read(&mountinfo) {
        Ok(text) => text,
        Err(error) => {
            let is_gone = matches!(error.raw_os_error(), Some(ENOENT | ESRCH | EINVAL));
            let error = Error::from_io(Call::ReadProc, mountinfo, &error);
            found.unreadable.extend((!is_gone).then_some(error));
            return found;
        }
    };
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    for mount in parse_mountinfo(&text).into_iter().filter(|mount| mount.kind == "bpf") {
        let point = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        if (Mount { point: point.clone(), ..mount }).is_on_top() {
            found.walked += 1;
            walk(&point, sought, &mut found);
        } else {
            found.covered.push(point);
        }
    }
    found
}

fn is_mounted(mount: &Mount) -> Result<bool> {
    Ok(mounts("bpf")?.contains(mount) && mount.is_on_top())
}

fn walk(folder: &Path, sought: Sought, found: &mut Pins) {
    match list(folder, sought, found) {
        Err(error) if !is_gone(&error) => found.unreadable.push(not_opened(folder, &error)),
        _ => {}
    }
}

fn list(folder: &Path, sought: Sought, found: &mut Pins) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        look(&entry.path(), entry.file_type(), sought, found);
    }
    Ok(())
}

/// Looks at one path, several times if needed: a folder may vanish and a pin take its name, or the other way round.
fn look(path: &Path, mut kind: io::Result<FileType>, sought: Sought, found: &mut Pins) {
    for left in (0..LOOKS).rev() {
        let error = match kind {
            Ok(kind) if kind.is_dir() => match list(path, sought, found) {
                Err(error) if error.raw_os_error() == Some(ENOTDIR) && left > 0 => None,
                Err(error) if !is_gone(&error) => Some(not_opened(path, &error)),
                _ => return,
            },
            // A symbolic link is no holder. The walk finds its target elsewhere.
            Ok(kind) if kind.is_symlink() => return,
            Ok(_) => match held_if(path, sought) {
                // The kernel answers `EACCES` for a folder too.
                Err(error) if error.errno() == Errno::EACCES && left > 0 => None,
                Err(error) => Some(error),
                Ok(held) => {
                    let path = path.to_owned();
                    return found.pins.extend(held.map(|held| Pin { path, held }));
                }
            },
            Err(error) if is_gone(&error) => return,
            Err(error) => Some(not_opened(path, &error)),
        };
        if let Some(error) = error {
            return found.unreadable.push(error);
        }
        kind = std::fs::symlink_metadata(path).map(|it| it.file_type());
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn not_opened(path: &Path, error: &io::Error) -> Error {
    Error::from_io(Call::ObjGet, shown(path), error)
}

/// Returns the object that a pin holds; `None` for any other file, or if the pin was removed in between.
///
/// # Errors
/// When the pin cannot be opened.
pub fn held_by(path: &Path) -> Result<Option<Held>> {
    held_if(path, Sought::MapsToo)
}

fn held_if(path: &Path, sought: Sought) -> Result<Option<Held>> {
    let fail = |call| move |errno| Error::new(call, shown(path), errno);
    let fd = match settled(|| sys::obj_get(path)) {
        Ok(fd) => fd,
        // The pin or a folder above it is gone, and something else may have its name.
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(fail(Call::ObjGet)(errno)),
    };
    // No system call tells the type of the object, but procfs does.
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|error| Error::from_io(Call::ReadProc, shown(path), &error))?;
    Ok(match HoldingFile::of(&target).filter(|file| sought.has(*file)) {
        Some(HoldingFile::Program) => {
            let raw = sys::program_info(fd.as_fd()).map_err(fail(Call::Info))?;
            Some(Held::Program(ProgramId(raw.id)))
        }
        Some(HoldingFile::Link) => {
            let raw = sys::link_info(fd.as_fd()).map_err(fail(Call::Info))?;
            Some(Held::Link(LinkId(raw.id)))
        }
        Some(HoldingFile::Map) => {
            let raw = sys::map_info(fd.as_fd()).map_err(fail(Call::Info))?;
            Some(Held::Map(MapId(raw.id)))
        }
        None => None,
    })
}

/// The kinds of open file that hold a BPF object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldingFile {
    Program,
    Link,
    Map,
}

impl HoldingFile {
    /// Parses the target of a symbolic link in `/proc/PID/fd`. The kernel names a link's file `bpf_link` on creation,
    /// and `bpf-link` when somebody opens it again (`kernel/bpf/syscall.c`).
    pub(crate) fn of(target: &Path) -> Option<Self> {
        match target.to_str()? {
            "anon_inode:bpf-prog" => Some(Self::Program),
            "anon_inode:bpf_link" | "anon_inode:bpf-link" => Some(Self::Link),
            "anon_inode:bpf-map" => Some(Self::Map),
            _ => None,
        }
    }
}

/// Removes a pin. Removing a pin that is already gone succeeds.
///
/// # Errors
/// `Denied` without permission.
pub fn unpin(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::from_io(Call::Unpin, shown(path), &error)),
    }
}

/// Creates the folder for a pin, with access for its owner only (mode 0700).
///
/// # Errors
/// When the folder cannot be created.
pub fn make_folder_for(pin: &Path) -> Result<()> {
    let Some(folder) = pin.parent() else { return Ok(()) };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Error::from_io(Call::ObjPin, shown(folder), &error))
}

/// Removes the folder of a pin, if the folder is empty.
///
/// # Errors
/// When the empty folder cannot be removed. An empty folder holds nothing, but nobody else would ever remove it.
pub fn remove_empty_folder_of(pin: &Path) -> Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    let Some(folder) = pin.parent() else { return Ok(()) };
    match std::fs::remove_dir(folder) {
        Err(error) if !matches!(error.kind(), DirectoryNotEmpty | NotFound) => {
            Err(Error::from_io(Call::Unpin, shown(folder), &error))
        }
        _ => Ok(()),
    }
}

/// Tells whether a path lies in a bpffs that this process sees.
///
/// # Errors
/// When the mounts cannot be read.
pub fn is_on_bpffs(path: &Path) -> Result<bool> {
    Ok(mounts("bpf")?.iter().any(|mount| path.starts_with(&mount.point)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::error::Kind;
    use crate::folder::Folder;

    fn walked(folder: &Path) -> Pins {
        let mut found = Pins::default();
        walk(folder, Sought::MapsToo, &mut found);
        found
    }

    #[test]
    fn a_holding_file_is_known_by_what_its_link_points_to() {
        let of = |target: &str| HoldingFile::of(Path::new(target));
        assert_eq!(of("anon_inode:bpf-prog"), Some(HoldingFile::Program));
        assert_eq!(of("anon_inode:bpf_link"), Some(HoldingFile::Link));
        assert_eq!(of("anon_inode:bpf-link"), Some(HoldingFile::Link));
        assert_eq!(of("anon_inode:bpf-map"), Some(HoldingFile::Map));
        assert_eq!(of("anon_inode:btf"), None);
    }

    #[test]
    fn each_pin_and_each_error_is_told_once_and_none_is_lost() {
        let (program, link) = (Held::Program(ProgramId(7)), Held::Link(LinkId(7)));
        let pin = |path: &str, held| Pin { path: path.into(), held };
        let error = |path, errno| Error::found(Call::ObjGet, path, errno);
        let mut found = Pins {
            // Two pins of one program, two of one link, and paths that hold another object at the second look.
            pins: vec![
                pin("/c", program),
                pin("/a", link),
                pin("/b", program),
                pin("/a", program),
                pin("/a", link),
                pin("/d", link),
                pin("/c", program),
            ],
            unreadable: vec![
                error("/x", Errno::EACCES),
                error("/y", Errno::EACCES),
                error("/x", Errno::EIO),
                error("/x", Errno::EACCES),
            ],
            ..Pins::default()
        };
        found.tell_each_once();
        let expected = [
            pin("/a", program),
            pin("/a", link),
            pin("/b", program),
            pin("/c", program),
            pin("/d", link),
        ];
        assert_eq!(found.pins, expected);
        let errors = found.unreadable.iter().map(|it| (it.target(), it.errno()));
        let expected = [("/x", Errno::EACCES), ("/y", Errno::EACCES), ("/x", Errno::EIO)];
        assert_eq!(errors.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_file_below_is_looked_at_but_no_link_in_the_file_system() {
        let folder = Folder::new("walk");
        // A file of another file system is not a pin. The error shows that the walk tried to open it.
        let file = folder.file("a/b/file", "");
        folder.link("a/link", &file);
        let found = walked(folder.path());
        assert_eq!(found.pins, []);
        let [error] = &found.unreadable[..] else { panic!("{found:?}") };
        assert_eq!((error.target(), error.kind()), (&*shown(&file), Kind::Denied));
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_told_unless_it_is_gone() {
        let folder = Folder::new("listed");
        let file = folder.file("file", "");
        assert_eq!(walked(&file).unreadable[0].errno(), Errno::ENOTDIR);
        assert!(walked(&folder.path().join("gone")).unreadable.is_empty());
    }

    #[test]
    fn where_a_folder_has_become_a_file_nothing_is_pinned() {
        let folder = Folder::new("became");
        let file = folder.file("file", "");
        assert_eq!(held_by(&file.join("pin")), Ok(None));
    }

    #[test]
    fn folders_that_come_and_go_while_they_are_walked_are_passed_over() {
        let folder = Folder::new("moving");
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Relaxed) {
                    for name in 0..20 {
                        let path = folder.path().join(format!("{name}/below"));
                        std::fs::create_dir_all(&path).unwrap();
                    }
                    for name in 0..20 {
                        std::fs::remove_dir_all(folder.path().join(name.to_string())).unwrap();
                    }
                }
            });
            let found: Vec<Pins> = (0..500).map(|_| walked(folder.path())).collect();
            is_done.store(true, Relaxed);
            let unreadable: Vec<&Error> = found.iter().flat_map(|it| &it.unreadable).collect();
            assert!(unreadable.is_empty(), "{unreadable:?}");
        });
    }

    #[test]
    fn a_pin_that_is_gone_is_unpinned_and_one_that_stays_is_an_error() {
        let folder = Folder::new("unpin");
        let pin = folder.file("a/pin", "");
        unpin(&pin).unwrap();
        assert!(!pin.exists());
        unpin(&pin).unwrap();
        assert_eq!(unpin(&folder.path().join("a")).unwrap_err().errno(), Errno::EISDIR);
    }

    #[test]
    fn the_folder_of_a_pin_is_its_owners_alone_and_goes_when_it_is_empty() {
        let folder = Folder::new("folder");
        let pin = folder.path().join("a/b/pin");
        make_folder_for(&pin).unwrap();
        let made = pin.parent().unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(&pin, "").unwrap();
        remove_empty_folder_of(&pin).unwrap();
        assert!(made.exists());
        let below_a_file = remove_empty_folder_of(&pin.join("pin")).unwrap_err();
        assert_eq!(below_a_file.errno(), Errno::ENOTDIR, "what cannot be removed is told");
        std::fs::remove_file(&pin).unwrap();
        remove_empty_folder_of(&pin).unwrap();
        assert!(!made.exists());
    }

    #[test]
    fn no_other_file_system_is_taken_for_a_bpffs() {
        assert_eq!(is_on_bpffs(Path::new("/proc/self")), Ok(false));
    }
}
