//! Compares two worlds side by side.

use std::fmt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::answer::{Answer, View};
use super::call::{Call, On};
use super::objects::Objects;
use crate::World;

/// How long a kernel may take to finish what it does after a call has returned.
pub const LATER: Duration = Duration::from_secs(30);

/// How long it usually takes.
const MOMENT: Duration = Duration::from_millis(50);

/// A sequence on which two worlds agreed.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// The calls whose operands existed.
    pub calls: usize,
}

/// Two worlds did not do the same.
#[derive(Debug)]
pub struct Difference {
    /// The calls up to the one that showed it, without those whose operands named nothing, and what the
    /// first machine answered.
    pub calls: Vec<(Call, Answer)>,
    /// What the second machine answered to the last call; `None`: it was seen after all of them, or when
    /// everything was closed.
    pub other: Option<Answer>,
    /// What is not as on the second machine: what, the first one, the second one.
    pub lines: Vec<String>,
}

impl Difference {
    /// The calls alone.
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

/// Makes the same calls on two worlds. On both, the parent of the cgroup `root` exists and `root` does not, nor does `pins`,
/// the folder for pins. The second world may take `later` to finish what it does after a call has returned.
///
/// # Errors
/// The first difference.
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
    // Looking at every list after every call is most of the work: those of types that no call was about yet
    // are looked at in the end.
    let mut types = Vec::new();
    // Somebody else on the host may look at a program at this very moment, which keeps it until they have.
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
        // What a cgroup still holds for a while may come to light only when its other holders have gone.
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

/// How long a difference may last.
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
