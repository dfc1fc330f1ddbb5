//! Provides what chadthrottle's command lines share.
//!
//! | module | what |
//! | --- | --- |
//! | [`exit`] | defines exit statuses, and errors that end a program with one |
//! | [`talk`] | says notes, warnings and errors on standard error; `-q` and `-v` |
//! | `escape` | makes names harmless for a terminal |
//! | `output`, `file` | writes results to standard output and to files |
//! | `gathered`, `words` | words lists and numbers for people |
//! | `generate`, `schema` | generates man pages, completions and JSON Schemas |
//! | `progress` | shows a spinner while something takes long |
//! | `signals` | tells which signals this process ignores |
//!
//! Nothing here depends on the engine or on the auditor.
#![forbid(unsafe_code)]

mod escape;
pub mod exit;
mod file;
mod gathered;
mod generate;
mod output;
mod progress;
mod schema;
mod signals;
pub mod talk;
mod words;

pub use self::escape::{escape, escape_bytes};
pub use self::file::{Unwritable, check_file, resolved, write};
pub use self::gathered::gathered;
pub use self::generate::{Shell, completions, man_pages, write_man_pages};
pub use self::output::{COLUMNS, Medium, Stream, print};
pub use self::progress::Progress;
pub use self::schema::{schema_of, schema_to_read};
pub use self::signals::Ignored;
pub use self::words::{count, number};
