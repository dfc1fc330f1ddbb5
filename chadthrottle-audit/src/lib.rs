//! The program `chadthrottle-audit`: the command line and all output of the [`auditor`].
//!
//! | module | what |
//! | --- | --- |
//! | `cli` | defines the command line |
//! | `commands` | runs the subcommands: each one asks the library and passes on the result |
//! | `child` | runs the command of `gate` |
//! | `documents` | defines the JSON that the commands write, and its schemas |
//! | `results` | turns a command's result into checks that passed or failed |
//! | `formats` | writes a result as text, as JSON and in formats for CI systems |
//! | `text` | words results for people |
//! | `explain`, `remedy` | says what a finding means and what ends it |
//!
//! The library of this crate serves the program, the benches and the fuzzer. It promises no stable API.
#![forbid(unsafe_code)]

mod child;
mod cli;
mod commands;
mod documents;
mod exit;
mod explain;
mod formats;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod remedy;
mod renditions;
mod results;
#[cfg(test)]
#[path = "../../auditor/src/story/mod.rs"]
mod story;
#[cfg(test)]
mod tests;
mod text;

pub use self::cli::Cli;
pub use self::commands::run;
pub use self::documents::Document;
pub use self::exit::status_of;
