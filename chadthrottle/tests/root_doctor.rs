//! What the program says of queueing disciplines, on the real kernel.

use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use vmtests::cgroup::ScratchCgroup;
use vmtests::isolation::isolate;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle"));
    command.args(args);
    command
}

/// A network with one device, which has a queueing discipline that every kernel here knows.
fn with_a_device() {
    isolate();
    for words in [
        "ip link add chadtest0 type veth peer name chadtest1",
        "ip link set chadtest0 up",
        "tc qdisc replace dev chadtest0 root pfifo",
    ] {
        let words: Vec<_> = words.split(' ').collect();
        Command::new(words[0]).args(&words[1..]).assert().success();
    }
}

#[test]
fn root_the_doctor_says_how_limits_are_held_and_what_would_make_them_better() {
    with_a_device();
    let text = program(&["doctor"]).assert().success();
    text.stdout(contains("packet programs").and(contains("on chadtest0 (tc qdisc replace")));
    let output = program(&["doctor", "--format", "json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema_version"], 1);
    let fq = json["checks"].as_array().unwrap().iter().find(|it| it["what"] == "fq").unwrap();
    assert_eq!(fq["grade"], "lesser", "{fq}");
}

#[test]
fn root_the_doctor_does_not_say_ok_without_rights_or_of_a_cgroup_that_is_not_there() {
    let program = env!("CARGO_BIN_EXE_chadthrottle");
    let mut denied = Command::new("setpriv");
    denied.args(["--bounding-set=-all", "--inh-caps=-all", program, "doctor"]);
    denied.assert().code(1).stdout(contains("CAP_BPF is missing"));
    let mut none = Command::new(program);
    none.args(["doctor", "--cgroup", "/chadtest-none"]).assert().code(64);
}

#[test]
fn root_who_insists_on_fq_is_told_that_there_is_none() {
    with_a_device();
    let cgroup = ScratchCgroup::new("nofq");
    let on = cgroup.path().to_str().unwrap();
    let limit = ["limit", "--cgroup", on, "--upload", "1M", "--duration", "1ms", "--departures"];
    program(&[&limit[..], &["fq"]].concat())
        .assert()
        .failure()
        .stderr(contains("tc qdisc replace dev DEVICE root fq"));
    program(&[&limit[..], &["auto"]].concat()).assert().success();
}
