//! What `clean` tells of its steps: each as it is taken, as text; or all in the end, as JSON.

use super::super::output::{self, Stream};
use super::{intent, line};
use crate::classify::Classified;
use crate::clean::{CleanReport, CleanStep, Done};
use crate::cli::{Clean, CleanFormat};
use crate::formats::Rendition;
use crate::plan::Step;
use crate::report::report;
use crate::snapshot::Snapshot;

pub(super) struct Told {
    format: CleanFormat,
    is_dry_run: bool,
    steps: Vec<CleanStep>,
    printed: anyhow::Result<()>,
}

impl Told {
    pub(super) fn new(args: &Clean) -> Self {
        let (format, is_dry_run) = (args.format, args.dry_run);
        Self { format, is_dry_run, steps: Vec::new(), printed: Ok(()) }
    }

    /// A step that would be taken.
    pub(super) fn planned(&mut self, step: &Step, is_forced: bool) {
        self.steps.push(CleanStep::planned(step, is_forced));
        self.line(|| intent(step));
    }

    /// A step that nobody agreed to: people have just said so themselves.
    pub(super) fn declined(&mut self, step: &Step, is_forced: bool) {
        self.steps.push(CleanStep::declined(step, is_forced));
    }

    /// What became of a step.
    pub(super) fn done(&mut self, done: &Done, is_forced: bool) {
        self.steps.push(CleanStep::done(done, is_forced));
        self.line(|| line(done));
    }

    /// Cleaning goes on though nobody may be reading.
    fn line(&mut self, line: impl FnOnce() -> String) {
        if self.format == CleanFormat::Text && self.printed.is_ok() {
            self.printed = output::print(&format!("{}\n", line()));
        }
    }

    /// Whether all lines could be printed.
    pub(super) fn printed(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.printed, Ok(()))
    }

    /// The end, with the verdict of a scan that was made after the steps.
    pub(super) fn end_after_acts(
        self,
        snapshot: &Snapshot,
        classified: &Classified<'_>,
    ) -> anyhow::Result<()> {
        if self.format == CleanFormat::Text {
            output::print("\n")?;
        }
        self.end(snapshot, classified)
    }

    /// The end where people have declined everything: text has nothing to add.
    pub(super) fn nothing_done(
        self,
        snapshot: &Snapshot,
        classified: &Classified<'_>,
    ) -> anyhow::Result<()> {
        match self.format {
            CleanFormat::Text => Ok(()),
            CleanFormat::Json => self.end(snapshot, classified),
        }
    }

    /// The end, with the verdict.
    pub(super) fn end(
        mut self,
        snapshot: &Snapshot,
        classified: &Classified<'_>,
    ) -> anyhow::Result<()> {
        self.printed()?;
        let scan = report(snapshot, classified, false);
        match self.format {
            CleanFormat::Text => output::print(&scan.text(Stream::Stdout.medium())),
            CleanFormat::Json => {
                let report = CleanReport::new(self.is_dry_run, self.steps, scan);
                output::print(&(serde_json::to_string_pretty(&report)? + "\n"))
            }
        }
    }
}
