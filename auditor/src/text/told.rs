//! What is told to people, and is no leak: what nothing says the owner of, and places that are full.

use super::{number, path, program};
use crate::classify::Finding;
use crate::escape::escape;
use crate::explain::UNOWNED_ADVICE;
use crate::report::{FullPlace, Report};

/// What is unowned, each with what is known of it.
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

/// Places that take no program more, or few.
pub(super) fn full_places(report: &Report) -> Option<String> {
    let line = |place: &FullPlace| {
        let at = format!("{}, {}", path(&place.cgroup), place.attach_type);
        format!("\n  {at}: {}", escape(&place.told()))
    };
    let lines: String = report.full_places.iter().map(line).collect();
    let count = number(report.full_places.len());
    (!lines.is_empty()).then(|| format!("Full, or nearly full ({count}):{lines}"))
}
