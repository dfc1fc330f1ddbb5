//! The model of the kernel beside the kernel that runs.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::LinuxBpf;
use vmtests::cgroup::ScratchCgroup;
use vmtests::differential::{
    Budget, Call, Compared, Difference, Regression, compare, replay, search,
};
use vmtests::gate::report::{Agreement, Report};
use vmtests::model::{Model, Version};

const PINS: &str = "/sys/fs/bpf/chadtest-differential";

type Result = std::result::Result<Compared, Box<Difference>>;

/// Runs each sequence on two models.
fn models(one: Version, other: Version) -> impl FnMut(&[Call], Duration) -> Result {
    move |calls, _| {
        let (root, pins) = (Path::new("/cgroup"), Path::new(PINS));
        let boot = |version| Model::boot(version, root, pins);
        compare(boot(one), boot(other), &root.join("run"), pins, calls, Duration::ZERO)
    }
}

/// What to say of a difference, with the calls as they are kept in `regressions/differential`.
fn told(found_by: &str, difference: &Difference) -> String {
    let calls = difference.calls.iter().map(|(call, _)| call.clone()).collect();
    let kept = serde_json::to_string_pretty(&Regression { why: String::new(), calls });
    let json = kept.expect("calls are JSON");
    let file = std::env::temp_dir().join(format!("differential-{}.json", std::process::id()));
    let file = match std::fs::write(&file, &json) {
        Ok(()) => file.display().to_string(),
        Err(_) => "FILE (which has that JSON)".to_owned(),
    };
    format!(
        "the two machines differ ({found_by}):\n{difference}\n{json}\nto see it again: cp {file} \
         vmtests/regressions/differential/ && scripts/test root -E 'binary(differential)'"
    )
}

/// Tries the sequences that are kept.
fn replayed(compare: impl FnMut(&[Call], Duration) -> Result) -> usize {
    replay(compare).unwrap_or_else(|differences| {
        let told = differences.iter().map(|(name, difference)| format!("{name}:\n{difference}"));
        panic!("the two machines differ in sequences that are kept:\n{}", told.collect::<String>())
    })
}

#[test]
fn root_the_model_agrees_with_this_kernel() {
    let version = Version::running();
    let budget = Budget::from_env(12);
    println!("Linux {version}, GATE_SEED={}", budget.seed);
    vmtests::isolation::isolate();
    // Declared before anything that lies in it, so it is dropped last.
    let scratch = ScratchCgroup::new("differential");
    let kernel = LinuxBpf::new().expect("the kernel is asked what it can do");
    let (count, counted) = (Cell::new(0), Cell::new(0));
    let mut beside = |calls: &[Call], later: Duration| {
        count.set(count.get() + 1);
        let root: PathBuf = scratch.path().join(count.get().to_string());
        let model = Model::boot(version, scratch.path(), Path::new(PINS));
        let compared = compare(model, kernel, &root, Path::new(PINS), calls, later)?;
        counted.set(counted.get() + u64::try_from(compared.calls).unwrap_or(u64::MAX));
        Ok(compared)
    };
    let replayed = replayed(&mut beside);
    let report = search(budget, beside).unwrap_or_else(|(sequences, difference)| {
        let found_by = format!("sequence {sequences}, GATE_SEED={}", budget.seed);
        panic!("{}", told(&found_by, &difference))
    });
    println!("model and Linux {version} agree: {replayed} kept sequences, then {report}");
    let (machine, calls) = (Report::this_kernel(), counted.get());
    println!("{}", Agreement { machine, sequences: count.get(), calls });
}

#[test]
fn two_models_of_one_version_agree() {
    for version in [Version::OLDEST, Version::new(6, 1), Version::new(6, 12), Version::NEWEST] {
        let mut beside = models(version, version);
        replayed(&mut beside);
        let budget = Budget { sequences: Some(200), ..Budget::from_env(60) };
        let report = search(budget, beside)
            .unwrap_or_else(|(_, difference)| panic!("{}", told("two models", &difference)));
        println!("two models of {version} agree: {report}");
    }
}

#[test]
fn models_of_two_versions_differ_and_what_shows_it_is_made_short() {
    let budget = Budget { seed: 1, ..Budget::from_env(60) };
    let (_, difference) = search(budget, models(Version::new(6, 12), Version::new(6, 18)))
        .expect_err("since 6.17 lists have revisions");
    println!("{difference}");
    assert_eq!(difference.calls.len(), 1, "{difference}");
}
