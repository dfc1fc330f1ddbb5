//! `chadthrottle-audit gate`.

use std::os::fd::RawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf::loads::Loads;

use super::output::{self, Stream};
use super::progress::Progress;
use crate::cli::Gate;
use crate::collect::{Breadth, Collector, Options};
use crate::diff::unseen;
use crate::gate::children::{Children, become_command};
use crate::gate::loaders::Loaders;
use crate::gate::slate::Slate;
use crate::gate::{Aftermath, CommandInfo, GateReport, Processes, SCHEMA_VERSION, judge};
use crate::report::Host;
use crate::snapshot::{Snapshot, Tool};
use crate::talk;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// How much longer to look where something is being made at the end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many more there are before the command where the first did not see everything.
const MORE_LOOKS: usize = 4;

/// Looks, runs the command, and looks until nothing is left or the time is up.
pub(super) fn run(args: &Gate) -> anyhow::Result<u8> {
    args.report.check()?;
    let start = Instant::now();
    let collector =
        Collector::new(&Options { breadth: Breadth::Everything, ..Options::default() })?;
    // It has a map of its own, which is to be there before and after.
    let loads = Loads::open();
    let before = {
        let _progress = Progress::start("Looking at what is there before the command");
        look_before(&collector)?
    };
    let gaps = before.looks.last().map(unseen).unwrap_or_default();
    if !gaps.is_empty() {
        // A gate that cannot see says so before the tests take an hour.
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

/// Looks at what is there; again where something could not be seen, which may be over in a moment (programs that come
/// and go while they are listed).
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

/// Looks until nothing is left that counts, or the time is up: the kernel frees links and cgroups a moment later, and
/// daemons take a moment to end.
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
            // What is loaded from now on the command cannot have loaded.
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
            // It may be pinned where the gate does not see it.
            processes.look_elsewhere();
        }
        let aftermath = judge(before, &after, &args.programs, processes)?;
        let aftermath = aftermath.confirmed_by(earlier.as_ref());
        let look = Seen {
            is_first: earlier.is_none(),
            is_moving,
            // It was so before this look.
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

/// What there was to be seen, beside what is left.
#[derive(Debug, Clone, Copy)]
struct Seen {
    is_first: bool,
    /// A link is being made.
    is_moving: bool,
    /// Nothing of what the command started runs any more.
    is_over: bool,
}

/// Whether there is no reason to look again. `late`: for how long the time has been up.
fn is_enough(aftermath: &Aftermath, seen: Seen, late: Option<Duration>) -> bool {
    // Of a link that is being made nobody knows who holds it: that is over in a moment, and not waited for for ever.
    let patience = if seen.is_moving { PATIENCE } else { Duration::ZERO };
    // Whose something is two looks have to say.
    let is_late = late.is_some_and(|late| late >= patience) && !seen.is_first;
    // Who still runs may still make something.
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
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        host: Host::from(&last.host),
        taken_at: last.looks.last().map(|look| look.taken_at.clone()).unwrap_or_default(),
        duration_ms: start.elapsed().as_secs_f64() * 1_000.0,
        command,
        programs: args.programs.clone(),
        settled_ms: settled.as_secs_f64() * 1_000.0,
        verdict: aftermath.verdict(),
        left: aftermath.left,
        others: aftermath.others,
        gone: aftermath.gone,
        gone_of_others: aftermath.gone_of_others,
        still_running: Vec::new(),
        gaps: gaps.into_iter().map(Into::into).collect(),
    }
}

/// What `gate` starts to become the command.
pub(super) fn become_it(why_not: RawFd, argv: &[std::ffi::OsString]) -> u8 {
    let slate = Slate::inherited(why_not);
    let (status, why) = become_command(argv);
    slate.write(&why);
    talk::error(&anyhow::anyhow!(why));
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Gap, Subject};

    #[test]
    fn it_looks_until_nothing_is_left_and_nothing_runs_or_the_time_is_up() {
        let gap = Gap { about: Subject::Pins, what: String::new(), why: String::new() };
        let unsettled = Aftermath { gaps: vec![gap], ..Aftermath::default() };
        // How late it is, and whether the time is up then: also for a link that is being made.
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
