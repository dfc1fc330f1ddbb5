//! Prints results to the standard streams.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::anyhow;

use crate::talk::cannot_write;

/// The width to assume if the output is not a terminal, in columns.
pub const COLUMNS: u16 = 80;

/// What text is for: a terminal or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// Whether it shows colours.
    pub colour: bool,
    /// Its width in columns. `None` means that the width does not matter.
    pub width: Option<u16>,
}

impl Medium {
    /// A file.
    pub const FILE: Self = Self { colour: false, width: Some(COLUMNS) };
}

/// The stream for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, where another program uses standard output.
    Stderr,
}

impl Stream {
    /// Returns the stream's properties for text. A terminal shows colours unless `NO_COLOR` is set.
    pub fn medium(self) -> Medium {
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

    /// Writes a result. Succeeds even if the reader has gone (`... | head`); the exit status still tells the verdict.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn print(self, text: &str) -> anyhow::Result<()> {
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
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    Stream::Stdout.print(text)
}
