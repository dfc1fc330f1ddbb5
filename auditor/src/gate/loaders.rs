//! Who loads programs while the command runs, and what the command asks for.

use std::collections::HashSet;

use bpf::loads::{Asked, Following, Loads, Told};

use super::processes::Processes;
use crate::talk::warning;

/// As long as the kernel can be followed.
pub(crate) struct Loaders(Option<Following>);

impl Loaders {
    /// Follows what this process starts from now on. Where that cannot be, it says so: what is left is then judged without.
    pub(crate) fn follow(opened: bpf::Result<Loads>) -> Self {
        let following = opened.and_then(|loads| loads.follow(std::process::id()));
        if let Err(error) = &following {
            tell(&error.to_string());
        }
        Self(following.ok())
    }

    /// Notes what was done up to now.
    pub(crate) fn note(&mut self, processes: &mut Processes) {
        let told = self.told();
        processes.asked = told.as_ref().and_then(asked);
        processes.loaders = told.map(|told| told.loaders).unwrap_or_default();
    }

    fn told(&mut self) -> Option<Told> {
        let why = match self.0.as_ref()?.told() {
            Ok(Some(told)) => return Some(told),
            Ok(None) => "more happened at once than could be written down".to_owned(),
            Err(error) => error.to_string(),
        };
        tell(&why);
        self.0 = None;
        None
    }
}

fn asked(told: &Told) -> Option<HashSet<Asked>> {
    if let Err(error) = &told.asked {
        tracing::debug!("what the command asks the kernel to make is not known: {error}");
    }
    told.asked.clone().ok()
}

fn tell(why: &str) {
    warning(format_args!(
        "what others do meanwhile cannot always be told from what the command does: {why}"
    ));
}
