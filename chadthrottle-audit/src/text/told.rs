//! Words what people should know although it is no leak: unowned programs and full places.

use auditor::judge::Finding;
use auditor::report::{FullPlace, PlacedPrograms, Report};
use terminal::{count, escape, number};

use super::{path, program};
use crate::explain::UNOWNED_ADVICE;

/// The maximum number of names in a sentence.
const NAMED: usize = 3;

/// Words the unowned programs, each with what is known about it.
pub(super) fn unowned(report: &Report) -> Option<String> {
    let is_unowned = |finding: Finding| finding == Finding::Unowned;
    let attached = report.attachments.iter().filter(|it| is_unowned(it.finding)).map(|it| {
        let place = format!(" on {}, {}", path(&it.cgroup), it.attach_type);
        (format!("program {}{place}", program(&it.program)), &it.reason)
    });
    let others = report.programs.iter().filter(|it| is_unowned(it.finding));
    let others = others.map(|it| (format!("program {}", program(&it.program)), &it.reason));
    let lines: Vec<String> = attached
        .chain(others)
        .map(|(what, reason)| format!("\n  {what}:\n    {}", escape(reason)))
        .collect();
    (!lines.is_empty()).then(|| {
        let count = number(lines.len());
        format!("unowned, and no leak ({count}):{}\n  -> {UNOWNED_ADVICE}", lines.concat())
    })
}

/// Words the places with little or no room.
pub(super) fn full_places(report: &Report) -> Option<String> {
    let line = |place: &FullPlace| {
        let at = format!("{}, {}", path(&place.cgroup), place.attach_type);
        format!("\n  {at}: {}", escape(&full_place(place)))
    };
    let lines: String = report.full_places.iter().map(line).collect();
    let count = number(report.full_places.len());
    (!lines.is_empty()).then(|| format!("Full, or nearly full ({count}):{lines}"))
}

/// Says in a sentence what is wrong at a full place. Names appear exactly as the system has them.
pub(crate) fn full_place(place: &FullPlace) -> String {
    let FullPlace { slots_used, slots, .. } = place;
    let what = if slots_used < slots {
        "nearly full"
    } else {
        "full, so the kernel refuses another one (E2BIG)"
    };
    let counted = |it: &PlacedPrograms| {
        let name = match it.name.as_deref() {
            None => "of an unknown name",
            Some("") => "without a name",
            Some(name) => name,
        };
        format!("{} {name}", it.count)
    };
    let names: Vec<_> = place.programs.iter().take(NAMED).map(counted).collect();
    let more = match place.programs.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {}", count(more, "other name")),
    };
    format!("{slots_used} of {slots} programs, {what}: {}{more}", names.join(", "))
}
