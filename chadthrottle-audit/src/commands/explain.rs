//! `chadthrottle-audit explain`.

use auditor::judge::Finding;
use terminal::exit::DONE;
use terminal::print;

use crate::cli::Explain;
use crate::explain::{explain, summary};

pub(super) fn run(args: &Explain) -> anyhow::Result<u8> {
    let text = match args.finding {
        Some(finding) => explain(finding),
        None => list(),
    };
    print(&text)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_each_finding_once_and_a_leak_below_leaks() {
        let text = list();
        let (others, leaks) = text.split_once("\nLeaks:\n").unwrap();
        for finding in Finding::ALL {
            let is_in = |part: &str| {
                part.lines().filter(|line| line.starts_with(&format!("  {finding} "))).count()
            };
            let expected = if finding.is_leak() { (0, 1) } else { (1, 0) };
            assert_eq!((is_in(others), is_in(leaks)), expected, "{finding}");
        }
    }
}
