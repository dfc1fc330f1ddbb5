//! Whether others' programs stay in force beside ours: those of a limit, and those of `--guard` above it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bpf::cgroup::Cgroup;
use bpf::follow::GUARDS;
use bpf::lineage::{Lineage, lineages, whole_lineages};
use bpf::program::Program;
use bpf::{AttachType, LinuxBpf, ProgramId};
use throttle_core::neighbours::{Joining, Neighbour, joining, of_level, without_anywhere};
use throttle_core::{Engine, Spec, Started};

/// How often to look, where that takes little time.
const LOOK: Duration = Duration::from_secs(1);

/// Looking takes at most this part of the time, but for [`LONGEST`].
const SHARE: u32 = 50;

/// Nobody's firewall shall be out of force for much longer before that is seen, unless looking takes a good part of it.
const LONGEST: Duration = Duration::from_secs(5);

/// When to look again.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
}

impl Pace {
    /// The first look is due at once.
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Takes note of a look that began then and is over now.
    pub(crate) fn note(&mut self, began: Instant) {
        self.next = Instant::now() + pause(began.elapsed());
    }
}

/// After a look that took so long.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(LOOK, LONGEST.max(took.saturating_mul(4)))
}

/// Others' programs that are out of force on a cgroup, and would be in force if some programs were not there: on the
/// cgroup itself and above it.
pub(crate) fn displaced(
    lineages: &[Lineage],
    by: impl Fn(ProgramId) -> bool + Copy,
) -> Vec<Neighbour> {
    let Ok(kernel) = LinuxBpf::new() else { return Vec::new() };
    let mut found = Vec::new();
    for lineage in lineages {
        let others = without_anywhere(lineage, by);
        // One that lets no other join is attached all the same, if it comes later.
        if let Joining::Displaces(level) | Joining::Exclusive(level) = joining(&others) {
            let programs = of_level(&kernel, level, lineage.attach_type).into_iter();
            found.extend(programs.filter(|program| !lineage.in_force.contains(&program.id)));
        }
    }
    found
}

/// Whether a program follows a path. Those of other limits do not count as somebody's who is in the way: each alone
/// could go, and nothing would be back in force.
pub(crate) fn is_guard(id: ProgramId) -> bool {
    is_named(id, GUARDS)
}

fn is_named(id: ProgramId, name: &str) -> bool {
    Program::open(id).is_ok_and(|program| program.info().name.starts_with(name))
}

/// Looks for programs that a limit puts out of force after it was armed: the kernel lets others attach above it, and
/// tells nobody that they do not run.
pub(crate) struct Neighbours {
    cgroup: Option<Cgroup>,
    ours: Vec<(AttachType, ProgramId)>,
    /// `--displace`: they may be out of force.
    is_allowed: bool,
    /// Those that were told of, or were out of force before, because of another limit.
    known: BTreeSet<ProgramId>,
    pace: Pace,
}

impl Neighbours {
    /// Begins with a limit that has just been armed.
    pub(crate) fn start(engine: &Engine<LinuxBpf>, spec: &Spec, started: &Started) -> Self {
        let mut neighbours = Self {
            cgroup: Cgroup::open(&spec.cgroup).ok(),
            ours: engine.programs_of(started.id),
            is_allowed: spec.displace,
            known: started.displaced.iter().map(|program| program.id).collect(),
            pace: Pace::new(),
        };
        let (by_this, by_all) = neighbours.displaced();
        let before = by_all.iter().filter(|program| !by_this.contains(program));
        neighbours.known.extend(before.map(|program| program.id));
        neighbours
    }

    /// Looks again if it is time to. Returns others' programs that are out of force because of this limit, and not known
    /// to be.
    pub(crate) fn look(&mut self) -> Vec<Neighbour> {
        if !self.pace.is_due() {
            return Vec::new();
        }
        let began = Instant::now();
        let (by_this, by_all) = self.displaced();
        self.pace.note(began);
        let is_known = |program: &Neighbour| self.known.contains(&program.id);
        let mut found: Vec<_> =
            by_this.into_iter().filter(|it| !self.is_allowed || !is_known(it)).collect();
        for program in by_all.into_iter().filter(|it| !is_known(it)) {
            if !found.contains(&program) {
                found.push(program);
            }
        }
        self.known.extend(found.iter().map(|program| program.id));
        found
    }

    /// Others' programs that this limit alone puts out of force, and those that all limits do together: of two limits on
    /// one cgroup each could go, and nothing would be back in force.
    fn displaced(&self) -> (Vec<Neighbour>, Vec<Neighbour>) {
        let Some(cgroup) = &self.cgroup else { return (Vec::new(), Vec::new()) };
        let attach_types: Vec<_> = self.ours.iter().map(|(attach_type, _)| *attach_type).collect();
        // Before Linux 6.1 nobody sees those above the top of the mount.
        let seen =
            whole_lineages(cgroup, &attach_types).or_else(|_| lineages(cgroup, &attach_types));
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!("which programs are in force cannot be seen: {error}");
                return (Vec::new(), Vec::new());
            }
        };
        let is_ours = |id| self.ours.iter().any(|(_, ours)| *ours == id);
        let by_this = displaced(&seen, |id| is_ours(id) || is_guard(id));
        (by_this, displaced(&seen, |id| is_named(id, "chadthrottle")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_take_longer_are_rarer_and_the_next_one_is_not_long_in_coming() {
        let pauses = |took| pause(Duration::from_millis(took)).as_millis();
        assert_eq!([0, 20, 40].map(pauses), [1_000, 1_000, 2_000]);
        assert_eq!([100, 1_250, 3_000].map(pauses), [5_000, 5_000, 12_000]);
        assert_eq!(pause(Duration::MAX), Duration::MAX);
    }
}
