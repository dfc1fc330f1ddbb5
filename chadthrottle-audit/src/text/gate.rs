//! Words for people what a command left behind. The verdict comes last, where the terminal stops.

use auditor::compare::Item;
use auditor::gate::{Evidence, held_by};
use auditor::judge::Verdict;
use terminal::number;

use super::diff::{blind, counted, entry, named};
use super::lines::Lines;
use super::painted;
use crate::documents::{GateReport, Left};

/// The maximum number of names in a line about other tools' things.
const NAMED: usize = 3;

/// The maximum number of gone things with a line of their own.
const ONE_BY_ONE: usize = 5;

/// Renders the report.
pub(crate) fn render(report: &GateReport, colour: bool) -> String {
    let mut lines = Lines::default();
    let with_remedy = |left: &Left| {
        vec![left.item.to_string(), left.reason.clone(), format!("-> {}", left.remedy)]
    };
    lines.paragraph("Left behind", report.left.iter().map(with_remedy));
    lines.group("Made meanwhile by others", report.others.len(), others(&report.others));
    let (told, more) = report.gone.split_at(report.gone.len().min(ONE_BY_ONE));
    let more = (!more.is_empty()).then(|| {
        let items: Vec<&Item> = more.iter().collect();
        vec![format!("and {}; --format json names them", counted(&items))]
    });
    let gone = told.iter().map(entry).chain(more);
    lines.group("Gone, though the command had not made them", report.gone.len(), gone);
    if !report.gone_of_others.is_empty() {
        let items: Vec<&Item> = report.gone_of_others.iter().collect();
        lines.line(&format!("Gone with the processes that held them: {}", in_short(&items)));
    }
    if !report.still_running.is_empty() {
        let some = report.still_running.iter().take(NAMED);
        let some: Vec<String> =
            some.map(|it| format!("{} ({})", it.process.pid, it.process.comm)).collect();
        let more = if report.still_running.len() > NAMED { ", ..." } else { "" };
        lines.line(&format!(
            "Still running of what the command started: {}{more}; what it makes from now on is not looked at",
            some.join(", ")
        ));
    }
    lines.gaps(&report.gaps);
    lines.end(painted(colour, report.verdict, &conclusion(report)))
}

/// Returns an entry for each maker: what it made, and the evidence for that.
fn others(others: &[Left]) -> impl Iterator<Item = Vec<String>> {
    let mut makers: Vec<(String, Vec<&Item>)> = Vec::new();
    for left in others {
        let maker = maker(left);
        match makers.iter_mut().find(|(known, _)| *known == maker) {
            Some((_, items)) => items.push(&left.item),
            None => makers.push((maker, vec![&left.item])),
        }
    }
    makers.into_iter().map(|(maker, items)| {
        let what = match &items[..] {
            [item] => item.to_string(),
            items => in_short(items),
        };
        vec![what, maker]
    })
}

/// Says who made a thing that is not the command's.
fn maker(left: &Left) -> String {
    let is_theirs = matches!(left.evidence, Some(Evidence::Loader | Evidence::NotAsked));
    if let Some(loader) = left.loader.as_ref().filter(|it| is_theirs && !it.is_of_command) {
        return format!("loaded by {loader}");
    }
    match left.evidence.and_then(Evidence::wording) {
        Some(wording) => wording.to_owned(),
        None => held_by(&left.holders).unwrap_or_else(|| left.reason.clone()),
    }
}

/// Summarises things: `1 attachment and 4 programs (sd_devices, sd_fw_egress, ...)`.
fn in_short(items: &[&Item]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in items.iter().filter_map(|item| item.name()).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = if names.len() > NAMED { ", ..." } else { "" };
    names.truncate(NAMED);
    let told =
        if names.is_empty() { String::new() } else { format!(" ({}{more})", names.join(", ")) };
    format!("{}{told}", counted(items))
}

/// Words the verdict in one line.
pub(crate) fn conclusion(report: &GateReport) -> String {
    let Some(ended) = report.command.ended else {
        return "incomplete: the command was not run, because what it leaves could not be seen"
            .to_owned();
    };
    let blind = blind(&report.gaps);
    let named = named(&report.programs);
    let left: Vec<&Item> = report.left.iter().map(|left| &left.item).collect();
    let others = match report.others.len() {
        0 => String::new(),
        some => format!("; {} made meanwhile by others do not count", number(some)),
    };
    let how = match report.command.not_run {
        Some(_) => "it could not be run".to_owned(),
        None => format!("it {ended}"),
    };
    match report.verdict {
        Verdict::Clean if report.command.not_run.is_some() => {
            format!("clean: the command could not be run, and left nothing behind{named}{others}")
        }
        Verdict::Clean => {
            format!("clean: the command left nothing behind{named}; {how}{others}")
        }
        Verdict::Leaks => {
            format!(
                "leaks: the command left {} behind{named}{blind}; {how}{others}",
                counted(&left)
            )
        }
        Verdict::Incomplete => {
            format!("incomplete: nothing was shown to be left behind{named}{blind}; {how}")
        }
    }
}
