//! `chadthrottle-audit snapshot`.

use auditor::collect::{Breadth, collect};
use auditor::facts;
use auditor::judge::classify;
use terminal::exit::{DONE, INCOMPLETE};
use terminal::talk::warning;
use terminal::{Progress, check_file, write};

use crate::cli::Snapshot;
use crate::text::gathered;

/// Writes a snapshot. Returns 0, or 2 if a verdict would lack facts, by the same rule as `scan`. `scan --from` judges
/// the facts.
pub(super) fn run(args: &Snapshot) -> anyhow::Result<u8> {
    args.output.as_deref().map_or(Ok(()), check_file)?;
    let snapshot = {
        let _progress = Progress::start("Looking at cgroups, programs and processes");
        let breadth = if args.all { Breadth::Everything } else { Breadth::Ours };
        collect(&args.scope.options(breadth))?
    };
    write(args.output.as_deref(), &(serde_json::to_string_pretty(&snapshot)? + "\n"))?;
    let (warnings, status) = ending(&snapshot);
    warnings.iter().for_each(warning);
    Ok(status)
}

/// Returns warnings about what a verdict will lack, and the exit status.
fn ending(snapshot: &facts::Snapshot) -> (Vec<String>, u8) {
    let gaps: Vec<_> = classify(snapshot).gaps.into_iter().map(Into::into).collect();
    let warnings = gathered(&gaps).iter().map(|line| format!("not seen: {line}")).collect();
    (warnings, if gaps.is_empty() { DONE } else { INCOMPLETE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_verdict_will_lack_is_told_and_makes_the_status_also_where_there_are_leaks() {
        let active = include_str!("../../../auditor/tests/snapshots-in/active.json");
        let leaks = include_str!("../../../auditor/tests/snapshots-in/orphaned_attachment.json");
        let hidden = |whose: &str| (facts::Subject::HiddenProcesses, whose.to_owned());
        let unread = |path: &str| (facts::Subject::Cgroups, path.to_owned());
        let cases = [
            (active, vec![], 0, vec![]),
            (leaks, vec![], 0, vec![]),
            // A process that nobody can inspect matters only if something has no owner.
            (active, vec![hidden("process 7")], 0, vec![]),
            (active, vec![unread("/a")], 2, vec!["not seen: /a: no right to"]),
            (leaks, vec![unread("/a")], 2, vec!["not seen: /a: no right to"]),
            (active, vec![unread("/a"), unread("/b")], 2, vec!["not seen: /a, /b: no right to"]),
        ];
        for (recorded, gaps, status, warnings) in cases {
            let mut snapshot: facts::Snapshot = serde_json::from_str(recorded).unwrap();
            let why = "no right to".to_owned();
            let gaps =
                gaps.into_iter().map(|(about, what)| facts::Gap { about, what, why: why.clone() });
            snapshot.looks.last_mut().unwrap().coverage.gaps.extend(gaps);
            let (told, ended_with) = ending(&snapshot);
            assert_eq!(
                (ended_with, told),
                (status, warnings.iter().map(ToString::to_string).collect())
            );
        }
    }
}
