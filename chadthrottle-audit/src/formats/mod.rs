//! Defines the output formats.
//!
//! Each command writes its own text and JSON. The formats for CI systems come from [`Results`] alone, whichever the
//! command.

mod github;
mod junit;
pub(crate) mod prometheus;
mod sarif;

use std::fmt;

use anyhow::bail;
use clap::ValueEnum;
use terminal::Medium;

use crate::results::Results;

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
    /// Returns the format's name, as the command line uses it.
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

    pub(crate) fn all_but(refused: &[Self]) -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|it| !refused.contains(it))
    }

    pub(crate) fn names(refused: &[Self]) -> String {
        Self::all_but(refused).map(Self::name).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The result of a command, in every format.
pub(crate) trait Rendition {
    /// Returns the text for people.
    fn text(&self, on: Medium) -> String;

    /// Returns the JSON for programs: one object and a final line break.
    ///
    /// # Errors
    /// A value cannot be written as JSON.
    fn json(&self) -> serde_json::Result<String>;

    /// Returns the checks that passed or failed, for CI systems.
    fn results(&self) -> Results;

    /// Returns the numbers for Prometheus. [`ReportArgs::check`](crate::cli::ReportArgs::check) refuses this format for
    /// commands without numbers.
    ///
    /// # Errors
    /// The command has no numbers, or they cannot be written.
    fn prometheus(&self) -> anyhow::Result<String> {
        bail!("there are no numbers for Prometheus here: choose another format")
    }
}

/// Renders a command's result.
///
/// # Errors
/// A value cannot be written in that format.
pub(crate) fn render(what: &impl Rendition, format: Format, on: Medium) -> anyhow::Result<String> {
    Ok(match format {
        Format::Text => what.text(on),
        Format::Json => what.json()?,
        Format::Sarif => sarif::render(&what.results())?,
        Format::Github => github::render(&what.results()),
        Format::Prometheus => what.prometheus()?,
        Format::Junit => junit::render(&what.results())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_the_name_that_the_command_line_knows_it_by() {
        for format in Format::value_variants() {
            assert_eq!(format.to_possible_value().unwrap().get_name(), format.name());
        }
    }
}
