//! A folder for one test, for what is read from files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// It goes when the test ends, with what is in it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chadtest-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and makes the folders that lead to it.
    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.make_room_for(path);
        fs::write(&path, text).unwrap();
        path
    }

    /// Makes a symbolic link, which may point to what does not exist.
    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        symlink(target, self.make_room_for(path)).unwrap();
    }

    fn make_room_for(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
