//! `chadthrottle-audit diff`.

use anyhow::Context;
use auditor::compare::compare;

use super::output;
use super::scan::read;
use crate::cli::Diff;
use crate::documents::diff_report;
use crate::exit;

pub(super) fn run(args: &Diff) -> anyhow::Result<u8> {
    args.report.check()?;
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let difference = compare(&before, &after, &args.programs).with_context(|| {
        format!("cannot compare {} and {}", args.before.display(), args.after.display())
    })?;
    let report = diff_report(&before, &after, &args.programs, difference);
    output::deliver(&report, &args.report, terminal::Stream::Stdout)?;
    Ok(exit::of_verdict(report.verdict))
}
