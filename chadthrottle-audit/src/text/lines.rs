//! Builds text paragraph by paragraph.

use auditor::facts::Note;
use terminal::{escape, number};

use super::gathered;

/// Text, paragraph by paragraph.
#[derive(Default)]
pub(super) struct Lines(Vec<String>);

impl Lines {
    /// Adds a heading with the number of entries, and the entries; adds nothing if there are none. The caller passes
    /// names exactly as the system has them. This indents the further lines of an entry.
    pub(super) fn paragraph(&mut self, heading: &str, entries: impl Iterator<Item = Vec<String>>) {
        let shown = |lines: Vec<String>| {
            let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
            format!("\n  {}", lines.join("\n    "))
        };
        let entries: Vec<String> = entries.map(shown).collect();
        if !entries.is_empty() {
            self.0.push(format!("{heading} ({}):{}", number(entries.len()), entries.concat()));
        }
    }

    /// Adds a heading with a given number, and entries that summarise that many things.
    pub(super) fn group(
        &mut self,
        heading: &str,
        things: usize,
        entries: impl Iterator<Item = Vec<String>>,
    ) {
        let before = self.0.len();
        self.paragraph(heading, entries);
        if let Some(last) = self.0.get_mut(before) {
            let (_, rest) = last.split_once(":\n").unwrap_or_default();
            *last = format!("{heading} ({}):\n{rest}", number(things));
        }
    }

    /// Adds a paragraph of one line. The caller passes names exactly as the system has them.
    pub(super) fn line(&mut self, line: &str) {
        self.0.push(escape(line));
    }

    /// Adds what could not be seen.
    pub(super) fn gaps(&mut self, gaps: &[Note]) {
        if gaps.is_empty() {
            return;
        }
        let lines = gathered(gaps).into_iter().map(|line| format!("\n  {line}"));
        let lines: String = lines.collect();
        let number = number(gaps.len());
        self.0.push(format!("Not seen, or not to be compared ({number}):{lines}"));
    }

    /// Returns the whole text with its last lines.
    pub(super) fn end(mut self, last: String) -> String {
        self.0.push(last);
        self.0.join("\n\n") + "\n"
    }
}
