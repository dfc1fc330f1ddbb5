//! Compares the model with the running kernel, and models with each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use sim::Version;
use sim::differential::{
    AGAIN, Beside, Budget, Call, Found, Outcome, folder, models, replay, search,
};
use testkit::cgroup::ScratchCgroup;
use testkit::env::number;
use testkit::isolation::isolate;
use testkit::replay::{Again, Replay, keep};
use testkit::results::{self, Agreement, Done, Machine, Test};

/// What the environment asks for: `GATE_SEED` (else from the clock), `PROPTEST_CASES` (else as many as the time allows)
/// and `GATE_SECONDS` (else `seconds`).
fn budget(seconds: u64) -> Budget {
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| u64::from(time.subsec_nanos()));
    Budget {
        seed: number("GATE_SEED").unwrap_or(clock),
        sequences: number("PROPTEST_CASES"),
        time: Duration::from_secs(number("GATE_SECONDS").unwrap_or(seconds)),
    }
}

/// Keeps a sequence that differs, and says all that is to be said of it.
fn reported(found: &Found, found_by: &str, replay: Replay) -> String {
    let kept = found.regression();
    let pretty = serde_json::to_string_pretty(&kept).unwrap_or_default() + "\n";
    let file = keep(&folder(), &format!("{found_by}.json"), &pretty).ok();
    let json = serde_json::to_string(&kept).unwrap_or_default();
    let again = Some(Again { runs: AGAIN, failed: found.again });
    let replay = Replay { file, ..replay };
    write_failure(&replay, again);
    format!("{found}{}", replay.last_lines(&json, again))
}

/// Writes a difference from the running kernel as the result of the test.
fn write_failure(replay: &Replay, again: Option<Again>) {
    if replay.on_kernel {
        results::write(Test::ModelBesideKernel, Done::Failed(replay.repeat(again)));
    }
}

/// Two models are compared, not model and kernel.
fn on_models(rules: Version) -> Replay {
    Replay { rules: Some(rules.to_string()), ..Replay::default() }
}

fn on_kernel() -> Replay {
    Replay { on_kernel: true, ..Replay::default() }
}

/// Tries the sequences that are kept.
fn replayed(again: &Replay, compare: impl FnMut(&[Call], Duration) -> Outcome) -> usize {
    replay(compare).unwrap_or_else(|differences| {
        let reports = differences.iter().map(|(file, difference)| {
            let again = Replay { file: Some(file.clone()), ..again.clone() };
            write_failure(&again, None);
            format!("{difference}{}", again.last_lines("see the file", None))
        });
        panic!(
            "the two machines differ in sequences that are kept:\n{}",
            reports.collect::<String>()
        )
    })
}

#[test]
fn root_the_model_agrees_with_this_kernel() {
    let version = Version::running();
    let budget = budget(12);
    println!("Linux {version}, GATE_SEED={}", budget.seed);
    isolate();
    let scratch = ScratchCgroup::new("differential");
    let mut beside = Beside::new(scratch.path()).expect("the kernel says what it can do");
    let replayed = replayed(&on_kernel(), |calls, later| beside.compare(calls, later));
    let report =
        search(budget, |calls, later| beside.compare(calls, later)).unwrap_or_else(|found| {
            let name = format!("model-and-kernel-{}", budget.seed);
            let report = reported(&found, &name, on_kernel());
            let Found { sequences, .. } = *found;
            panic!(
                "model and kernel differ (sequence {sequences}, GATE_SEED={}):\n{report}",
                budget.seed
            )
        });
    println!("model and Linux {version} agree: {replayed} kept sequences, then {report}");
    let Beside { sequences, calls, .. } = beside;
    let agreement = Agreement { machine: Machine::this_kernel(), sequences, calls };
    results::write(Test::ModelBesideKernel, Done::Agreement(agreement));
}

#[test]
fn two_models_of_one_version_agree() {
    for version in [Version::OLDEST, Version::new(6, 1), Version::new(6, 12), Version::NEWEST] {
        let mut beside = models(version, version);
        replayed(&on_models(version), &mut beside);
        let budget = Budget { sequences: Some(200), ..budget(60) };
        let report = search(budget, beside).unwrap_or_else(|found| {
            let name = format!("two-models-{version}-{}", budget.seed);
            panic!(
                "two models of {version} differ:\n{}",
                reported(&found, &name, on_models(version))
            )
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
    let budget = Budget { seed: 1, ..budget(60) };
    let found = search(budget, models(Version::new(6, 12), Version::new(6, 18)))
        .expect_err("since 6.17 lists have revisions");
    let difference = &found.difference;
    println!("{difference}");
    assert_eq!(difference.calls.len(), 1, "{difference}");
}
