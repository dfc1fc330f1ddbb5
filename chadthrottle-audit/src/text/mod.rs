//! Words the report for people.
//!
//! The verdict and what to do come last, where the terminal stops. Above them are the gaps, then the reason of each
//! leak, and the table at the top.
//!
//! This module never wraps or cuts a value, so that people can copy a cgroup's path. If the table is wider than
//! the terminal, a list with one entry per row replaces it.
//! entry for each row takes its place.

pub(crate) mod diff;
mod folded;
pub(crate) mod gate;
mod lines;
mod told;

use std::collections::HashSet;

use auditor::facts::{Note, Process};
use auditor::judge::{Claim, Finding, Source, Verdict};
use auditor::report::{
    Attachment, Cgroup, Device, DeviceInfo, DeviceLink, Leak, Program, ProgramInfo, Report,
};
use comfy_table::{Table, presets};
use terminal::{count, escape, escape_bytes, number};

use self::folded::folded;
pub(crate) use self::told::full_place;

use crate::remedy;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// Renders the report. `width` is the terminal's width in columns; `None` means any width.
pub(crate) fn render(report: &Report, color: bool, width: Option<u16>) -> String {
    let paint = |style: &str, text: &str| {
        if color { format!("{style}{text}{RESET}") } else { text.to_owned() }
    };
    let mut paragraphs = Vec::new();
    let rows = rows(report);
    if !rows.is_empty() {
        paragraphs.push(overview(&rows, width, &paint));
    }
    paragraphs.extend(leaks(report));
    paragraphs.extend(known(report));
    paragraphs.extend(told::unowned(report));
    paragraphs.extend(told::full_places(report));
    if !report.coverage.notes.is_empty() {
        paragraphs.push(notes(report));
    }
    if !report.coverage.gaps.is_empty() {
        paragraphs.push(gaps(report));
    }
    let verdict = painted(color, report.verdict, &conclusion(report));
    let end: Vec<String> = [verdict].into_iter().chain(advice(report)).collect();
    paragraphs.push(end.join("\n"));
    paragraphs.join("\n\n") + "\n"
}

/// Colours a sentence by its verdict.
pub(crate) fn painted(colour: bool, verdict: Verdict, text: &str) -> String {
    let style = match verdict {
        Verdict::Clean => GREEN,
        Verdict::Leaks => RED,
        Verdict::Incomplete => YELLOW,
    };
    if colour { format!("{BOLD}{style}{text}{RESET}") } else { text.to_owned() }
}

/// A row of the table.
struct Row {
    is_leak: bool,
    /// Whether the last cell names a holder instead of an owner.
    is_held: bool,
    cells: [String; 7],
}

const HEADER: [&str; 7] = ["FINDING", "CGROUP", "ATTACH TYPE", "PROGRAM", "LINK", "SLOTS", "OWNER"];

fn rows(report: &Report) -> Vec<Row> {
    let mut rows: Vec<Row> = report
        .attachments
        .iter()
        .map(attached)
        .chain(report.programs.iter().map(unattached))
        .chain(report.devices.iter().map(device_row))
        .collect();
    rows.sort_by_key(|row| !row.is_leak);
    rows
}

fn attached(attachment: &Attachment) -> Row {
    let is_unowned = attachment.finding == Finding::Unowned;
    let owner = attachment.owner.map(owner);
    let holder = attachment.holders.first().filter(|_| is_unowned && owner.is_none()).map(held_by);
    let is_held = holder.is_some();
    let cells = [
        attachment.finding.to_string(),
        path(&attachment.cgroup),
        attachment.attach_type.to_string(),
        program(&attachment.program),
        attachment.link.map_or_else(|| "legacy".to_owned(), |link| link.id.to_string()),
        format!("{}/{}", attachment.slots_used, attachment.slots),
        owner.or(holder).unwrap_or_else(|| "-".to_owned()),
    ];
    Row { is_leak: attachment.finding.is_leak(), is_held, cells }
}

fn unattached(unattached: &Program) -> Row {
    let holder = unattached.holders.first().map(held_by);
    let is_held = holder.is_some();
    let on_devices: Vec<_> =
        unattached.device_links.iter().filter(|link| link.device.is_some()).collect();
    let of = |what: fn(&DeviceLink) -> String| {
        let mut all: Vec<_> = on_devices.iter().map(|link| what(link)).collect();
        all.dedup();
        if all.is_empty() { "-".to_owned() } else { all.join(",") }
    };
    let place = match on_devices.len() {
        0 => "-".to_owned(),
        1 => format!("device {}", of(device_number)),
        _ => format!("devices {}", of(device_number)),
    };
    let cells = [
        unattached.finding.to_string(),
        place,
        of(|link| escape(&link.attach_type)),
        program(&unattached.program),
        of(|link| link.id.to_string()),
        "-".to_owned(),
        holder.unwrap_or_else(|| "-".to_owned()),
    ];
    Row { is_leak: unattached.finding.is_leak(), is_held, cells }
}

fn device_number(link: &DeviceLink) -> String {
    link.device.unwrap_or_default().to_string()
}

fn device_row(judged: &Device) -> Row {
    let none = || "-".to_owned();
    let cells = [
        judged.finding.to_string(),
        device(&judged.device),
        none(),
        none(),
        none(),
        none(),
        judged.owner.map_or_else(none, owner),
    ];
    Row { is_leak: judged.finding.is_leak(), is_held: false, cells }
}

/// Returns the table or, if it does not fit, a list with the same contents.
fn overview(rows: &[Row], width: Option<u16>, paint: &impl Fn(&str, &str) -> String) -> String {
    let table = table(rows);
    // No cell has a line break, so each row is one line and can have a colour of its own.
    let widest = table.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    if width.is_none_or(|width| widest <= usize::from(width)) {
        let mut lines = table.lines();
        let header = lines.next().map(|header| paint(BOLD, header));
        let body = lines
            .zip(rows)
            .map(|(line, row)| if row.is_leak { paint(RED, line) } else { line.to_owned() });
        return header.into_iter().chain(body).collect::<Vec<_>>().join("\n");
    }
    let entries: Vec<String> = rows
        .iter()
        .map(|row| {
            let [finding, cgroup, attach_type, program, link, slots, owner] = &row.cells;
            let head = format!("{finding}  {cgroup}");
            let head = if row.is_leak { paint(RED, &head) } else { head };
            let details = [
                ("", attach_type),
                ("program ", program),
                ("link ", link),
                ("slots ", slots),
                (if row.is_held { "" } else { "owner " }, owner),
            ]
            .iter()
            .filter(|(_, value)| *value != "-")
            .map(|(name, value)| format!("{name}{value}"))
            .collect::<Vec<_>>();
            let width = width.map_or(usize::MAX, usize::from);
            format!("{head}\n{}", folded(&details, "    ", width))
        })
        .collect();
    entries.join("\n")
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty().set_header(HEADER);
    for row in rows {
        table.add_row(&row.cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Returns a paragraph for each kind of leak: every leak, its reason, and what to do.
fn leaks(report: &Report) -> Vec<String> {
    let mut kinds: Vec<(Finding, String, Vec<&Leak>)> = Vec::new();
    for leak in new(report) {
        let words = remedy::of_leak(&leak.remedy);
        match kinds
            .iter_mut()
            .find(|(finding, remedy, _)| *finding == leak.finding && *remedy == words)
        {
            Some((_, _, alike)) => alike.push(leak),
            None => kinds.push((leak.finding, words, vec![leak])),
        }
    }
    kinds.into_iter().map(|(finding, remedy, alike)| kind(finding, &remedy, &alike)).collect()
}

/// Returns the leaks that count.
fn new(report: &Report) -> impl Iterator<Item = &Leak> {
    report.leaks.iter().filter(|leak| !leak.known)
}

/// Words the leaks that the baseline already has.
fn known(report: &Report) -> Option<String> {
    let known = report.leaks.iter().filter(|leak| leak.known);
    let lines: Vec<String> =
        known.map(|leak| format!("\n  {}: {}", leak.finding, named(leak))).collect();
    (!lines.is_empty())
        .then(|| format!("Known from the baseline ({}):{}", number(lines.len()), lines.concat()))
}

fn kind(finding: Finding, remedy: &str, alike: &[&Leak]) -> String {
    let mut lines = vec![format!("{finding} ({}):", number(alike.len()))];
    for leak in alike {
        lines.push(format!("  {}:\n    {}", named(leak), escape(&leak.reason)));
    }
    lines.push(format!("  -> {}", escape(remedy)));
    lines.join("\n")
}

/// Names a leak in one line.
fn named(leak: &Leak) -> String {
    let place = leak.cgroup.as_ref().map(|cgroup| format!(" on {}", path(cgroup)));
    let attach_type = leak.attach_type.map(|attach_type| format!(", {attach_type}"));
    let of_program = leak.program.as_ref().map(|it| format!("program {}", program(it)));
    let of_device = leak.device.as_ref().map(device);
    [of_program, of_device, place, attach_type].into_iter().flatten().collect()
}

fn notes(report: &Report) -> String {
    let notes = report.coverage.notes.iter();
    let lines = notes.map(|note| format!("\n  {}: {}", escape(&note.what), escape(&note.why)));
    format!("Not looked at, or left alone:{}", lines.collect::<String>())
}

fn gaps(report: &Report) -> String {
    let lines = gathered(&report.coverage.gaps).into_iter().map(|line| format!("\n  {line}"));
    format!(
        "Not seen, or not to be judged ({}):{}",
        number(report.coverage.gaps.len()),
        lines.collect::<String>()
    )
}

/// Words the verdict in one line.
pub(crate) fn conclusion(report: &Report) -> String {
    let summary = &report.summary;
    let found = match report.verdict {
        Verdict::Leaks => leaked(report),
        Verdict::Clean | Verdict::Incomplete if summary.known > 0 => "no new leak".to_owned(),
        Verdict::Clean | Verdict::Incomplete => {
            let types = count(report.coverage.attach_types.len(), "attach type");
            let cgroups = count(
                usize::try_from(report.coverage.cgroups_visited).unwrap_or(usize::MAX),
                "cgroup",
            );
            let programs = format!("no leaked program in {cgroups} ({types} asked)");
            match report.coverage.network_namespaces.map(usize::try_from) {
                None => programs,
                Some(number) => format!(
                    "{programs}, no leaked device in {}",
                    count(number.unwrap_or(usize::MAX), "network namespace")
                ),
            }
        }
    };
    let below = match report.root.as_str() {
        "" | "/" => String::new(),
        root => format!(" below {}", escape(root)),
    };
    let blind = match report.coverage.gaps.len() {
        0 => String::new(),
        gaps => format!(", but {} could not be seen or judged", count(gaps, "thing")),
    };
    let known = match (&report.baseline, summary.known) {
        (Some(baseline), some @ 1..) => format!(
            "; {} known from the baseline {} (taken {})",
            number(some),
            escape(&baseline.file),
            escape(&baseline.taken_at)
        ),
        _ => String::new(),
    };
    let queues = match summary.devices {
        0 => String::new(),
        some => format!(", {} of queues in use", count(some, "network device")),
    };
    let unowned = match summary.unowned {
        0 => String::new(),
        some => format!(", {} unowned", number(some)),
    };
    let unknown = match summary.unknown {
        0 => String::new(),
        some => format!(", {} unknown", number(some)),
    };
    let waiting = match summary.waiting {
        0 => String::new(),
        some => format!(", {} waiting for their cgroups", number(some)),
    };
    format!(
        "{}: {found}{below}{blind}{known}; {} active, {} pinned, {} foreign{unowned}{unknown}{queues}{waiting}",
        report.verdict,
        number(summary.active),
        number(summary.pinned),
        number(summary.foreign)
    )
}

fn leaked(report: &Report) -> String {
    let cgroups: HashSet<&Cgroup> = new(report).filter_map(|leak| leak.cgroup.as_ref()).collect();
    let attached = new(report).filter(|leak| leak.cgroup.is_some()).count();
    let devices = new(report).filter(|leak| leak.device.is_some()).count();
    let is_on_device = |leak: &&Leak| leak.device_links.iter().any(|link| link.device.is_some());
    let on_devices = new(report).filter(is_on_device).count();
    let loose = new(report).count() - attached - devices - on_devices;
    let attached = (attached > 0).then(|| {
        format!("{} on {}", count(attached, "leaked attachment"), count(cgroups.len(), "cgroup"))
    });
    let loose = (loose > 0).then(|| format!("{} attached nowhere", count(loose, "leaked program")));
    let on_devices = (on_devices > 0)
        .then(|| format!("{} on network devices", count(on_devices, "leaked program")));
    let devices = (devices > 0).then(|| count(devices, "leaked network device"));
    let all: Vec<_> = [attached, on_devices, loose, devices].into_iter().flatten().collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn advice(report: &Report) -> Option<String> {
    match report.verdict {
        Verdict::Clean => None,
        Verdict::Incomplete => Some(
            "No leak was seen, which proves nothing about what is listed above as not seen."
                .to_owned(),
        ),
        Verdict::Leaks => {
            let first = new(report).next()?.finding;
            let explain = format!("Explain a finding: chadthrottle-audit explain {first}");
            let removable = new(report).filter(|leak| leak.is_removable()).count();
            let clean = format!("chadthrottle-audit clean{}", escape(&report.scope_options));
            let remove = match removable {
                0 => "There is nothing here that clean could remove; see above for what ends it."
                    .to_owned(),
                some if some == new(report).count() => format!("Remove what is leaked: {clean}"),
                _ => format!("Remove what can be removed: {clean}   (see above for the rest)"),
            };
            Some(format!("{remove}\n{explain}"))
        }
    }
}

fn path(cgroup: &Cgroup) -> String {
    match cgroup.path_hex.as_deref().and_then(from_hex) {
        Some(bytes) => escape_bytes(&bytes),
        None => escape(&cgroup.path),
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn program(program: &ProgramInfo) -> String {
    match program.shown_name() {
        Some("") => format!("{} (no name)", program.id),
        Some(name) => format!("{} {}", program.id, escape(name)),
        None => format!("{} ?", program.id),
    }
}

fn device(device: &DeviceInfo) -> String {
    let place = device.namespace_path.as_ref().map(|path| format!(" in {}", escape(path)));
    format!("device {} {}{}", device.index, escape(&device.name), place.unwrap_or_default())
}

fn held_by(holder: &Process) -> String {
    format!("held by {}", holder.pid)
}

fn owner(claim: Claim) -> String {
    match (claim.alive, claim.source) {
        (Some(true), Source::Holder) => format!("{} (holds it)", claim.pid),
        (Some(true), _) => format!("{} (lives)", claim.pid),
        (Some(false), _) => format!("{} (dead)", claim.pid),
        (None, _) => format!("{} (unknown)", claim.pid),
    }
}

/// Joins gaps with the same reason into one line.
pub(crate) fn gathered(gaps: &[Note]) -> Vec<String> {
    terminal::gathered(gaps.iter().map(|gap| (&*gap.what, &*gap.why)))
}
