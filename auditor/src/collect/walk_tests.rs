//! Tests the walk on ordinary directories, because it does not depend on cgroups.

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

#[derive(Debug, Default)]
struct Visits {
    visited: Vec<PathBuf>,
    failed: Vec<(PathBuf, Errno)>,
    stopped: Vec<(PathBuf, Errno)>,
    descriptors: Vec<RawFd>,
    /// The walk's visit of the first path removes the second.
    removes: Option<(PathBuf, PathBuf)>,
}

impl Visitor for Visits {
    fn visit(&mut self, cgroup: BorrowedFd<'_>, _: CgroupId, path: &Path) {
        self.descriptors.push(cgroup.as_raw_fd());
        if let Some((_, remove)) = self.removes.take_if(|(when, _)| when == path) {
            fs::remove_dir_all(remove).unwrap();
        }
        self.visited.push(path.to_owned());
    }
    fn fail(&mut self, path: &Path, errno: Errno) {
        self.failed.push((path.to_owned(), errno));
    }
    fn stop(&mut self, path: &Path, errno: Errno) {
        self.stopped.push((path.to_owned(), errno));
    }
}

/// Makes directories on a tmpfs, which has the same link counts as cgroup2. Not every file system does.
fn tree(folders: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    for folder in folders {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    root
}

fn walked(root: &Path, mut visits: Visits) -> Visits {
    walk(fs::File::open(root).unwrap().as_fd(), Path::new("/r"), &mut visits);
    visits.visited.sort();
    visits
}

#[test]
fn every_directory_is_visited_once_and_files_are_not() {
    let root = tree(&["a/b/c", "a/d", "e"]);
    fs::write(root.path().join("a/file"), "").unwrap();
    let visits = walked(root.path(), Visits::default());
    let expected = ["/r", "/r/a", "/r/a/b", "/r/a/b/c", "/r/a/d", "/r/e"];
    assert_eq!(visits.visited, expected.map(PathBuf::from));
    assert_eq!((visits.failed, visits.stopped), (vec![], vec![]));
}

#[test]
fn the_mount_itself_is_a_slash() {
    let root = tree(&["a"]);
    let mut visits = Visits::default();
    walk(fs::File::open(root.path()).unwrap().as_fd(), Path::new("/"), &mut visits);
    assert_eq!(visits.visited, ["/", "/a"].map(PathBuf::from));
}

#[test]
fn names_are_bytes() {
    let root = tree(&["a b", "q\"'\n"]);
    let odd = PathBuf::from(std::ffi::OsString::from_vec(b"x\xff".to_vec()));
    fs::create_dir(root.path().join(&odd)).unwrap();
    let visits = walked(root.path(), Visits::default());
    assert!(visits.visited.contains(&Path::new("/r").join(odd)));
    assert_eq!(visits.visited.len(), 4);
}

#[test]
fn a_branch_that_goes_while_the_walk_is_inside_it_does_not_end_the_walk() {
    let root = tree(&["a/b/c/d", "e/f"]);
    let removes = ("/r/a/b/c".into(), root.path().join("a"));
    let visits = walked(root.path(), Visits { removes: Some(removes), ..Visits::default() });
    assert!(visits.visited.ends_with(&["/r/e".into(), "/r/e/f".into()]), "{visits:?}");
    assert_eq!(visits.stopped, []);
}

#[test]
fn a_child_that_goes_before_it_is_opened_is_a_failure_of_its_own() {
    let root = tree(&["a/b", "c/d"]);
    // The visit of whichever comes first removes the other one.
    let mut visits = Visits::default();
    let first = {
        walk(fs::File::open(root.path()).unwrap().as_fd(), Path::new("/r"), &mut visits);
        visits.visited[1].clone()
    };
    let other = if first == Path::new("/r/a") { "c" } else { "a" };
    let removes = (first, root.path().join(other));
    let visits = walked(root.path(), Visits { removes: Some(removes), ..Visits::default() });
    assert_eq!(visits.failed, [(Path::new("/r").join(other), Errno::ENOENT)]);
    assert_eq!(visits.visited.len(), 3);
}

#[test]
fn root_what_may_not_be_opened_is_a_failure_and_its_siblings_are_visited() {
    let root = tree(&["a/b", "c"]);
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.path().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root may open anything, so the test becomes nobody. (nextest gives each test a process of its own.)
    let rights = nix::unistd::geteuid();
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(65_534)).unwrap();
    let visits = walked(root.path(), Visits::default());
    nix::unistd::seteuid(rights).unwrap();
    assert_eq!(visits.visited, ["/r", "/r/c"].map(PathBuf::from));
    assert_eq!(visits.failed, [("/r/a".into(), Errno::EACCES)]);
}

#[test]
fn a_deep_tree_takes_no_more_descriptors_than_a_flat_one() {
    const DEPTH: usize = 1_500;
    let root = tree(&[]);
    let mut here: OwnedFd = fs::File::open(root.path()).unwrap().into();
    for _ in 0..DEPTH {
        nix::sys::stat::mkdirat(&here, "deep", Mode::S_IRWXU).unwrap();
        here = open(here.as_fd(), c"deep").unwrap().0;
    }
    let visits = walked(root.path(), Visits::default());
    assert_eq!(visits.visited.len(), DEPTH + 1);
    assert_eq!((visits.failed, visits.stopped), (vec![], vec![]));
    // `open` takes the lowest free number each time. Other tests may have open descriptors as well.
    assert!(visits.descriptors.iter().all(|&fd| fd < 256), "{:?}", visits.descriptors.last());
}
