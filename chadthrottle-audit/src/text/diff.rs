//! Words comparisons for people. The verdict comes last, where the terminal stops.

use auditor::compare::{Item, Kind};
use auditor::facts::Note;
use auditor::judge::Verdict;
use terminal::{count, number};

use super::lines::Lines;
use super::painted;
use crate::documents::DiffReport;

/// Renders the report.
pub(crate) fn render(report: &DiffReport, colour: bool) -> String {
    let mut lines = Lines::default();
    let since = format!("New since {}", report.before.taken_at);
    lines.paragraph(&since, report.new.iter().map(entry));
    lines.paragraph("Gone", report.gone.iter().map(entry));
    lines.gaps(&report.gaps);
    lines.end(painted(colour, report.verdict, &conclusion(report)))
}

/// Words a thing in one line.
pub(crate) fn entry(item: &Item) -> Vec<String> {
    vec![item.to_string()]
}

/// Words the verdict in one line.
pub(crate) fn conclusion(report: &DiffReport) -> String {
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

/// Words the globs as the end of a sentence; empty if they cover everything.
pub(crate) fn named(globs: &[String]) -> String {
    if globs.iter().any(|glob| glob == "*") {
        return String::new();
    }
    format!(" of what is named {}", globs.join(", "))
}

/// Says that there are gaps, as the end of a sentence.
pub(crate) fn blind(gaps: &[Note]) -> String {
    match gaps.len() {
        0 => String::new(),
        some => format!(", but {} could not be seen or compared", count(some, "thing")),
    }
}

/// Counts things by kind: `1 attachment, 2 programs and 1 map`.
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
