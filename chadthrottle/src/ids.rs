//! `chadthrottle ids` prints what completions offer after `rm` and `rearm`.

use std::path::Path;

use anyhow::Result;
use bpf::ledger::{self, Entry};
use terminal::Shell;

use crate::words::print;

pub(crate) fn run() -> Result<()> {
    let (ledger, boot_id) =
        (ledger::read(Path::new(ledger::DEFAULT_DIR))?, kernel::process::boot_id()?);
    let entries: Vec<_> = ledger.entries.into_iter().map(|(_, entry)| entry).collect();
    ids(&entries, &boot_id).into_iter().try_for_each(|id| print(&format!("{id}\n")))
}

/// Returns the ids of pinned throttles. A shell may execute what it is offered (`$(…)`), so unusual names are left out.
fn ids<'a>(entries: &'a [Entry], boot_id: &str) -> Vec<&'a str> {
    let is_plain = |id: &str| {
        !id.starts_with('-')
            && id.chars().all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it))
    };
    let kept = entries.iter().filter(|it| it.is_kept() && it.owner.boot_id == boot_id);
    kept.map(|entry| &*entry.throttle).filter(|id| is_plain(id)).collect()
}

/// Adds the ids after `rm` and `rearm` to the script, which asks this program for them. `clap_complete` only knows
/// fixed values.
pub(crate) fn complete(script: &str, shell: Shell) -> String {
    match shell {
        Shell::Bash => ["rm", "rearm"].iter().fold(script.to_owned(), |script, command| {
            let case = format!("chadthrottle__subcmd__{command})\n            opts=\"");
            script.replace(&case, &format!("{case}$(\"$1\" ids 2>/dev/null) "))
        }),
        Shell::Zsh => {
            let ask = r#"{compadd -- ${(f)"$(chadthrottle ids 2>/dev/null)"}}"#;
            let lines = script.lines().map(|line| match line.strip_suffix(":_default' \\") {
                Some(start) if start.starts_with("'*::ids -- ") => format!("{start}:{ask}' \\\n"),
                _ => format!("{line}\n"),
            });
            lines.collect()
        }
        Shell::Fish => {
            let line = |command| {
                let when = format!("__fish_chadthrottle_using_subcommand {command}");
                format!(
                    "complete -c chadthrottle -n \"{when}\" -f -a \"(chadthrottle ids 2>/dev/null)\"\n"
                )
            };
            script.to_owned() + &line("rm") + &line("rearm")
        }
        _ => script.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use auditor::facts::Snapshot;

    use super::*;

    #[test]
    fn ids_are_those_of_pinned_throttles_of_this_boot_and_nothing_that_a_shell_would_run() {
        let waiting = include_str!("../../auditor/tests/snapshots-in/waiting.json");
        let snapshot: Snapshot = serde_json::from_str(waiting).unwrap();
        let kept = &snapshot.looks[0].ledger[0];
        let called = |id: &str| Entry { throttle: id.to_owned(), ..kept.clone() };
        let boot_id = &kept.owner.boot_id;
        let entries =
            [called("7"), called("web-1.x"), called("$(reboot)"), called("a b"), called("-rf")];
        assert_eq!(ids(&entries, boot_id), ["7", "web-1.x"]);
        assert!(ids(&entries, "another").is_empty());
        assert!(ids(&[Entry { persist: false, ..kept.clone() }], boot_id).is_empty());
        for stage in [ledger::Stage::Intent, ledger::Stage::Removing] {
            assert!(ids(&[Entry { stage, ..kept.clone() }], boot_id).is_empty(), "{stage:?}");
        }
    }
}
