//! `chadthrottle-audit diff`.

use anyhow::Context;

use super::output::{self, Stream};
use super::scan::read;
use crate::cli::Diff;
use crate::diff::{compare, report};

pub(super) fn run(args: &Diff) -> anyhow::Result<u8> {
    args.report.check()?;
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let difference = compare(&before, &after, &args.programs).with_context(|| {
        format!("cannot compare {} and {}", args.before.display(), args.after.display())
    })?;
    let report = report(&before, &after, &args.programs, difference);
    output::deliver(&report, &args.report, Stream::Stdout)?;
    Ok(report.verdict.exit_status())
}
