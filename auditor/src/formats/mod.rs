//! The formats that a result can be had in.
//!
//! Text and JSON are a command's own. What CI systems read is made from [`Results`] alone, whichever command
//! they are of.

mod github;
mod junit;
pub(crate) mod prometheus;
mod sarif;

use anyhow::bail;

use crate::cli::Format;
use crate::results::Results;

/// What a command has to say, in every format.
pub trait Rendition {
    /// For people.
    fn text(&self, on: Medium) -> String;

    /// For programs; one object, and a line break at its end.
    ///
    /// # Errors
    /// Something in it cannot be written as JSON.
    fn json(&self) -> serde_json::Result<String>;

    /// As checks that passed or did not, for CI systems.
    fn results(&self) -> Results;

    /// Its numbers, for Prometheus. A command without any refuses the format in
    /// [`ReportArgs::check`](crate::cli::ReportArgs::check).
    ///
    /// # Errors
    /// It has none, or they cannot be written.
    fn prometheus(&self) -> anyhow::Result<String> {
        bail!("there are no numbers for Prometheus here: choose another format")
    }
}

/// What text is written on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// It shows colours.
    pub colour: bool,
    /// How many columns it has; none if it does not matter.
    pub width: Option<u16>,
}

/// The columns of what is no terminal: whoever reads it may have no more.
pub const COLUMNS: u16 = 80;

impl Medium {
    /// A file.
    pub const FILE: Self = Self { colour: false, width: Some(COLUMNS) };
}

/// Renders what a command has to say.
///
/// # Errors
/// Something in it cannot be written in that format.
pub fn render(what: &impl Rendition, format: Format, on: Medium) -> anyhow::Result<String> {
    Ok(match format {
        Format::Text => what.text(on),
        Format::Json => what.json()?,
        Format::Sarif => sarif::render(&what.results())?,
        Format::Github => github::render(&what.results()),
        Format::Prometheus => what.prometheus()?,
        Format::Junit => junit::render(&what.results())?,
    })
}
