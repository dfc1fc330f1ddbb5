//! `chadthrottle doctor` says how this host would hold limits, and what would make them better.
//!
//! It gathers facts, judges them in pure functions, and then shows the result.

mod facts;
mod fq;
mod judge;
mod place;
mod report;
mod text;

use anyhow::Result;
use terminal::exit::{self, Ends};
use throttle_core::target::{Target, ThisHost};

use self::facts::{Facts, gather};
pub(crate) use self::report::schema;
use self::report::{Diagnosis, Grade};
use crate::cli::{DoctorArgs, Format};
use crate::words::print;

pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let cgroup = match &args.cgroup {
        Some(path) => Some(Target::Cgroup(path.clone()).resolve(&ThisHost)?.cgroup),
        None => None,
    };
    let facts = gather(cgroup.as_deref());
    let diagnosis = diagnose(&facts);
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&diagnosis)? + "\n"))?,
        Format::Text => print(&text::text(&diagnosis))?,
    }
    Ok(ending(&facts, &diagnosis)?)
}

/// Returns the exit status: whether a limit can be held, as far as that could be seen.
fn ending(facts: &Facts, diagnosis: &Diagnosis) -> Result<(), Ends> {
    match diagnosis.worst() {
        // Every command that cannot see the hierarchy ends in this way.
        _ if facts.is_blind() => Err(exit::failed("no limit can be held here")),
        Grade::Missing => Err(exit::not_done(what_cannot_be(facts))),
        Grade::Unknown => Err(exit::incomplete("not everything could be seen")),
        Grade::Ok | Grade::Lesser => Ok(()),
    }
}

/// Returns what is missing, in a sentence. A fault of the host comes before one of the cgroup.
fn what_cannot_be(facts: &Facts) -> String {
    let is_the_hosts = judge::judge(facts).iter().any(|it| it.grade == Grade::Missing);
    let there = facts.place.as_ref().filter(|_| !is_the_hosts).and_then(place::what_cannot_be);
    there.unwrap_or_else(|| "no limit can be held here".to_owned())
}

/// Judges all facts.
fn diagnose(facts: &Facts) -> Diagnosis {
    let mut checks = judge::judge(facts);
    checks.extend(facts.place.iter().flat_map(place::judge));
    Diagnosis {
        schema_version: 1,
        kernel: facts.release.clone(),
        checks,
        limits: judge::held(facts),
        cgroup: facts.place.as_ref().and_then(place::report),
    }
}
