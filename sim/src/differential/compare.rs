//! Compares two worlds side by side.

use std::fmt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::answer::{Answer, View};
use super::call::{Call, On};
use super::objects::Objects;
use crate::World;

/// The longest time in which a kernel finishes work after a call has returned.
pub const LATER: Duration = Duration::from_secs(30);

/// The usual time.
const MOMENT: Duration = Duration::from_millis(50);

/// A sequence on which two worlds agreed.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// The calls whose operands existed.
    pub calls: usize,
}

/// A difference between two worlds.
#[derive(Debug)]
pub struct Difference {
    /// The calls up to the one that showed the difference, with the answers of the first world. Calls without existing
    /// operands are left out.
    pub calls: Vec<(Call, Answer)>,
    /// The second world's answer to the last call. `None` if the difference appeared after all calls, or after
    /// everything was closed.
    pub other: Option<Answer>,
    /// The differences. Each line names the object, its state on the first world, and its state on the second one.
    pub lines: Vec<String>,
}

impl Difference {
    /// Returns the calls without the answers.
    pub fn sequence(&self) -> Vec<Call> {
        self.calls.iter().map(|(call, _)| call.clone()).collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (call, answer)) in self.calls.iter().enumerate() {
            writeln!(f, "{:3}. {call:?} -> {answer:?}", at + 1)?;
        }
        match (&self.other, self.calls.last()) {
            (Some(other), Some((_, answer))) if other != answer => {
                writeln!(f, "     the other machine: {other:?}")?;
            }
            (None, _) => writeln!(f, "     in the end")?,
            _ => {}
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "     {line}"))
    }
}

/// Makes the same calls on two worlds. On both, the parent of the cgroup `root` must exist, but neither `root` nor the
/// folder `pins`. The second world may take `later` to finish what it does after a call has returned.
///
/// # Errors
/// Returns the first difference.
pub fn compare<A: World, B: World>(
    one: A,
    other: B,
    root: &Path,
    pins: &Path,
    calls: &[Call],
    later: Duration,
) -> Result<Compared, Box<Difference>> {
    let mut one = Objects::new(one, root, pins);
    let mut other = Objects::new(other, root, pins);
    let mut made = Vec::new();
    // Looking at every list after every call is most of the work. Lists of types that no call has named yet have to
    // wait until the end.
    let mut types = Vec::new();
    // Another process on the host may look at a program at this moment, which keeps the program for a while.
    let mut patience = Patience { lists: Duration::ZERO, objects: later };
    let mut is_pending = false;
    for call in calls {
        if *call == Call::Wait {
            if !is_pending {
                continue;
            }
            sleep(MOMENT);
        }
        types.extend(call.on().filter(|on| !types.contains(on)));
        let answer = one.run(call);
        let others = other.run(call);
        if answer == Answer::Nothing && others == Answer::Nothing {
            continue;
        }
        let agree = answer == others;
        made.push((call.clone(), answer));
        patience.lists = if call.is_finished_later() { later } else { Duration::ZERO };
        // Objects that a cgroup still holds may show up only when their other holders have gone.
        is_pending |= !patience.lists.is_zero();
        let lines = differences(&one.look(&types), &mut other, &types, patience);
        if !agree || !lines.is_empty() {
            return Err(Box::new(Difference { calls: made, other: Some(others), lines }));
        }
    }
    patience.lists = Duration::ZERO;
    let mut lines = differences(&one.look(&On::ALL), &mut other, &On::ALL, patience);
    if lines.is_empty() {
        one.clear();
        other.clear();
        let patience = Patience { lists: later, objects: later };
        lines = differences(&one.look(&[]), &mut other, &[], patience);
    }
    if lines.is_empty() {
        Ok(Compared { calls: made.len() })
    } else {
        Err(Box::new(Difference { calls: made, other: None, lines }))
    }
}

/// How long a difference may last before it counts.
#[derive(Debug, Clone, Copy)]
struct Patience {
    lists: Duration,
    objects: Duration,
}

fn differences<B: World>(
    view: &View,
    other: &mut Objects<B>,
    types: &[On],
    patience: Patience,
) -> Vec<String> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(50);
    loop {
        let others = other.look(types);
        let mut lines = view.differences_in_lists(&others);
        let objects = view.differences_in_objects(&others);
        let waited = started.elapsed();
        let lasts = !lines.is_empty() && waited >= patience.lists
            || !objects.is_empty() && waited >= patience.objects;
        lines.extend(objects);
        if lines.is_empty() || lasts {
            return lines;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
