//! Words the parts of a sentence that gives the reason of a finding.

use super::standing::{Source, Standing};
use crate::facts::HolderFact;

/// Names the owner, as the subject of a sentence.
pub(super) fn owner(standing: &Standing<'_>) -> String {
    match standing.claim {
        None => "nobody".to_owned(),
        Some(claim) if claim.source == Source::Holder => {
            format!("process {}, which holds it,", claim.pid)
        }
        Some(claim) if claim.alive.is_none() => {
            format!("its owner, process {} of another pid or time namespace,", claim.pid)
        }
        Some(claim) => format!("its owner, process {},", claim.pid),
    }
}

/// Says why nobody claims the program.
pub(super) fn nobody(standing: &Standing<'_>, strangers: &[&HolderFact]) -> String {
    let mut reasons = vec![match standing.claim {
        None => "no process, pin or ledger entry stands for it".to_owned(),
        Some(claim) if claim.alive.is_none() => format!("{} no longer holds it", owner(standing)),
        Some(_) => format!("{} is dead", owner(standing)),
    }];
    if let Some(entry) = standing.recorded {
        let meant = if entry.persist {
            "as not yet, or no longer, in force"
        } else {
            "as ending with its owner"
        };
        reasons.push(format!("the ledger has it {meant} (throttle '{}')", entry.throttle));
    }
    if !strangers.is_empty() {
        let hold = if strangers.len() == 1 { "holds" } else { "hold" };
        reasons.push(format!("{} did not make it, but {hold} it", processes(strangers)));
    }
    reasons.join("; ")
}

/// Lists processes by pid and name, for a sentence.
pub(super) fn processes(holders: &[&HolderFact]) -> String {
    let names: Vec<String> = holders
        .iter()
        .map(|holder| format!("{} ({})", holder.process.pid, holder.process.comm))
        .collect();
    let noun = if names.len() == 1 { "process" } else { "processes" };
    format!("{noun} {}", names.join(", "))
}

/// Counts looks: `1 look`, `2 looks`.
pub(super) fn looks(count: usize) -> String {
    format!("{count} look{}", if count == 1 { "" } else { "s" })
}
