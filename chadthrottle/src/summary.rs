//! Prints what a limit did, and whether that was what the user asked for.

use std::fmt::Write;

use anyhow::{Error, Result};
use bpf::advice::explained;
use bpf::limits::Traffic;
use terminal::exit::not_done;
use throttle_core::Removed;

use crate::traffic;
use crate::words::count;

/// How a limit ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    /// What the limit did.
    pub(crate) total: &'a Removed,
    pub(crate) traffic: Traffic,
    /// The lines about sockets that the limit did not cover.
    pub(crate) past_it: String,
    /// All traffic that was seen bypassed the limit.
    pub(crate) has_held_nothing: bool,
    /// Why the limit fell short of the request, if it did.
    pub(crate) short: Option<Error>,
}

impl Ended<'_> {
    /// Prints what the limit did, however it ended.
    pub(crate) fn told(self, print: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let more = traffic::meaning(self.traffic, self.total);
        let printed = print(&format!("{}{}{more}", summary(self.total), self.past_it));
        if let Some(short) = self.short {
            return Err(short);
        }
        if self.has_held_nothing {
            return Err(not_done(
                "the limit has held nothing: all that was seen to be sent or received went past it",
            )
            .into());
        }
        printed
    }
}

fn summary(removed: &Removed) -> String {
    let mut text = String::new();
    for (direction, detached) in &removed.directions {
        let what = match &detached.counters {
            Ok(Some(counters)) => {
                let mut what = format!(
                    "passed {}, dropped {}",
                    count(counters.passed),
                    count(counters.dropped)
                );
                // Writing to a String cannot fail. Bytes would mislead, because each attempt counts.
                match counters.held_back.packets {
                    0 => {}
                    1 => what.push_str(", held back TCP once (the segment was kept for later)"),
                    times => {
                        let _ = write!(
                            what,
                            ", held back TCP {times} times (its segments were kept for later)"
                        );
                    }
                }
                if counters.exempt.packets > 0 {
                    let _ = write!(what, ", not limited {}", count(counters.exempt));
                }
                what
            }
            Ok(None) => "the counters went with the cgroup".to_owned(),
            Err(error) => format!("the counters cannot be read: {}", explained(error)),
        };
        let _ = writeln!(text, "{direction:<8}  {what}");
    }
    text
}

#[cfg(test)]
mod tests {
    use bpf::state::{Count, Counters};
    use kernel::error::Call;
    use nix::errno::Errno;
    use throttle_core::{Detached, Direction};

    use super::*;
    use crate::words::exit_status;

    type Read = kernel::Result<Option<Counters>>;

    /// Returns the printed text, the exit status and the message.
    fn ended(
        counters: [Read; 2],
        held_nothing: bool,
        short: bool,
        full: bool,
    ) -> (String, u8, String) {
        let detached = counters.map(|counters| Detached { cgroup_vanished: false, counters });
        let total = Removed { directions: Direction::BOTH.into_iter().zip(detached).collect() };
        let ended = Ended {
            total: &total,
            traffic: Traffic::All,
            past_it: "past it: nothing\n".to_owned(),
            has_held_nothing: held_nothing,
            short: short.then(|| not_done("the limit did not hold all the time").into()),
        };
        let mut printed = String::new();
        let result = ended.told(|text| {
            printed.push_str(text);
            if full { Err(anyhow::anyhow!("cannot write")) } else { Ok(()) }
        });
        let status = result.as_ref().err().map_or(0, exit_status);
        (printed, status, result.err().map(|error| error.to_string()).unwrap_or_default())
    }

    #[test]
    fn what_it_did_is_printed_however_it_ends_and_what_was_not_done_makes_the_status() {
        let counters = Counters { passed: Count { packets: 1, bytes: 100 }, ..Counters::default() };
        let passed = || Ok(Some(counters));
        let unread = || Err(kernel::Error::new(Call::MapLookup, "the counters", Errno::ENOMEM));
        let (did, gone) = (
            "passed 100 B (1 packet), dropped 0 B (0 packets)",
            "the counters went with the cgroup",
        );
        let lost = "the counters cannot be read: ";
        let (short, nothing) =
            ("the limit did not hold all the time", "the limit has held nothing: ");
        let cases = [
            ([passed(), passed()], false, false, false, [did, did], 0, ""),
            ([passed(), Ok(None)], false, false, false, [did, gone], 0, ""),
            ([unread(), passed()], false, false, false, [lost, did], 0, ""),
            ([passed(), passed()], false, true, false, [did, did], 1, short),
            ([unread(), Ok(None)], false, true, false, [lost, gone], 1, short),
            ([passed(), passed()], true, false, false, [did, did], 1, nothing),
            ([passed(), passed()], true, true, false, [did, did], 1, short),
            ([passed(), passed()], false, false, true, [did, did], 70, "cannot write"),
            ([passed(), passed()], false, true, true, [did, did], 1, short),
        ];
        for (counters, held_nothing, is_short, full, lines, status, message) in cases {
            let (printed, ended_with, told) = ended(counters, held_nothing, is_short, full);
            let [download, upload] = lines;
            assert!(printed.starts_with(&format!("download  {download}")), "{printed}");
            assert!(printed.contains(&format!("\nupload    {upload}")), "{printed}");
            assert!(printed.ends_with("past it: nothing\n"), "{printed}");
            assert_eq!(ended_with, status, "{told}");
            assert!(told.starts_with(message) && told.is_empty() == message.is_empty(), "{told}");
        }
    }

    #[test]
    fn what_was_held_back_or_is_not_limited_is_told_only_where_there_was_any() {
        let told = |held_back, exempt| {
            let count = |packets| Count { packets, bytes: 100 * packets };
            let (held_back, exempt) = (count(held_back), count(exempt));
            let counters = Counters { held_back, exempt, ..Counters::default() };
            let (printed, ..) = ended([Ok(Some(counters)), Ok(None)], false, false, false);
            let line = printed.lines().next().unwrap().to_owned();
            let (_, more) = line.split_once("dropped 0 B (0 packets)").unwrap();
            more.to_owned()
        };
        assert_eq!(told(0, 0), "");
        assert_eq!(told(1, 0), ", held back TCP once (the segment was kept for later)");
        assert_eq!(told(2, 0), ", held back TCP 2 times (its segments were kept for later)");
        assert_eq!(told(0, 1), ", not limited 100 B (1 packet)");
        assert!(told(2, 3).ends_with("kept for later), not limited 300 B (3 packets)"));
    }
}
