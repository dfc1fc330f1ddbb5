use auditor::actions::{Obstacle, Premise, Remains, Target};
use auditor::clean::Failure;
use auditor::facts::Process;

use super::*;

const STAYS: &str =
    "the program stays loaded, though attached no more, until process 7 (x) closes it";
const OUT_OF_SIGHT: &str = "something out of sight keeps it: end it there";

fn step(action: Action) -> Step {
    let id = ProgramId(41);
    let identity = kernel::ProgramIdentity { id, tag: String::new(), loaded_at_ns: 0 };
    let target = Target { identity, name: "x".to_owned() };
    Step {
        finding: Finding::OrphanedAttachment,
        program: Some(target),
        premise: Premise::OwnerGone,
        action,
        remains: Some(Remains::Program(vec![Process { pid: 7, comm: "x".to_owned() }])),
    }
}

fn detach() -> Step {
    step(Action::DetachLegacy {
        cgroup: "/a".into(),
        cgroup_id: CgroupId(7),
        attach_type: AttachType::INET_EGRESS,
    })
}

fn cannot() -> Step {
    step(Action::Cannot(Obstacle::KeptOutOfSight))
}

fn done(outcome: Outcome) -> Done {
    Done { leak: "program 41 on /a".to_owned(), step: Some(detach()), outcome }
}

#[test]
fn what_became_of_a_step_is_told_with_its_reason() {
    let cases = [
        (Outcome::Removed, CleanOutcome::Removed, STAYS),
        (Outcome::Gone("gone".to_owned()), CleanOutcome::Gone, "gone"),
        (Outcome::Left(Obstacle::KeptOutOfSight), CleanOutcome::Left, OUT_OF_SIGHT),
        (
            Outcome::Failed(Failure::StillThere),
            CleanOutcome::Failed,
            "the kernel reports success, but it is still there",
        ),
    ];
    let mut steps = Vec::new();
    for (outcome, told, why) in cases {
        let step = CleanStep::done(&done(outcome), false);
        assert_eq!((step.outcome, step.why.as_deref()), (told, Some(why)));
        assert_eq!((step.action, &*step.about), (CleanAction::DetachProgram, "program 41 on /a"));
        assert_eq!(
            (step.program_id, step.attach_type),
            (Some(ProgramId(41)), Some(AttachType::INET_EGRESS))
        );
        steps.push(step);
    }
    steps.push(CleanStep::planned(&detach(), true));
    let all = CleanSummary { removed: 1, gone: 1, left: 1, failed: 1, planned: 1 };
    assert_eq!(CleanSummary::of(&steps), all);
}

#[test]
fn what_cannot_be_done_is_left_and_never_planned() {
    let told = CleanStep::planned(&cannot(), false);
    assert_eq!((told.outcome, told.why.as_deref()), (CleanOutcome::Left, Some(OUT_OF_SIGHT)));
    assert_eq!(told.action, CleanAction::Nothing);
    let told = CleanStep::declined(&cannot(), false);
    assert_eq!(told.why.as_deref(), Some(OUT_OF_SIGHT));
    let told = CleanStep::declined(&detach(), false);
    assert_eq!(
        (told.outcome, told.why.as_deref()),
        (CleanOutcome::Left, Some("nobody agreed to it"))
    );
}

#[test]
fn a_leak_that_is_none_any_more_has_no_program() {
    let outcome = Outcome::Gone("it is no longer a leak: left alone".to_owned());
    let told = CleanStep::done(&Done { leak: "x".to_owned(), step: None, outcome }, false);
    assert_eq!((told.finding, told.program_id, told.outcome), (None, None, CleanOutcome::Gone));
}

#[test]
fn a_path_that_is_no_text_is_written_as_its_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(b"/a\xff".to_vec());
    let pin = step(Action::Unpin {
        path: path.into(),
        object: auditor::facts::Object::Program(ProgramId(41)),
    });
    let written = serde_json::to_value(CleanStep::planned(&pin, false)).unwrap();
    assert_eq!(written["pin"], serde_json::json!({ "hex": "2f61ff" }));
    assert_eq!(written["cgroup"], serde_json::Value::Null);
}

#[test]
fn so_many_steps_came_to_each_outcome() {
    let steps = |outcome: CleanOutcome, count: usize| {
        (0..count).map(move |_| CleanStep { outcome, ..CleanStep::planned(&detach(), false) })
    };
    let all = steps(CleanOutcome::Removed, 1)
        .chain(steps(CleanOutcome::Gone, 2))
        .chain(steps(CleanOutcome::Left, 3))
        .chain(steps(CleanOutcome::Failed, 4))
        .chain(steps(CleanOutcome::Planned, 5));
    let expected = CleanSummary { removed: 1, gone: 2, left: 3, failed: 4, planned: 5 };
    assert_eq!(CleanSummary::of(&all.collect::<Vec<_>>()), expected);
}
