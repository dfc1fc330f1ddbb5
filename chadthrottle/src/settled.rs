//! Reports what dead owners left behind.

use bpf::advice::explained;
use bpf::queue::Swept;
use terminal::escape;
use throttle_core::settle::Settlement;

use crate::words::shown;
use crate::words::{say, warn};

/// Prints what happened to everything that dead owners left.
pub(crate) fn tell_of_settlement(settlement: &Settlement) {
    let (notes, warnings) = words(settlement);
    notes.iter().map(String::as_str).for_each(say);
    warnings.iter().map(String::as_str).for_each(warn);
}

/// Returns notes about what was removed, and warnings about what was not.
fn words(settlement: &Settlement) -> (Vec<String>, Vec<String>) {
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    match &settlement.queues {
        Ok(Swept { removed, failed }) => {
            notes.extend(
                removed
                    .iter()
                    .map(|name| format!("removed network device {name}, whose owner had died")),
            );
            warnings.extend(failed.iter().map(|error| {
                format!(
                    "a queue, which may be left over, could not be removed: {}",
                    explained(error)
                )
            }));
        }
        Err(error) => {
            warnings.push(format!(
                "whether a queue was left behind cannot be seen: {}",
                explained(error)
            ));
        }
    }
    notes.extend(settlement.removed.iter().map(|(name, cgroup)| {
        format!("removed throttle {name} on {}, whose owner had died", shown(cgroup))
    }));
    warnings.extend(settlement.failed.iter().map(|(name, error)| {
        format!("throttle {name}, which may be left over, could not be removed: {error}")
    }));
    warnings.extend(
        settlement
            .unreadable
            .iter()
            .map(|(path, why)| format!("{} is left alone: {}", shown(path), escape(why))),
    );
    (notes, warnings)
}

#[cfg(test)]
mod tests {
    use kernel::error::Call;
    use nix::errno::Errno;
    use throttle_core::Error;

    use super::*;

    /// Creates a settlement with these numbers of removed, forgotten, failed and unreadable records.
    fn settlement(
        queues: kernel::Result<Swept>,
        [removed, forgotten, failed, unreadable]: [usize; 4],
    ) -> Settlement {
        let some = |count| (0..count).map(|nth: usize| (nth.to_string(), "/a".into())).collect();
        let failed = (0..failed).map(|nth| (nth.to_string(), Error::Contended("/a".to_owned())));
        let unreadable = (0..unreadable).map(|_| ("/run/x.json".into(), "torn\n".to_owned()));
        Settlement {
            removed: some(removed),
            forgotten: some(forgotten),
            failed: failed.collect(),
            unreadable: unreadable.collect(),
            queues,
        }
    }

    #[test]
    fn each_thing_that_failed_is_told_whatever_else_was_done() {
        let eperm = || kernel::Error::new(Call::Netlink, "links", Errno::EPERM);
        let blind = || Err(eperm());
        let none = || Ok(Swept::default());
        let device = || Ok(Swept { removed: vec!["chad0".to_owned()], failed: Vec::new() });
        let half = || Ok(Swept { removed: vec!["chad0".to_owned()], failed: vec![eperm()] });
        let stays = "a queue, which may be left over";
        let (queue, dev) = ("whether a queue was left", "removed network device chad0");
        let (gone, left, torn) = (
            "removed throttle 0 on /a",
            "throttle 0, which may be left over",
            "/run/x.json is left alone: torn\\n",
        );
        let left_1 = "throttle 1, which may be left over";
        let cases = [
            (none(), [0, 0, 0, 0], vec![], vec![]),
            // A record without programs is of no interest to the user.
            (none(), [0, 2, 0, 0], vec![], vec![]),
            (device(), [1, 0, 0, 0], vec![dev, gone], vec![]),
            (half(), [0, 0, 1, 0], vec![dev], vec![stays, left]),
            (none(), [0, 0, 2, 0], vec![], vec![left, left_1]),
            (none(), [1, 0, 1, 0], vec![gone], vec![left]),
            (device(), [1, 1, 2, 1], vec![dev, gone], vec![left, left_1, torn]),
            (blind(), [1, 0, 1, 1], vec![gone], vec![queue, left, torn]),
        ];
        for (swept, counts, notes, warnings) in cases {
            let told = words(&settlement(swept, counts));
            for (told, expected) in [(&told.0, notes), (&told.1, warnings)] {
                let is_it = |(told, begin): (&String, &&str)| told.starts_with(*begin);
                assert_eq!(told.len(), expected.len(), "{told:?}");
                assert!(told.iter().zip(&expected).all(is_it), "{told:?}, {expected:?}");
            }
        }
    }
}
