//! What a command came to, as checks that passed or did not: the formats for CI systems are made from this,
//! whichever command it was.

use crate::classify::Verdict;
use crate::report::Gap;
use crate::snapshot::Tool;

/// The rule that says whether everything could be seen. Its problems are gaps, not leaks.
pub const COVERAGE: &str = "coverage";

/// The rule of places that take no program more, or few.
pub const FULL_PLACE: &str = "full_place";

/// Rules whose problems are for people to look at, and no more: nothing says that they are wrong.
pub const NOTED: [&str; 2] = ["unowned", FULL_PLACE];

/// What one command came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The command: `scan`, `gate`, `diff`.
    pub command: &'static str,
    /// The program that looked.
    pub tool: Tool,
    /// Where.
    pub hostname: String,
    /// When, in RFC 3339, UTC.
    pub taken_at: String,
    /// How long it took.
    pub duration_ms: f64,
    /// The whole in a word.
    pub verdict: Verdict,
    /// The whole in a sentence.
    pub conclusion: String,
    /// Every rule that was checked, in a fixed order.
    pub checks: Vec<Check>,
}

/// One rule, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `orphaned_attachment`, or [`COVERAGE`].
    pub rule: &'static str,
    /// What it says, in a sentence: what is wrong where there is a problem.
    pub summary: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was looked at, and there was no problem.
    Passed,
    /// There are these problems; never empty.
    Failed(Vec<Problem>),
    /// There was no problem in what was looked at, but not everything was: these say what; never empty. What
    /// could not be looked at though it was asked for is under [`COVERAGE`] too.
    Unseen(Vec<Problem>),
    /// Nothing is wrong as far as this program can tell, but people should look at these; never empty.
    Noted(Vec<Problem>),
}

/// One thing that is wrong, or that could not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, in a line: `program 41 (chadthrottle_in) on /a, cgroup_inet_ingress`. As the system names it:
    /// to be escaped as the format asks for.
    pub what: String,
    /// Why it is a problem.
    pub why: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Where it is.
    pub place: Option<Place>,
    /// What makes it the same problem in a later run: names and places, none of the kernel's ids.
    pub identity: String,
}

impl From<&Gap> for Problem {
    fn from(gap: &Gap) -> Self {
        Self {
            what: gap.what.clone(),
            why: gap.why.clone(),
            remedy: None,
            place: None,
            identity: gap.what.clone(),
        }
    }
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The path of a cgroup, relative to the cgroup2 mount, beginning with `/`.
    Cgroup(String),
    /// A pin, by its absolute path.
    Pin(String),
    /// A network device, by its name.
    Device(String),
}
