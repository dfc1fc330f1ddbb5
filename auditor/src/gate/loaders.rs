//! Follows who loads programs while the command runs, and what the command asks the kernel for.

use std::collections::HashSet;

use bpf::advice::explained;
use kernel::loads::{Asked, Following, Loads, Told};

use super::processes::Processes;

/// Follows the kernel's events, for as long as that works.
pub struct Loaders(Option<Following>);

impl Loaders {
    /// Follows what this process starts from now on. Warns if that is impossible; the gate then judges without it.
    pub fn follow(opened: kernel::Result<Loads>) -> Self {
        let following = opened.and_then(|loads| loads.follow(std::process::id()));
        if let Err(error) = &following {
            tell(&explained(error));
        }
        Self(following.ok())
    }

    /// Records the events up to now.
    pub fn note(&mut self, processes: &mut Processes) {
        let told = self.told();
        processes.asked = told.as_ref().and_then(asked);
        processes.loaders = told.map(|told| told.loaders).unwrap_or_default();
    }

    fn told(&mut self) -> Option<Told> {
        let why = match self.0.as_ref()?.told() {
            Ok(Some(told)) => return Some(told),
            Ok(None) => "more happened at once than could be written down".to_owned(),
            Err(error) => explained(&error),
        };
        tell(&why);
        self.0 = None;
        None
    }
}

fn asked(told: &Told) -> Option<HashSet<Asked>> {
    if let Err(error) = &told.asked {
        tracing::debug!(
            "what the command asks the kernel to make is not known: {}",
            explained(error)
        );
    }
    told.asked.clone().ok()
}

fn tell(why: &str) {
    tracing::warn!(
        "what others do meanwhile cannot always be told from what the command does: {why}"
    );
}
