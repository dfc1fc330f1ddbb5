//! `chadthrottle-audit gate`.

use std::os::fd::RawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use auditor::collect::{Breadth, Collector, Options};
use auditor::compare::unseen;
use auditor::facts::{Snapshot, Tool};
use auditor::gate::{Aftermath, Loaders, Processes, judge};
use kernel::loads::Loads;
use terminal::talk;
use terminal::{Progress, Stream};

use super::output;
use crate::child::{Children, Slate, become_command};
use crate::cli::Gate;
use crate::documents::{CommandInfo, GateReport};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// How much longer to look if somebody is making a link at the end.
const PATIENCE: Duration = Duration::from_secs(1);
/// The maximum number of additional looks before the command, if the first look has gaps.
const MORE_LOOKS: usize = 4;

/// Takes a look, runs the command, and takes looks until nothing is left or the time is up.
pub(super) fn run(args: &Gate) -> anyhow::Result<u8> {
    args.report.check()?;
    let start = Instant::now();
    let collector =
        Collector::new(&Options { breadth: Breadth::Everything, ..Options::default() })?;
    // `Loads` has a map of its own, so open it before the first look: then the map is not new.
    let loads = Loads::open();
    let before = {
        let _progress = Progress::start("Looking at what is there before the command");
        look_before(&collector)?
    };
    let gaps = before.looks.last().map(unseen).unwrap_or_default();
    if !gaps.is_empty() {
        // Report gaps now, before the command runs for an hour.
        let aftermath = Aftermath { gaps, ..Aftermath::default() };
        let report = told(args, &before, aftermath, command(args), Duration::ZERO, start);
        output::deliver(&report, &args.report, Stream::Stderr)?;
        return Ok(report.exit_status());
    }
    let mut processes = Processes::from_here()?;
    let children = Children::watch()?;
    let mut loaders = Loaders::follow(loads);
    processes.began_ns = Collector::now_ns();
    let began = Instant::now();
    let (ended, not_run) = children.run(&args.command)?;
    let command = CommandInfo {
        ended: Some(ended),
        not_run,
        duration_ms: began.elapsed().as_secs_f64() * 1_000.0,
        ..command(args)
    };
    let settling = Instant::now();
    let (after, aftermath) =
        settle(args, &collector, &before, &children, &mut processes, &mut loaders)?;
    let mut report = told(args, &after, aftermath, command, settling.elapsed(), start);
    report.still_running = processes.still_running();
    output::deliver(&report, &args.report, Stream::Stderr)?;
    Ok(report.exit_status())
}

/// Takes a look at the host. Repeats it if there are gaps, because some of them pass quickly: programs may come and go
/// during the listing.
fn look_before(collector: &Collector) -> anyhow::Result<Snapshot> {
    let mut before = collector.again(None)?;
    for _ in 0..MORE_LOOKS {
        if before.looks.last().is_none_or(|look| unseen(look).is_empty()) {
            break;
        }
        sleep(INTERVAL);
        before = collector.again(None)?;
    }
    Ok(before)
}

/// Takes looks until nothing is left or the time is up. The kernel frees links and cgroups with a delay, and daemons
/// take a moment to end.
fn settle(
    args: &Gate,
    collector: &Collector,
    before: &Snapshot,
    children: &Children,
    processes: &mut Processes,
    loaders: &mut Loaders,
) -> anyhow::Result<(Snapshot, Aftermath)> {
    let deadline = Instant::now() + Duration::from(args.settle);
    let mut earlier: Option<Aftermath> = None;
    loop {
        if processes.over_ns.is_none() && Children::are_over()? {
            // The command cannot have loaded any program that is loaded from now on.
            processes.over_ns = Collector::now_ns();
        }
        let after = collector.again(None)?;
        loaders.note(processes);
        let is_moving = after.looks.last().is_some_and(|look| {
            processes.read(look);
            !look.coverage.changing_links.is_empty()
        });
        let unheld = |it: &Aftermath| it.left.iter().any(|left| left.holders.is_empty());
        if earlier.as_ref().is_some_and(unheld) {
            // A thing without holders may have a pin that the gate does not see.
            processes.look_elsewhere();
        }
        let aftermath = judge(before, &after, &args.programs, processes)?;
        let aftermath = aftermath.confirmed_by(earlier.as_ref());
        let look = Seen {
            is_first: earlier.is_none(),
            is_moving,
            // The processes had ended before this look.
            is_over: processes.over_ns.is_some(),
        };
        if is_enough(&aftermath, look, Instant::now().checked_duration_since(deadline)) {
            return Ok((after, aftermath));
        }
        if let Some(signal) = children.pause(INTERVAL)? {
            return Ok((after, aftermath.interrupted(signal)));
        }
        earlier = Some(aftermath);
    }
}

/// The circumstances of a look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    is_first: bool,
    /// Whether somebody is making a link.
    is_moving: bool,
    /// Whether every process of the command has ended.
    is_over: bool,
}

/// Tells whether no further look is needed. `late` is the time since the deadline.
fn is_enough(aftermath: &Aftermath, seen: Seen, late: Option<Duration>) -> bool {
    // Nobody knows who holds a link that somebody is making. That state passes quickly, so wait, but not forever.
    let patience = if seen.is_moving { PATIENCE } else { Duration::ZERO };
    // Attributing a thing takes two looks.
    let is_late = late.is_some_and(|late| late >= patience) && !seen.is_first;
    // A running process of the command may still make something.
    aftermath.is_settled() && seen.is_over || is_late
}

fn command(args: &Gate) -> CommandInfo {
    let words = args.command.iter().map(|word| word.to_string_lossy().into_owned());
    CommandInfo { argv: words.collect(), ended: None, not_run: None, duration_ms: 0.0 }
}

fn told(
    args: &Gate,
    last: &Snapshot,
    aftermath: Aftermath,
    command: CommandInfo,
    settled: Duration,
    start: Instant,
) -> GateReport {
    let gaps = aftermath.gaps();
    GateReport {
        schema_version: GateReport::SCHEMA_VERSION,
        tool: Tool::this(),
        host: last.host.host.clone(),
        taken_at: last.looks.last().map(|look| look.taken_at.clone()).unwrap_or_default(),
        duration_ms: start.elapsed().as_secs_f64() * 1_000.0,
        command,
        programs: args.programs.clone(),
        settled_ms: settled.as_secs_f64() * 1_000.0,
        verdict: aftermath.verdict(),
        left: aftermath.left.into_iter().map(Into::into).collect(),
        others: aftermath.others.into_iter().map(Into::into).collect(),
        gone: aftermath.gone,
        gone_of_others: aftermath.gone_of_others,
        still_running: Vec::new(),
        gaps: gaps.into_iter().map(Into::into).collect(),
    }
}

/// Becomes the command, in the process that `gate` starts for it.
pub(super) fn become_it(why_not: RawFd, argv: &[std::ffi::OsString]) -> u8 {
    let slate = Slate::inherited(why_not);
    let (status, why) = become_command(argv);
    slate.write(&why);
    talk::error(&anyhow::anyhow!(why));
    status
}

#[cfg(test)]
mod tests {
    use auditor::facts::{Gap, Subject};

    use super::*;

    #[test]
    fn it_looks_until_nothing_is_left_and_nothing_runs_or_the_time_is_up() {
        let gap = Gap { about: Subject::Pins, what: String::new(), why: String::new() };
        let unsettled = Aftermath { gaps: vec![gap], ..Aftermath::default() };
        // The time since the deadline, and whether it is enough: without and with a link that somebody is making.
        let times = [
            (None, false, false),
            (Some(Duration::ZERO), true, false),
            (Some(PATIENCE.mul_f32(0.99)), true, false),
            (Some(PATIENCE), true, true),
            (Some(PATIENCE * 2), true, true),
        ];
        for (late, is_up, is_up_for_links) in times {
            for is_first in [false, true] {
                for is_moving in [false, true] {
                    for is_over in [false, true] {
                        let seen = Seen { is_first, is_moving, is_over };
                        let is_late = !is_first && if is_moving { is_up_for_links } else { is_up };
                        let what = format!("{seen:?} {late:?}");
                        assert_eq!(is_enough(&unsettled, seen, late), is_late, "{what}");
                        let settled = is_enough(&Aftermath::default(), seen, late);
                        assert_eq!(settled, is_over || is_late, "{what}");
                    }
                }
            }
        }
    }
}
