//! `chadthrottle-audit snapshot`.

use super::output;
use super::progress::Progress;
use crate::classify::classify;
use crate::cli::{Snapshot, check_file};
use crate::collect::{Breadth, collect};
use crate::exit::{DONE, INCOMPLETE};
use crate::gathered::gathered;
use crate::talk::warning;

/// 0, or 2 when not everything could be seen that a verdict needs, by the same rule as `scan`. What the
/// facts come to is for `scan --from` to say.
pub(super) fn run(args: &Snapshot) -> anyhow::Result<u8> {
    args.output.as_deref().map_or(Ok(()), check_file)?;
    let snapshot = {
        let _progress = Progress::start("Looking at cgroups, programs and processes");
        let breadth = if args.all { Breadth::Everything } else { Breadth::Ours };
        collect(&args.scope.options(breadth))?
    };
    output::write(args.output.as_deref(), &(serde_json::to_string_pretty(&snapshot)? + "\n"))?;
    let gaps = classify(&snapshot).gaps;
    let told: Vec<_> = gaps.iter().cloned().map(Into::into).collect();
    for line in gathered(&told) {
        warning(format_args!("not seen: {line}"));
    }
    Ok(if gaps.is_empty() { DONE } else { INCOMPLETE })
}
