//! Delivers results.

use anyhow::anyhow;
use terminal::{Medium, Stream, write};

use crate::cli::ReportArgs;
use crate::formats::{Rendition, render};

/// Writes a result to the requested files and prints it. A file that cannot be written does not prevent the others.
///
/// # Errors
/// One error that covers everything that could not be written.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::Output;
    use crate::formats::Format;
    use crate::results::Results;

    /// A result with the same text in each of its formats.
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
            // A format that the result does not have is an error as well.
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
}
