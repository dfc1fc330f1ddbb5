//! Where results go.

use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;

/// Whether standard output is to be coloured: a terminal, and `NO_COLOR` is not set.
pub(super) fn is_coloured() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// The width of the terminal, if standard output is one.
pub(super) fn width() -> Option<u16> {
    comfy_table::Table::new().width().filter(|_| io::stdout().is_terminal())
}

/// Writes a result to standard output. That nobody reads it any more (`... | head`) is no failure: the
/// exit status still tells the verdict.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes a result to a file, or to standard output. Whoever reads the file sees the old one or the new
/// one, never a part.
pub(super) fn write(to: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match to {
        None => print(text),
        Some(path) => replace(path, text.as_bytes())
            .with_context(|| format!("cannot write to {}", path.display())),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = match fs::metadata(path) {
        // A device or a pipe is written to, not replaced.
        Ok(found) if !found.is_file() => {
            return File::options().write(true).open(path)?.write_all(bytes);
        }
        // The file itself, not a symbolic link to it.
        Ok(_) => path.canonicalize()?,
        Err(_) => path.to_owned(),
    };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut file = tempfile::Builder::new()
        // Less the umask, like any other file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
        assert!(format!("{error:#}").starts_with("cannot write to /nowhere/report: "), "{error:#}");
    }
}
