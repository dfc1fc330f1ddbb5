//! Checks whether other people's programs stay in force beside a limit and beside the guard above it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bpf::LinuxBpf;
use bpf::advice::explained;
use bpf::follow::GUARDS;
use kernel::cgroup::Cgroup;
use kernel::lineage::{Lineage, lineages, whole_lineages};
use kernel::{AttachType, Program, ProgramId};
use throttle_core::neighbours::{Joining, Neighbour, joining, of_level, without_anywhere};
use throttle_core::{Engine, Spec, Started};

/// The shortest pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// A look takes at most one part in this many of the time, up to a pause of [`LONGEST`].
const SHARE: u32 = 50;

/// The longest pause, unless a look is slow. Nobody's firewall may be out of force unnoticed for much longer.
const LONGEST: Duration = Duration::from_secs(5);

/// When to look again.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
}

impl Pace {
    /// Creates a pace whose first look is due at once.
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Notes a look that began at this time and has just ended.
    pub(crate) fn note(&mut self, began: Instant) {
        self.next = Instant::now() + pause(began.elapsed());
    }
}

/// Returns the pause after a look that took this long.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(LOOK, LONGEST.max(took.saturating_mul(4)))
}

/// Returns other people's programs that are out of force on a cgroup because of the programs `by` selects. It considers
/// the cgroup and its ancestors.
pub(crate) fn displaced(
    lineages: &[Lineage],
    by: impl Fn(ProgramId) -> bool + Copy,
) -> Vec<Neighbour> {
    let Ok(kernel) = LinuxBpf::new() else { return Vec::new() };
    let mut found = Vec::new();
    for lineage in lineages {
        let others = without_anywhere(lineage, by);
        // An exclusive program cannot join ours, but it can be attached above them later.
        if let Joining::Displaces(level) | Joining::Exclusive(level) = joining(&others) {
            let programs = of_level(&kernel, level, lineage.attach_type).into_iter();
            found.extend(programs.filter(|program| !lineage.in_force.contains(&program.id)));
        }
    }
    found
}

/// Tells whether a program belongs to a guard. A look treats the guards of all limits as one, because removing one of
/// several brings nothing back in force.
pub(crate) fn is_guard(id: ProgramId) -> bool {
    is_named(id, GUARDS)
}

fn is_named(id: ProgramId, name: &str) -> bool {
    Program::open(id).is_ok_and(|program| program.info().name.starts_with(name))
}

/// Looks for programs that a limit puts out of force after it was armed. The kernel lets others attach above the limit
/// and does not tell them that their program does not run.
pub(crate) struct Neighbours {
    cgroup: Option<Cgroup>,
    ours: Vec<(AttachType, ProgramId)>,
    /// `--displace` allows the limit to put programs out of force.
    is_allowed: bool,
    /// Programs that were reported already, or that another limit had put out of force before.
    known: BTreeSet<ProgramId>,
    pace: Pace,
}

impl Neighbours {
    /// Starts with a limit that has just been armed.
    pub(crate) fn start(engine: &Engine<LinuxBpf>, spec: &Spec, started: &Started) -> Self {
        let mut neighbours = Self {
            cgroup: Cgroup::open(&spec.cgroup).ok(),
            ours: engine.programs_of(started.id),
            is_allowed: spec.displace,
            known: started.displaced.iter().map(|program| program.id).collect(),
            pace: Pace::new(),
        };
        let (by_this, by_all) = neighbours.displaced();
        neighbours.known.extend(out_of_force_before(&by_this, &by_all));
        neighbours
    }

    /// Looks again if it is time to. Returns other people's programs that this limit puts out of force and that were
    /// not reported yet.
    pub(crate) fn look(&mut self) -> Vec<Neighbour> {
        if !self.pace.is_due() {
            return Vec::new();
        }
        let began = Instant::now();
        let (by_this, by_all) = self.displaced();
        self.pace.note(began);
        news(by_this, by_all, &mut self.known, self.is_allowed)
    }

    /// Returns other people's programs that this limit alone puts out of force, and those that all limits together do.
    /// Of two limits on one cgroup, each alone could go without bringing anything back in force.
    fn displaced(&self) -> (Vec<Neighbour>, Vec<Neighbour>) {
        let Some(cgroup) = &self.cgroup else { return (Vec::new(), Vec::new()) };
        let attach_types: Vec<_> = self.ours.iter().map(|(attach_type, _)| *attach_type).collect();
        // Before Linux 6.1, the lists above the top of the mount are invisible.
        let seen =
            whole_lineages(cgroup, &attach_types).or_else(|_| lineages(cgroup, &attach_types));
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(
                    "which programs are in force cannot be seen: {}",
                    explained(&error)
                );
                return (Vec::new(), Vec::new());
            }
        };
        let is_ours = |id| self.ours.iter().any(|(_, ours)| *ours == id);
        let by_this = displaced(&seen, |id| is_ours(id) || is_guard(id));
        (by_this, displaced(&seen, |id| is_named(id, "chadthrottle")))
    }
}

/// Returns the programs that another limit had put out of force already.
fn out_of_force_before(by_this: &[Neighbour], by_all: &[Neighbour]) -> Vec<ProgramId> {
    let before = by_all.iter().filter(|program| !by_this.contains(program));
    before.map(|program| program.id).collect()
}

/// Returns the programs to report, and adds them to `known`. `by_this` are out of force because of this limit, `by_all`
/// because of all limits together. If displacing is not allowed, known programs of `by_this` are reported again.
fn news(
    by_this: Vec<Neighbour>,
    by_all: Vec<Neighbour>,
    known: &mut BTreeSet<ProgramId>,
    is_allowed: bool,
) -> Vec<Neighbour> {
    let is_known = |program: &Neighbour| known.contains(&program.id);
    let mut found: Vec<_> = by_this.into_iter().filter(|it| !is_allowed || !is_known(it)).collect();
    for program in by_all.into_iter().filter(|it| !is_known(it)) {
        if !found.contains(&program) {
            found.push(program);
        }
    }
    known.extend(found.iter().map(|program| program.id));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(ids: &[u32]) -> Vec<Neighbour> {
        let program = |&id| Neighbour {
            id: ProgramId(id),
            name: None,
            tag: None,
            attach_type: AttachType::INET_EGRESS,
            cgroup: None,
        };
        ids.iter().map(program).collect()
    }

    #[test]
    fn a_program_that_another_limit_puts_out_of_force_already_is_not_news() {
        let before = |by_this: &[u32], by_all: &[u32]| {
            let ids = out_of_force_before(&programs(by_this), &programs(by_all)).into_iter();
            ids.map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(before(&[], &[1, 2]), [1, 2]);
        assert_eq!(before(&[1], &[1, 2]), [2]);
        assert_eq!(before(&[1, 2], &[1, 2]), [0; 0]);
        assert_eq!(before(&[1], &[]), [0; 0]);
    }

    #[test]
    fn what_is_out_of_force_is_told_once_if_it_may_be_and_each_time_if_this_limit_alone_is_in_its_way()
     {
        for (by_this, by_all, known, allowed, forbidden) in [
            (&[][..], &[][..], &[][..], &[][..], &[][..]),
            (&[1], &[1], &[], &[1], &[1]),
            // Of two limits, each alone could go without bringing anything back in force.
            (&[], &[1], &[], &[1], &[1]),
            (&[], &[1], &[1], &[], &[]),
            (&[1], &[1], &[1], &[], &[1]),
            (&[1], &[1, 2], &[3], &[1, 2], &[1, 2]),
            (&[1, 4], &[1, 2], &[2, 4], &[1], &[1, 4]),
            (&[1], &[], &[], &[1], &[1]),
        ] {
            for (is_allowed, told) in [(true, allowed), (false, forbidden)] {
                let mut known: BTreeSet<_> = known.iter().copied().map(ProgramId).collect();
                let before = known.clone();
                let found = news(programs(by_this), programs(by_all), &mut known, is_allowed);
                assert_eq!(found, programs(told), "{by_this:?} {by_all:?} {is_allowed}");
                let ids = found.iter().map(|program| program.id);
                assert_eq!(known, before.into_iter().chain(ids).collect::<BTreeSet<_>>());
                let again = news(programs(by_this), programs(by_all), &mut known, true);
                assert_eq!(again, []);
            }
        }
    }

    #[test]
    fn looks_that_take_longer_are_rarer_and_the_next_one_is_not_long_in_coming() {
        let pauses = |took| pause(Duration::from_millis(took)).as_millis();
        assert_eq!([0, 20, 40].map(pauses), [1_000, 1_000, 2_000]);
        assert_eq!([100, 1_250, 3_000].map(pauses), [5_000, 5_000, 12_000]);
        assert_eq!(pause(Duration::MAX), Duration::MAX);
    }
}
