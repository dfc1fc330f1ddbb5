//! How a command's result is printed, and where it goes besides.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

/// How many symbolic links the kernel follows.
const MAX_LINKS: usize = 40;

/// How to print a result, and files to write it to.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Write the result to FILE as well, in one go, in any of the formats of --format, such as
    /// `json=report.json`; may be given several times
    #[arg(
        long = "output",
        value_name = "FORMAT=FILE",
        value_parser = outputs_but(&[])
    )]
    pub outputs: Vec<Output>,
}

/// The values of `--format` for a command that does not have these: they are not offered, and not taken.
pub(super) fn formats_but(refused: &'static [Format]) -> impl TypedValueParser<Value = Format> {
    let offered = Format::all_but(refused).filter_map(|it| it.to_possible_value());
    PossibleValuesParser::new(offered)
        .map(|name| Format::from_str(&name, false).expect("only the formats' names are taken"))
}

/// The values of `--output` for a command that does not have these formats.
pub(super) fn outputs_but(refused: &'static [Format]) -> impl TypedValueParser<Value = Output> {
    OsStringValueParser::new().try_map(move |text| Output::parse(&text, refused))
}

impl ReportArgs {
    /// Whether it can be done: to be asked before the work that the result is of.
    pub fn check(&self) -> Result<(), Unusable> {
        let mut seen = Vec::new();
        for output in &self.outputs {
            let file = resolved(&output.file);
            if seen.contains(&file) {
                return Err(Unusable::SameFile(output.file.clone()));
            }
            seen.push(file);
            check_file(&output.file)?;
        }
        Ok(())
    }
}

/// Whether a file can be written: to be asked before the work that is written to it.
pub(crate) fn check_file(file: &Path) -> Result<(), Unusable> {
    let Some(place) = needed(file) else { return Ok(()) };
    access(&place, AccessFlags::W_OK).map_err(|errno| {
        let file = file.to_owned();
        Unusable::Place { file, place, errno }
    })
}

/// What one has to have the right to write to; nothing for what is open already, whoever may open it.
fn needed(path: &Path) -> Option<PathBuf> {
    match descriptor(path) {
        Some(1 | 2) => return None,
        Some(_) => return Some(path.to_owned()),
        None => {}
    }
    if path.metadata().is_ok_and(|it| !it.is_file()) {
        return Some(path.to_owned());
    }
    // Made beside the file, and renamed: so it is the folder.
    let file = resolved(path);
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    Some(folder.unwrap_or(Path::new(".")).to_owned())
}

/// The descriptor of this process that a path names. What it is of is written to (behind what is there), never
/// replaced: whoever has opened it would go on with the old file.
pub(crate) fn descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => ["/dev/fd/", "/proc/self/fd/"]
            .into_iter()
            .find_map(|folder| path.strip_prefix(folder)?.parse().ok()),
    }
}

/// The file that would be written, whatever way leads to it, even where it is not there yet; the path as it is where
/// that cannot be told.
pub(crate) fn resolved(path: &Path) -> PathBuf {
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
            // To a file that is still to be made.
            Ok(target) if links > 0 => resolved_through(&folder.join(target), links - 1),
            _ => folder.join(name),
        },
        _ => path.to_owned(),
    }
}

/// What is asked for cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The later one would replace the earlier one.
    #[error("--output names {} more than once: give each format a file of its own", .0.display())]
    SameFile(PathBuf),
    /// It could not be written.
    #[error("cannot write to {}: {}: {} (access: {errno:?})", file.display(), place.display(), errno.desc())]
    Place {
        /// The file.
        file: PathBuf,
        /// What cannot be written to: its folder, or what it is itself.
        place: PathBuf,
        /// Why.
        errno: Errno,
    },
}

/// A file that a result is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How.
    pub format: Format,
    /// Where.
    pub file: PathBuf,
}

impl Output {
    /// Reads `FORMAT=FILE`. The file's name may be any bytes.
    fn parse(text: &OsString, refused: &'static [Format]) -> Result<Self, NoOutput> {
        let bytes = text.as_bytes();
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(at) = bytes.iter().position(|&byte| byte == b'=') else {
            return Err(NoOutput::NoFormat(lossy(bytes)));
        };
        let (name, file) = (lossy(&bytes[..at]), &bytes[at + 1..]);
        let format = Format::from_str(&name, false).ok().filter(|it| !refused.contains(it));
        let Some(format) = format else {
            return Err(NoOutput::UnknownFormat { name, offered: Format::names(refused) });
        };
        if file.is_empty() {
            return Err(NoOutput::NoFile(format));
        }
        Ok(Self { format, file: OsString::from_vec(file.to_vec()).into() })
    }
}

/// The text names no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NoOutput {
    #[error("it does not say the format: write FORMAT=FILE, as in json={0}")]
    NoFormat(String),
    #[error("'{name}' is no format here; there are {offered}")]
    UnknownFormat { name: String, offered: String },
    #[error("it names no file: write {0}=FILE")]
    NoFile(Format),
}

/// How to print a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs; the shape is stable
    Json,
    /// JUnit XML, for Jenkins, GitLab and others
    Junit,
    /// SARIF 2.1.0, for code scanning services
    Sarif,
    /// Annotations for GitHub Actions
    Github,
    /// Numbers for Prometheus, such as through the node exporter's textfile collector
    Prometheus,
}

impl Format {
    /// Its name, on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Junit => "junit",
            Self::Sarif => "sarif",
            Self::Github => "github",
            Self::Prometheus => "prometheus",
        }
    }

    fn all_but(refused: &[Self]) -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|it| !refused.contains(it))
    }

    fn names(refused: &[Self]) -> String {
        Self::all_but(refused).map(Self::name).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(outputs: &[&str]) -> ReportArgs {
        let outputs =
            outputs.iter().map(|text| Output::parse(&text.into(), &[]).unwrap()).collect();
        ReportArgs { format: Format::Text, outputs }
    }

    #[test]
    fn every_format_has_the_name_that_the_command_line_knows_it_by() {
        for format in Format::value_variants() {
            assert_eq!(format.to_possible_value().unwrap().get_name(), format.name());
        }
    }

    #[test]
    fn an_output_is_a_format_and_a_file_whose_name_may_be_any_bytes() {
        let output = Output::parse(&OsString::from_vec(b"json=a=\xff".to_vec()), &[]).unwrap();
        assert_eq!(output.format, Format::Json);
        assert_eq!(output.file.as_os_str().as_bytes(), b"a=\xff");
        let refused = |text: &str| Output::parse(&text.into(), &[]).unwrap_err().to_string();
        assert_eq!(refused("report.json"), NoOutput::NoFormat("report.json".into()).to_string());
        assert!(refused("yaml=a").starts_with("'yaml' is no format here; there are text, json"));
        assert!(refused("=a").starts_with("'' is no format"));
        let here = Output::parse(&"json=a".into(), &[Format::Json]).unwrap_err().to_string();
        assert!(here.starts_with("'json' is no format here; there are text, junit"), "{here}");
        assert_eq!(refused("json="), "it names no file: write json=FILE");
    }

    #[test]
    fn what_could_not_be_written_is_told_before_there_is_anything_to_write() {
        let check = |output: &str| args(&[output]).check().map_err(|it| it.to_string());
        assert_eq!(check("json=/dev/null"), Ok(()));
        let missing =
            "cannot write to /no/where: /no: No such file or directory (access: ENOENT)".to_owned();
        assert_eq!(check("json=/no/where"), Err(missing));
        assert!(
            check("json=/dev/null/x/y").unwrap_err().ends_with("Not a directory (access: ENOTDIR)")
        );
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/no/where", &link).unwrap();
        let told = check(&format!("json={}", link.display())).unwrap_err();
        assert!(told.ends_with("/link: /no: No such file or directory (access: ENOENT)"), "{told}");
        assert_eq!(check("json=/dev/stdout"), Ok(()));
        assert!(check("json=/dev/fd/1023").is_err());
    }

    #[test]
    fn two_outputs_to_one_file_are_refused_whatever_way_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink("new", at("to new")).unwrap();
        let base = folder.path().file_name().unwrap().to_str().unwrap();
        for (one, other) in [
            (at("new"), at("new")),
            (at("new"), at(&format!("../{base}/new"))),
            (at("file"), at("./file")),
            (at("file"), at("link")),
            (at("new"), at("to new")),
        ] {
            let args = args(&[&format!("json={one}"), &format!("text={other}")]);
            assert_eq!(args.check(), Err(Unusable::SameFile(other.into())));
        }
        let two = [format!("json={}", at("one")), format!("json={}", at("two"))];
        assert_eq!(args(&[&two[0], &two[1]]).check(), Ok(()));
    }

    #[test]
    fn a_format_that_a_command_does_not_have_is_not_offered() {
        let offered = |refused| {
            let parser = formats_but(refused);
            let values = parser.possible_values().into_iter().flatten();
            values.map(|value| value.get_name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(offered(&[]).len(), Format::value_variants().len());
        let some = offered(&[Format::Prometheus]);
        assert!(!some.contains(&"prometheus".to_owned()) && some.contains(&"sarif".to_owned()));
    }
}
