//! What a command left behind as text, for people. The verdict comes last, where the terminal stops.

use super::report::{GateReport, Left};
use crate::classify::Verdict;
use crate::diff::{Item, Lines, blind, counted, entry, named};
use crate::text::painted;

/// Renders the report.
pub(super) fn render(report: &GateReport, colour: bool) -> String {
    let mut lines = Lines::default();
    let with_remedy = |left: &Left| {
        vec![left.item.to_string(), left.reason.clone(), format!("-> {}", left.remedy)]
    };
    lines.paragraph("Left behind", report.left.iter().map(with_remedy));
    let with_reason = |left: &Left| vec![left.item.to_string(), left.reason.clone()];
    lines.paragraph("Made meanwhile by others", report.others.iter().map(with_reason));
    lines.paragraph("Gone, though the command had not made them", report.gone.iter().map(entry));
    lines.gaps(&report.gaps);
    lines.end(painted(colour, report.verdict, &conclusion(report)))
}

/// The verdict, in one line.
pub(super) fn conclusion(report: &GateReport) -> String {
    let Some(ended) = report.command.ended else {
        return "incomplete: the command was not run, because what it leaves could not be seen"
            .to_owned();
    };
    let blind = blind(&report.gaps);
    let named = named(&report.programs);
    let left: Vec<&Item> = report.left.iter().map(|left| &left.item).collect();
    match report.verdict {
        Verdict::Clean => format!("clean: the command left nothing behind{named}; it {ended}"),
        Verdict::Leaks => {
            format!("leaks: the command left {} behind{named}{blind}; it {ended}", counted(&left))
        }
        Verdict::Incomplete => {
            format!("incomplete: nothing was shown to be left behind{named}{blind}; it {ended}")
        }
    }
}
