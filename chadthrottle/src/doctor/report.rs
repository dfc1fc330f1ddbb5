//! What the doctor says: what `--format json` prints, and what the text is made from.

use std::path::PathBuf;

use auditor::facts::WrittenPath;
use schemars::JsonSchema;
use serde::Serialize;
use terminal::schema_of;

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    /// As good as it gets.
    Ok,
    /// A limit is held without it, but less well, or something that can be asked for is not there.
    Lesser,
    /// It could not be seen.
    Unknown,
    /// No limit without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Check {
    /// The thing.
    pub(crate) what: String,
    /// How good it is.
    pub(crate) grade: Grade,
    /// What is so, and what follows.
    pub(crate) says: String,
    /// What to do about it; null where there is nothing to be done.
    pub(crate) advice: Option<String>,
}

/// Creates a check. It leaves out advice that `says` contains already.
pub(crate) fn check(what: &str, grade: Grade, says: impl Into<String>, advice: &str) -> Check {
    let says = says.into();
    let advice = (!advice.is_empty() && !says.contains(advice)).then(|| advice.to_owned());
    Check { what: what.to_owned(), grade, says, advice }
}

/// The answer of `chadthrottle doctor --format json`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Diagnosis {
    /// The version of this shape: 1.
    pub(crate) schema_version: u32,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// What was looked at.
    pub(crate) checks: Vec<Check>,
    /// How a limit would be held, by kind of traffic; without those that cannot be limited here, or on the cgroup that
    /// was named.
    pub(crate) limits: Vec<Held>,
    /// What is attached to the cgroup that was named and to its ancestors; null where none was named, or it could not be
    /// seen.
    pub(crate) cgroup: Option<Place>,
}

impl Diagnosis {
    /// Returns the worst of all grades.
    pub(crate) fn worst(&self) -> Grade {
        self.checks.iter().map(|check| check.grade).max().unwrap_or(Grade::Ok)
    }
}

/// How one kind of traffic is held to a limit.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Held {
    /// The kind of traffic.
    pub(crate) traffic: String,
    /// How it is held.
    pub(crate) how: String,
}

/// A cgroup, and what is attached where a limit would be.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Place {
    /// Its directory.
    #[serde(with = "bpf::serde_path")]
    #[schemars(with = "WrittenPath")]
    pub(crate) path: PathBuf,
    /// Its id.
    pub(crate) id: u64,
    /// Its lists, one for each program that a limit has.
    pub(crate) lists: Vec<List>,
}

/// One list of a cgroup.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct List {
    /// Where on the cgroup, as bpftool names it.
    pub(crate) attach_type: String,
    /// What comes of attaching a limit there.
    pub(crate) room: Room,
    /// What the list lets others do.
    pub(crate) mode: Mode,
    /// How many programs are in it.
    pub(crate) used: usize,
    /// How many programs it takes: 64, or 1 where the mode is `override` or `exclusive`.
    pub(crate) takes: usize,
    /// The programs that run for this cgroup, in order, those of its ancestors included.
    pub(crate) in_force: Vec<Program>,
    /// The ancestors that have programs here, nearest first.
    pub(crate) above: Vec<Above>,
    /// Every ancestor up to the root of the hierarchy could be seen.
    pub(crate) whole: bool,
}

/// What comes of attaching a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Room {
    /// It is attached, and everything else runs as before.
    Free,
    /// The kernel refuses it, because the list is full.
    Full,
    /// The kernel refuses it, because another program takes the place for itself, here or above.
    Exclusive,
    /// It would put a program out of force that is attached above with `BPF_F_ALLOW_OVERRIDE`.
    Displaces,
    /// That depends on ancestors which cannot be seen.
    Unknown,
}

/// What a list lets others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Nothing is attached.
    Empty,
    /// `BPF_F_ALLOW_MULTI`: others may join.
    Multi,
    /// `BPF_F_ALLOW_OVERRIDE`: one program, which a descendant's puts out of force.
    Override,
    /// No flag: one program, and no other here or below.
    Exclusive,
}

/// A list of an ancestor.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Above {
    /// The ancestor's directory.
    #[serde(with = "bpf::serde_path")]
    #[schemars(with = "WrittenPath")]
    pub(crate) path: PathBuf,
    /// Its id.
    pub(crate) id: u64,
    /// What its list lets others do.
    pub(crate) mode: Mode,
    /// The programs in it.
    pub(crate) programs: Vec<Program>,
}

/// A program. What is null could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Program {
    /// Its id.
    pub(crate) id: u32,
    /// Its name, as the kernel has it.
    pub(crate) name: Option<String>,
    /// Its tag.
    pub(crate) tag: Option<String>,
}

/// Returns the JSON Schema of the answer.
///
/// # Errors
/// Fails if the schema cannot be serialized.
pub(crate) fn schema() -> serde_json::Result<String> {
    schema_of::<Diagnosis>()
}
