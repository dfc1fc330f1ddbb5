//! `chadthrottle-audit explain`.

use super::output;
use crate::classify::Finding;
use crate::cli::Explain;
use crate::exit::DONE;
use crate::explain::{explain, summary};

pub(super) fn run(args: &Explain) -> anyhow::Result<u8> {
    let text = match args.finding {
        Some(finding) => explain(finding),
        None => list(),
    };
    output::print(&text)?;
    Ok(DONE)
}

fn list() -> String {
    let of = |is_leak: bool| -> Vec<String> {
        Finding::ALL
            .into_iter()
            .filter(|finding| finding.is_leak() == is_leak)
            .map(|finding| format!("  {finding:<20}  {}", summary(finding)))
            .collect()
    };
    let text = [
        vec!["No leaks:".to_owned()],
        of(false),
        vec![String::new(), "Leaks:".to_owned()],
        of(true),
        vec![String::new(), "More about one: chadthrottle-audit explain FINDING".to_owned()],
    ];
    text.concat().join("\n") + "\n"
}
