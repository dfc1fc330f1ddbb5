//! Where results go.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anstream::{AutoStream, ColorChoice};
use anyhow::anyhow;

use crate::cli::{ReportArgs, descriptor, resolved};
use crate::formats::{COLUMNS, Medium, Rendition, render};
use crate::talk::cannot_write;

/// Where a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, where standard output is somebody else's.
    Stderr,
}

impl Stream {
    /// What it is for text: coloured if it is a terminal and `NO_COLOR` is not set.
    pub(super) fn medium(self) -> Medium {
        let mut table = comfy_table::Table::new();
        let (choice, is_terminal) = match self {
            Self::Stdout => (AutoStream::choice(&io::stdout()), io::stdout().is_terminal()),
            Self::Stderr => {
                table.use_stderr();
                (AutoStream::choice(&io::stderr()), io::stderr().is_terminal())
            }
        };
        Medium {
            colour: choice != ColorChoice::Never,
            width: table.width().filter(|_| is_terminal).or(Some(COLUMNS)),
        }
    }

    /// Writes a result to it. That nobody reads it any more (`... | head`) is no failure: the exit status still
    /// tells the verdict.
    fn print(self, text: &str) -> anyhow::Result<()> {
        let written = |mut stream: Box<dyn Write>| {
            stream.write_all(text.as_bytes()).and_then(|()| stream.flush())
        };
        let (result, name) = match self {
            Self::Stdout => (written(Box::new(io::stdout().lock())), "standard output"),
            Self::Stderr => (written(Box::new(io::stderr().lock())), "standard error"),
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(anyhow!(cannot_write(name, "write", &error)))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Stream::Stdout.print(text)
}

/// Writes a result to the files that were asked for, and prints it. What cannot be written does not keep the
/// rest from being written.
///
/// # Errors
/// Everything that could not be written, in one error.
pub(super) fn deliver(
    result: &impl Rendition,
    args: &ReportArgs,
    stream: Stream,
) -> anyhow::Result<()> {
    let files = args.outputs.iter().map(|output| {
        let text = render(result, output.format, Medium::FILE)?;
        write(Some(&output.file), &text)
    });
    let mut failed: Vec<anyhow::Error> = files.filter_map(Result::err).collect();
    let printed = render(result, args.format, stream.medium()).and_then(|text| stream.print(&text));
    failed.extend(printed.err());
    if failed.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    Err(anyhow!(all.join("; ")))
}

/// Writes a result to a file, or to standard output. Whoever reads a file sees the old one or the new one, never a
/// part; what is no file, and what a descriptor's path names, is written to where it is.
pub(crate) fn write(to: Option<&Path>, text: &str) -> anyhow::Result<()> {
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

/// The call that failed, and why.
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
        // A device or a pipe is written to, not replaced.
        Ok(found) if !found.is_file() => {
            let mut there = File::options().write(true).open(path).map_err(failed("open"))?;
            return there.write_all(bytes).map_err(failed("write"));
        }
        // The file itself, not a symbolic link to it.
        _ => resolved(path),
    };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    // Less the umask, like any other file. (Errors of its own opening and writing would name the temporary file.)
    let make = |path: &Path| {
        File::options().read(true).write(true).create_new(true).mode(0o666).open(path)
    };
    let mut file = tempfile::Builder::new().make_in(folder, make).map_err(failed("open"))?;
    file.as_file_mut().write_all(bytes).map_err(failed("write"))?;
    // Where the machine loses its power, too, there is the old one or the new one.
    file.as_file().sync_all().map_err(failed("fsync"))?;
    file.persist(path).map_err(|error| Failed("rename", error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::cli::{Format, Output};
    use crate::results::Results;

    /// A result that is the same in every format that it has.
    struct Told;

    impl Rendition for Told {
        fn text(&self, _: Medium) -> String {
            "told".to_owned()
        }

        fn json(&self) -> serde_json::Result<String> {
            Ok("told".to_owned())
        }

        fn results(&self) -> Results {
            unreachable!("no format asks for them")
        }
    }

    #[test]
    fn what_cannot_be_written_keeps_no_other_file_from_being_written_and_is_told() {
        for bits in 0..8 {
            let folder = tempfile::tempdir().unwrap();
            let fails = |number: usize| bits & 1 << number != 0;
            let file = |number: usize| {
                let parent =
                    if fails(number) { folder.path().join("no") } else { folder.path().into() };
                parent.join(number.to_string())
            };
            let output = |number| Output { format: Format::Text, file: file(number) };
            // One that has no such format fails as well.
            let numbers =
                Output { format: Format::Prometheus, file: folder.path().join("numbers") };
            for outputs in [vec![], vec![numbers]] {
                let count = outputs.len();
                let outputs = (0..3).map(output).chain(outputs).collect();
                let told =
                    deliver(&Told, &ReportArgs { format: Format::Json, outputs }, Stream::Stderr);
                let told = told.err().map(|error| format!("{error:#}")).unwrap_or_default();
                for number in 0..3 {
                    assert_eq!(fs::read_to_string(file(number)).is_ok(), !fails(number));
                    let name = format!("cannot write to {}:", file(number).display());
                    assert_eq!(told.contains(&name), fails(number), "{told}");
                }
                assert_eq!(told.matches("no numbers for Prometheus").count(), count, "{told}");
            }
        }
    }

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
        // Even where its file is still to be made.
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
