//! Words for people what could not be seen. Things with the same reason share a line, so that the text names each
//! missing right once.

use crate::escape::escape;

/// The maximum number of named things with one reason.
const NAMED: usize = 5;

/// Joins unseen things by their reason, one line per reason, in the order of the first thing.
pub fn gathered<'a>(unseen: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (what, why) in unseen {
        let (reason, call) = split(why);
        match lines.iter_mut().find(|line| line.reason == reason) {
            Some(line) => line.add(what, call),
            None => lines.push(Line { things: vec![what], reason, calls: Vec::from_iter(call) }),
        }
    }
    lines.iter().map(Line::text).collect()
}

struct Line<'a> {
    things: Vec<&'a str>,
    reason: &'a str,
    calls: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn add(&mut self, thing: &'a str, call: Option<&'a str>) {
        if !self.things.contains(&thing) {
            self.things.push(thing);
        }
        self.calls.extend(call.filter(|call| !self.calls.contains(call)));
    }

    fn text(&self) -> String {
        let named = self.things.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = match self.things.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let calls = match &self.calls[..] {
            [] => String::new(),
            calls => format!(" ({})", calls.join(", ")),
        };
        escape(&format!("{named}{more}: {}{calls}", self.reason))
    }
}

/// Splits a reason from the call with its errno in the parentheses at the end.
fn split(why: &str) -> (&str, Option<&str>) {
    let call = why.strip_suffix(')').and_then(|why| why.rsplit_once(" ("));
    match call {
        Some((reason, call)) if call.contains(": E") => (reason, Some(call)),
        _ => (why, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_named_once() {
        let denied = |call| format!("must run as root (CAP_X is missing) ({call}: EPERM)");
        let gaps = [
            ("links", denied("BPF_A")),
            ("the ledger", "it is torn".to_owned()),
            ("maps", denied("BPF_A")),
            ("programs", denied("BPF_B")),
        ];
        let expected = [
            "links, maps, programs: must run as root (CAP_X is missing) (BPF_A: EPERM, BPF_B: EPERM)",
            "the ledger: it is torn",
        ];
        assert_eq!(gathered(gaps.iter().map(|(what, why)| (*what, &**why))), expected);
    }

    #[test]
    fn of_many_things_some_are_named_and_the_others_counted() {
        let gaps: Vec<_> = (1..=7).map(|pid| format!("process {pid}")).collect();
        let some = "process 1, process 2, process 3, process 4, process 5 and 2 more: hidden";
        assert_eq!(gathered(gaps.iter().map(|what| (&**what, "hidden"))), [some]);
    }

    #[test]
    fn other_parentheses_belong_to_the_reason() {
        assert_eq!(split("hidden (hidepid)"), ("hidden (hidepid)", None));
        assert_eq!(split("no room (BPF_A: ENOSPC)"), ("no room", Some("BPF_A: ENOSPC")));
    }
}
