//! Finds attachments beyond those that an owner means to have at one place.

use std::collections::HashMap;

use kernel::{AttachType, CgroupId, LinkId, ProgramId};

use super::doubt::Doubt;
use super::facts::Facts;
use super::standing::{Source, Standing};
use crate::facts::Subject;

/// The reason why an attachment is one too many.
#[derive(Debug, Clone)]
pub(super) struct Duplicate {
    /// The reason, in a sentence.
    pub(super) why: String,
    /// The missing fact that this reason needs, if any.
    pub(super) doubt: Option<Doubt>,
}

/// Returns for each attachment, by position, why it is one too many; `None` if it is not.
///
/// - A program counts once at one place. This function keeps one of its attachments. It prefers a link to a legacy
///   attachment, then the link that the ledger names, then the newest.
/// - Programs without throttle state count once per owner, place and name. This function keeps the program that was
///   loaded last. The name matters because one process may have several different programs at one place, as systemd
///   does.
/// - A program with throttle state, or with a record in the ledger, is a throttle of its own. The state says whether
///   it is armed.
/// - Attachments of two different owners are never duplicates of each other.
pub(super) fn duplicates(
    facts: &Facts<'_>,
    standings: &[Option<Standing<'_>>],
) -> Vec<Option<Duplicate>> {
    let mut why = vec![None; standings.len()];
    same_program(facts, standings, &mut why);
    same_name(facts, standings, &mut why);
    why
}

/// One program at one place.
type Place = (CgroupId, AttachType, ProgramId);

fn same_program(
    facts: &Facts<'_>,
    standings: &[Option<Standing<'_>>],
    why: &mut [Option<Duplicate>],
) {
    let mut at: HashMap<Place, Vec<(usize, Option<LinkId>)>> = HashMap::new();
    for (index, (fact, link)) in facts.attachments().enumerate() {
        if standings[index].is_some() {
            let place = (fact.cgroup_id, fact.attach_type, fact.program_id);
            at.entry(place).or_default().push((index, link));
        }
    }
    for ((_, _, program), mut several) in at {
        several.sort_by_key(|(_, link)| (is_recorded(facts, program, *link), *link));
        let Some((_, kept)) = several.pop() else { continue };
        let kept = match kept {
            Some(link) => format!("link {link}"),
            None => "another attachment".to_owned(),
        };
        for (index, link) in several {
            // The ledger says which of two links the owner means.
            let is_in_doubt = link.is_some() && facts.has_gap(Subject::Ledger);
            why[index] = Some(Duplicate {
                why: format!("the same program is attached here through {kept} as well"),
                doubt: is_in_doubt.then_some(Doubt::Ledger),
            });
        }
    }
}

/// Tells whether the ledger names that link.
fn is_recorded(facts: &Facts<'_>, program: ProgramId, link: Option<LinkId>) -> bool {
    let Some(program) = facts.program(program).filter(|_| link.is_some()) else { return false };
    facts.records(program).any(|(_, recorded)| recorded.link_id == link)
}

/// Programs with the same name and owner at the same place.
type Series<'a> = (u32, CgroupId, AttachType, &'a str);

fn same_name(facts: &Facts<'_>, standings: &[Option<Standing<'_>>], why: &mut [Option<Duplicate>]) {
    // "No state and no record" is certain only if both could be read.
    let unread = [(Subject::Ledger, Doubt::Ledger), (Subject::Programs, Doubt::Programs)]
        .into_iter()
        .find_map(|(about, doubt)| facts.has_gap(about).then_some(doubt));
    let unheld = facts.has_gap(Subject::Processes).then_some(Doubt::Holders);
    let mut at: HashMap<Series<'_>, Vec<(u64, ProgramId, usize)>> = HashMap::new();
    for (index, (fact, _)) in facts.attachments().enumerate() {
        let (Some(standing), Some(program)) = (&standings[index], facts.program(fact.program_id))
        else {
            continue;
        };
        let Some(owner) = standing.living() else { continue };
        if why[index].is_none() && fact.state.is_none() && standing.recorded.is_none() {
            let series =
                (owner.pid, fact.cgroup_id, fact.attach_type, program.loaded.name.as_str());
            at.entry(series).or_default().push((
                program.loaded.loaded_at_ns,
                program.loaded.id,
                index,
            ));
        }
    }
    for ((pid, ..), mut several) in at {
        several.sort_unstable();
        let Some((_, kept, _)) = several.pop() else { continue };
        for (_, _, index) in several {
            // If only holding the program marks a process as its owner, other holders may exist.
            let is_holder = standings[index]
                .as_ref()
                .and_then(Standing::living)
                .is_some_and(|owner| owner.source == Source::Holder);
            why[index] = Some(Duplicate {
                why: format!(
                    "process {pid} has loaded program {kept} of the same name since, and attached it here \
                     too"
                ),
                doubt: unread.or(unheld.filter(|_| is_holder)),
            });
        }
    }
}
