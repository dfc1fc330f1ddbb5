//! Decides how to print a command's result and where else to write it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use terminal::{check_file, resolved};

use super::unusable::Unusable;
use crate::formats::Format;

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

/// Parses `--format` for a command that lacks the refused formats. Completions do not offer them.
pub(super) fn formats_but(refused: &'static [Format]) -> impl TypedValueParser<Value = Format> {
    let offered = Format::all_but(refused).filter_map(|it| it.to_possible_value());
    PossibleValuesParser::new(offered)
        .map(|name| Format::from_str(&name, false).expect("only the formats' names are taken"))
}

/// Parses `--output` for a command that lacks these formats.
pub(super) fn outputs_but(refused: &'static [Format]) -> impl TypedValueParser<Value = Output> {
    OsStringValueParser::new().try_map(move |text| Output::parse(&text, refused))
}

impl ReportArgs {
    /// Checks that the outputs can be written. Call it before the work that produces the result.
    pub(crate) fn check(&self) -> Result<(), Unusable> {
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

/// A file that a result is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The format.
    pub format: Format,
    /// The file.
    pub file: PathBuf,
}

impl Output {
    /// Parses `FORMAT=FILE`. The file's name may be any bytes.
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

/// The error for a text that is not an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NoOutput {
    #[error("it does not say the format: write FORMAT=FILE, as in json={0}")]
    NoFormat(String),
    #[error("'{name}' is no format here; there are {offered}")]
    UnknownFormat { name: String, offered: String },
    #[error("it names no file: write {0}=FILE")]
    NoFile(Format),
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
