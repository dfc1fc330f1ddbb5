//! `chadthrottle-audit snapshot`.

use super::progress::Progress;
use super::{FAILED, output};
use crate::cli::Snapshot;
use crate::collect::collect;

/// 0, or 2 when not everything could be seen. What the facts come to is for `scan --from` to say.
pub(super) fn run(args: &Snapshot) -> anyhow::Result<u8> {
    let snapshot = {
        let _progress = Progress::start("Looking at cgroups, programs and processes");
        collect(&args.scope.options(args.all))?
    };
    output::write(args.output.as_deref(), &(serde_json::to_string_pretty(&snapshot)? + "\n"))?;
    let gaps = snapshot.looks.last().map(|look| look.coverage.gaps.as_slice()).unwrap_or_default();
    for gap in gaps {
        anstream::eprintln!(
            "not seen: {}: {}",
            crate::escape::escape(&gap.what),
            crate::escape::escape(&gap.why)
        );
    }
    Ok(if gaps.is_empty() { 0 } else { FAILED })
}
