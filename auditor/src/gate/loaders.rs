//! Who loads programs while the command runs.

use std::collections::HashMap;

use bpf::ProgramId;
use bpf::loads::{Following, Loader, Loads};

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

    /// Who has loaded what, up to now. Empty where that is not known.
    pub(crate) fn so_far(&mut self) -> HashMap<ProgramId, Loader> {
        let Some(following) = &self.0 else { return HashMap::new() };
        let why = match following.loaders() {
            Ok(Some(loaders)) => return loaders,
            Ok(None) => "more happened at once than could be written down".to_owned(),
            Err(error) => error.to_string(),
        };
        tell(&why);
        self.0 = None;
        HashMap::new()
    }
}

fn tell(why: &str) {
    warning(format_args!(
        "what others load meanwhile cannot always be told from what the command loads: {why}"
    ));
}
