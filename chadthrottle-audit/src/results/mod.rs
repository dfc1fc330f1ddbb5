//! Defines a command's result as checks that passed or failed. The formats for CI systems come from this, whichever
//! the command.

mod compare;
mod scan;

use auditor::facts::Note;
use auditor::facts::Tool;
use auditor::judge::Verdict;

#[cfg(test)]
pub(crate) use self::compare::rule;
pub(crate) use self::compare::{of_diff, of_gate};
pub(crate) use self::scan::of_scan;

/// The rule about coverage. Its problems are gaps, not leaks.
pub(crate) const COVERAGE: &str = "coverage";

/// The rule about places with little or no room.
pub(crate) const FULL_PLACE: &str = "full_place";

/// Rules whose problems people should only look at, because nothing proves them wrong.
pub(crate) const NOTED: [&str; 2] = ["unowned", FULL_PLACE];

/// The result of one command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results {
    /// The command: `scan`, `gate` or `diff`.
    pub(crate) command: &'static str,
    /// The program that took the look.
    pub(crate) tool: Tool,
    /// The host's name.
    pub(crate) hostname: String,
    /// The time of the look, in RFC 3339, UTC.
    pub(crate) taken_at: String,
    /// The duration, in milliseconds.
    pub(crate) duration_ms: f64,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// The verdict as a sentence.
    pub(crate) conclusion: String,
    /// Every rule, in a fixed order.
    pub(crate) checks: Vec<Check>,
}

/// One rule and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The rule's name, such as `orphaned_attachment`, or [`COVERAGE`].
    pub(crate) rule: &'static str,
    /// The rule in a sentence: what is wrong if there is a problem.
    pub(crate) summary: String,
    /// The outcome.
    pub(crate) outcome: Outcome,
}

/// The outcome of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The look covered everything and found no problem.
    Passed,
    /// The look found these problems. The list is never empty.
    Failed(Vec<Problem>),
    /// The look found no problem, but did not cover everything. The list says what is missing and is never empty.
    /// Anything in scope that could not be seen is under [`COVERAGE`] as well.
    Unseen(Vec<Problem>),
    /// Nothing is provably wrong, but people should look at these. The list is never empty.
    Noted(Vec<Problem>),
}

/// One thing that is wrong, or that could not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The thing, in one line: `program 41 (chadthrottle_in) on /a, cgroup_inet_ingress`. Names appear exactly as the
    /// system has them. Each format must escape them.
    pub(crate) what: String,
    /// The reason why the thing is a problem.
    pub(crate) why: String,
    /// The remedy.
    pub(crate) remedy: Option<String>,
    /// The place.
    pub(crate) place: Option<Place>,
    /// Identifies the same problem in a later run: names and places, but no kernel ids.
    pub(crate) identity: String,
}

impl From<&Note> for Problem {
    fn from(gap: &Note) -> Self {
        Self {
            what: gap.what.clone(),
            why: gap.why.clone(),
            remedy: None,
            place: None,
            identity: gap.what.clone(),
        }
    }
}

/// The place of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The path of a cgroup, relative to the cgroup2 mount, with a leading `/`.
    Cgroup(String),
    /// The absolute path of a pin.
    Pin(String),
    /// The name of a network device.
    Device(String),
}
