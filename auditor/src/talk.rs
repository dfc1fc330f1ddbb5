//! What is said beside the result: standard error.

use std::fmt::Display;
use std::io::Write;

/// Says something, a line. That it cannot be written is no failure: the exit status still tells how it went.
pub fn say(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// The same, but stays in the line.
pub(crate) fn ask(question: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}
