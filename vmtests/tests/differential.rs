//! The model of the kernel beside the kernel that runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use vmtests::again::Replay;
use vmtests::differential::{Beside, Budget, Call, Found, Outcome, models, replay, search};
use vmtests::gate::report::{Agreement, Report};
use vmtests::model::Version;

/// Two models are compared, not model and kernel.
fn on_models(rules: Version) -> Replay {
    Replay { rules: Some(rules), ..Replay::default() }
}

fn on_kernel() -> Replay {
    Replay { on_kernel: true, ..Replay::default() }
}

/// Tries the sequences that are kept.
fn replayed(again: &Replay, compare: impl FnMut(&[Call], Duration) -> Outcome) -> usize {
    replay(compare).unwrap_or_else(|differences| {
        let told = differences.iter().map(|(file, difference)| {
            let again = Replay { file: Some(file.clone()), ..again.clone() };
            format!("{difference}{}", again.last_lines("see the file", None))
        });
        panic!("the two machines differ in sequences that are kept:\n{}", told.collect::<String>())
    })
}

#[test]
fn root_the_model_agrees_with_this_kernel() {
    let version = Version::running();
    let budget = Budget::from_env(12);
    println!("Linux {version}, GATE_SEED={}", budget.seed);
    let mut beside = Beside::new().expect("the kernel is asked what it can do");
    let replayed = replayed(&on_kernel(), |calls, later| beside.compare(calls, later));
    let report =
        search(budget, |calls, later| beside.compare(calls, later)).unwrap_or_else(|found| {
            let name = format!("model-and-kernel-{}", budget.seed);
            let told = found.told(&name, on_kernel());
            let Found { sequences, .. } = *found;
            panic!(
                "model and kernel differ (sequence {sequences}, GATE_SEED={}):\n{told}",
                budget.seed
            )
        });
    println!("model and Linux {version} agree: {replayed} kept sequences, then {report}");
    let Beside { sequences, calls, .. } = beside;
    println!("{}", Agreement { machine: Report::this_kernel(), sequences, calls });
}

#[test]
fn two_models_of_one_version_agree() {
    for version in [Version::OLDEST, Version::new(6, 1), Version::new(6, 12), Version::NEWEST] {
        let mut beside = models(version, version);
        replayed(&on_models(version), &mut beside);
        let budget = Budget { sequences: Some(200), ..Budget::from_env(60) };
        let report = search(budget, beside).unwrap_or_else(|found| {
            let name = format!("two-models-{version}-{}", budget.seed);
            panic!("two models of {version} differ:\n{}", found.told(&name, on_models(version)))
        });
        println!("two models of {version} agree: {report}");
    }
}

/// Of the sequences that are kept, just those differ in which such a build refuses an update.
#[test]
fn strict_updates_refuse_other_storage_and_what_could_not_be_attached() {
    let strict = Version::NEWEST.strict_updates(true);
    let differences = replay(models(Version::NEWEST, strict)).unwrap_err();
    let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
    let refused: BTreeSet<_> = differences.iter().map(|(file, _)| name(file)).collect();
    let expected = [
        "between-loads",
        "from-storage",
        "to-another-attach-type",
        "to-other-storage",
        "within-a-load",
    ];
    assert_eq!(refused, expected.map(|it| format!("update-{it}")).into());
}

#[test]
fn models_of_two_versions_differ_and_what_shows_it_is_made_short() {
    let budget = Budget { seed: 1, ..Budget::from_env(60) };
    let found = search(budget, models(Version::new(6, 12), Version::new(6, 18)))
        .expect_err("since 6.17 lists have revisions");
    let difference = &found.difference;
    println!("{difference}");
    assert_eq!(difference.calls.len(), 1, "{difference}");
}
