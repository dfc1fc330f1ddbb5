//! Comparisons as text, for people. The verdict comes last, where the terminal stops.

use super::report::DiffReport;
use super::{Item, Kind};
use crate::classify::Verdict;
use crate::escape::escape;
use crate::gathered::gathered;
use crate::report::Gap;
use crate::text::{count, number, painted};

/// Renders the report.
pub(super) fn render(report: &DiffReport, colour: bool) -> String {
    let mut lines = Lines::default();
    let since = format!("New since {}", report.before.taken_at);
    lines.paragraph(&since, report.new.iter().map(entry));
    lines.paragraph("Gone", report.gone.iter().map(entry));
    lines.gaps(&report.gaps);
    lines.end(painted(colour, report.verdict, &conclusion(report)))
}

/// A thing, in one line.
pub(crate) fn entry(item: &Item) -> Vec<String> {
    vec![item.to_string()]
}

/// The verdict, in one line.
pub(super) fn conclusion(report: &DiffReport) -> String {
    let named = named(&report.programs);
    let gone = match report.gone.len() {
        0 => String::new(),
        some => format!("; {} gone", number(some)),
    };
    let blind = blind(&report.gaps);
    match report.verdict {
        Verdict::Clean => format!("nothing new{named}{gone}"),
        Verdict::Leaks => {
            format!("new: {}{named}{gone}{blind}", counted(&report.new.iter().collect::<Vec<_>>()))
        }
        Verdict::Incomplete => format!("incomplete: nothing new was seen{named}{gone}{blind}"),
    }
}

/// The globs, as the end of a sentence; nothing where they are for everything.
pub(crate) fn named(globs: &[String]) -> String {
    if globs.iter().any(|glob| glob == "*") {
        return String::new();
    }
    format!(" of what is named {}", globs.join(", "))
}

/// That there are gaps, as the end of a sentence.
pub(crate) fn blind(gaps: &[Gap]) -> String {
    match gaps.len() {
        0 => String::new(),
        some => format!(", but {} could not be seen or compared", count(some, "thing")),
    }
}

/// `1 attachment, 2 programs and 1 map`.
pub(crate) fn counted(items: &[&Item]) -> String {
    let of_kind = |kind: Kind| items.iter().filter(|item| item.kind() == kind).count();
    let counts: Vec<String> = Kind::ALL
        .into_iter()
        .filter(|kind| of_kind(*kind) > 0)
        .map(|kind| count(of_kind(kind), kind.name()))
        .collect();
    match counts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// Text, paragraph by paragraph.
#[derive(Default)]
pub(crate) struct Lines(Vec<String>);

impl Lines {
    /// A heading with the number of its entries, and the entries; nothing where there are none. Lines are given as the
    /// system has them. An entry's further lines are indented more.
    pub(crate) fn paragraph(&mut self, heading: &str, entries: impl Iterator<Item = Vec<String>>) {
        let shown = |lines: Vec<String>| {
            let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
            format!("\n  {}", lines.join("\n    "))
        };
        let entries: Vec<String> = entries.map(shown).collect();
        if !entries.is_empty() {
            self.0.push(format!("{heading} ({}):{}", number(entries.len()), entries.concat()));
        }
    }

    /// A heading with a number of its own, and entries that tell of so many things in fewer.
    pub(crate) fn group(
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

    /// A paragraph of one line, as the system has it.
    pub(crate) fn line(&mut self, line: &str) {
        self.0.push(escape(line));
    }

    /// What could not be seen.
    pub(crate) fn gaps(&mut self, gaps: &[Gap]) {
        if gaps.is_empty() {
            return;
        }
        let lines = gathered(gaps).into_iter().map(|line| format!("\n  {line}"));
        let lines: String = lines.collect();
        let number = number(gaps.len());
        self.0.push(format!("Not seen, or not to be compared ({number}):{lines}"));
    }

    /// The whole, with its last lines.
    pub(crate) fn end(mut self, last: String) -> String {
        self.0.push(last);
        self.0.join("\n\n") + "\n"
    }
}
