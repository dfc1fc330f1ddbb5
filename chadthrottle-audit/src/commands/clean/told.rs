//! Reports the steps of `clean`: one by one as text, or all at the end as JSON.

use auditor::actions::Step;
use auditor::clean::Done;
use auditor::facts::Snapshot;
use auditor::judge::Classified;
use auditor::report::{Report, report};
use terminal::{Stream, print};

use super::{intent, line};
use crate::cli::{Clean, CleanFormat};
use crate::documents::{CleanReport, CleanStep};
use crate::formats::Rendition;

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

    /// Reports a step that a dry run would take.
    pub(super) fn planned(&mut self, step: &Step, is_forced: bool) {
        self.steps.push(CleanStep::planned(step, is_forced));
        self.line(|| intent(step));
    }

    /// Reports a step that the user declined. The text omits it, because the user knows.
    pub(super) fn declined(&mut self, step: &Step, is_forced: bool) {
        self.steps.push(CleanStep::declined(step, is_forced));
    }

    /// Reports the result of a step.
    pub(super) fn done(&mut self, done: &Done, is_forced: bool) {
        self.steps.push(CleanStep::done(done, is_forced));
        self.line(|| line(done));
    }

    /// Prints a line. Cleaning continues even if nobody can read it.
    fn line(&mut self, line: impl FnOnce() -> String) {
        if self.format == CleanFormat::Text && self.printed.is_ok() {
            self.printed = print(&format!("{}\n", line()));
        }
    }

    /// Returns an error if some lines could not be printed.
    pub(super) fn printed(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.printed, Ok(()))
    }

    /// Ends the report with the verdict of a scan after the steps.
    pub(super) fn end_after_acts(
        self,
        snapshot: &Snapshot,
        classified: &Classified<'_>,
    ) -> anyhow::Result<()> {
        if self.format == CleanFormat::Text {
            print("\n")?;
        }
        self.end(snapshot, classified)
    }

    /// Ends the report if the user declined everything. The text then has nothing to add.
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

    fn report(self, scan: Report) -> CleanReport {
        CleanReport::new(self.is_dry_run, self.steps, scan)
    }

    /// Ends the report with the verdict.
    pub(super) fn end(
        mut self,
        snapshot: &Snapshot,
        classified: &Classified<'_>,
    ) -> anyhow::Result<()> {
        self.printed()?;
        let scan = report(snapshot, classified, false);
        match self.format {
            CleanFormat::Text => print(&scan.text(Stream::Stdout.medium())),
            CleanFormat::Json => {
                let report = self.report(scan);
                print(&(serde_json::to_string_pretty(&report)? + "\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use auditor::actions::{Action, Obstacle, Premise, Target};
    use auditor::clean::{Failure, Outcome};
    use auditor::facts::{DeviceFact, Object};
    use auditor::judge::{Finding, classify};
    use clap::Parser;
    use kernel::{AttachType, CgroupId, LinkId, ProgramId};
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    fn told(arguments: &[&str]) -> Told {
        let all = [&["chadthrottle-audit", "clean", "--format", "json"], arguments].concat();
        let Command::Clean(args) = Cli::try_parse_from(all).unwrap().command else {
            unreachable!("it is clean")
        };
        Told::new(&args)
    }

    fn step(action: Action) -> Step {
        let (id, tag) = (ProgramId(41), "0".repeat(16));
        let identity = kernel::ProgramIdentity { id, tag, loaded_at_ns: 1 };
        let program = Target { identity, name: "chadthrottle_in".to_owned() };
        let (finding, premise) = (Finding::OrphanedPin, Premise::OwnerGone);
        Step { finding, program: Some(program), premise, action, remains: None }
    }

    fn unpin() -> Step {
        let object = Object::Program(ProgramId(41));
        step(Action::Unpin { path: "/sys/fs/bpf/x".into(), object })
    }

    fn done(outcome: Outcome) -> Done {
        Done { leak: "program 41".to_owned(), step: Some(unpin()), outcome }
    }

    fn written(told: Told) -> serde_json::Value {
        let active = include_str!("../../../../auditor/tests/snapshots-in/active.json");
        let snapshot: Snapshot = serde_json::from_str(active).unwrap();
        let scan = report(&snapshot, &classify(&snapshot), false);
        serde_json::to_value(told.report(scan)).unwrap()
    }

    #[test]
    fn every_step_is_in_the_json_with_what_became_of_it_also_beside_others_that_went_well() {
        let mut told = told(&["--yes"]);
        told.done(&done(Outcome::Failed(Failure::StillThere)), false);
        told.done(&done(Outcome::Removed), false);
        told.done(&done(Outcome::Left(Obstacle::KeptOutOfSight)), true);
        told.declined(&unpin(), true);
        told.done(&done(Outcome::Gone("gone".to_owned())), true);
        let written = written(told);
        let steps = written["steps"].as_array().unwrap().iter();
        let steps: Vec<_> = steps
            .map(|step| {
                let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
                (text("outcome"), step["forced"] == true, text("why"))
            })
            .collect();
        let still = Failure::StillThere.to_string();
        let expected = [
            ("failed", false, &*still),
            ("removed", false, ""),
            ("left", true, "something out of sight keeps it: end it there"),
            ("left", true, "nobody agreed to it"),
            ("gone", true, "gone"),
        ];
        assert_eq!(
            steps,
            expected.map(|(it, forced, why)| (it.to_owned(), forced, why.to_owned()))
        );
        let counts =
            serde_json::json!({"removed": 1, "gone": 1, "left": 2, "failed": 1, "planned": 0});
        assert_eq!((&written["summary"], &written["dry_run"]), (&counts, &false.into()));
    }

    #[test]
    fn a_dry_run_plans_everything_and_does_nothing() {
        let mut told = told(&["--dry-run"]);
        told.planned(&unpin(), false);
        told.planned(&step(Action::Cannot(Obstacle::KeptOutOfSight)), true);
        let written = written(told);
        assert_eq!(
            (&written["dry_run"], &written["summary"]["planned"]),
            (&true.into(), &1.into())
        );
        assert_eq!(written["summary"]["left"], 1);
    }

    #[test]
    fn a_line_says_what_became_of_a_step_and_what_it_is_about() {
        let about = "/sys/fs/bpf/x, which holds program 41 (chadthrottle_in)";
        let cases = [
            (Outcome::Removed, format!("unpinned {about}")),
            (Outcome::Gone("gone".to_owned()), format!("nothing to do for {about}: gone")),
            (
                Outcome::Left(Obstacle::KeptOutOfSight),
                format!("cannot remove {about}: something out of sight keeps it: end it there"),
            ),
            (
                Outcome::Failed(Failure::StillThere),
                format!("FAILED to unpin {about}: {}", Failure::StillThere),
            ),
        ];
        for (outcome, expected) in cases {
            assert_eq!(line(&done(outcome)), expected);
        }
        let outcome = Outcome::Failed(Failure::StillThere);
        let unjudged = Done { leak: "program 7 on /a".to_owned(), step: None, outcome };
        assert!(line(&unjudged).starts_with("FAILED to detach program 7 on /a: "));
    }

    /// Checks that each kind of step appears with its place, in the JSON and in the line for people.
    #[test]
    fn each_step_is_told_with_its_place_and_its_verb() {
        let device = DeviceFact {
            network_namespace: 9,
            namespace_path: None,
            index: 7,
            name: "chadq4711a".to_owned(),
            is_ifb: true,
            alias: None,
        };
        let (cgroup_id, attach_type) = (CgroupId(5), AttachType::INET_EGRESS);
        let program = "program 41 (chadthrottle_in)";
        let cases = [
            (
                Action::DetachLegacy { cgroup: "/a".into(), cgroup_id, attach_type },
                json!({"cgroup": "/a", "cgroup_id": 5, "attach_type": "cgroup_inet_egress"}),
                format!("detached {program} from /a, cgroup_inet_egress"),
            ),
            (
                Action::DetachLink { link: LinkId(3), cgroup_id, attach_type },
                json!({"cgroup_id": 5, "attach_type": "cgroup_inet_egress", "link_id": 3}),
                format!("detached {program}, link 3, from cgroup 5, cgroup_inet_egress"),
            ),
            (
                Action::DetachFromDevice { link: LinkId(3), device: 7 },
                json!({"link_id": 3, "device": 7}),
                format!("detached {program}, link 3, from network device 7"),
            ),
            (
                Action::RemoveDevice(device),
                json!({"device": 7}),
                "removed network device chadq4711a (7)".to_owned(),
            ),
            (
                Action::Unpin {
                    path: "/sys/fs/bpf/x".into(),
                    object: Object::Program(ProgramId(41)),
                },
                json!({"pin": "/sys/fs/bpf/x"}),
                format!("unpinned /sys/fs/bpf/x, which holds {program}"),
            ),
        ];
        for (action, places, expected) in cases {
            let step = Some(step(action));
            let done = Done { leak: "it".to_owned(), step, outcome: Outcome::Removed };
            assert_eq!(line(&done), expected);
            let mut told = told(&["--yes"]);
            told.done(&done, false);
            let written = &written(told)["steps"][0];
            for key in ["cgroup", "cgroup_id", "attach_type", "link_id", "device", "pin"] {
                assert_eq!(written[key], places[key], "{key}: {expected}");
            }
        }
    }
}
