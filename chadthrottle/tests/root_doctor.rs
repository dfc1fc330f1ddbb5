//! What the program says of queueing disciplines and of a cgroup's lists, on the real kernel.

use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use kernel::AttachType;
use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, MAX_PROGRAMS, Scope, query};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::leak::plant_named;
use testkit::process::{Mortal, soon};

const EGRESS: AttachType = AttachType::INET_EGRESS;
const INGRESS: AttachType = AttachType::INET_INGRESS;

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

fn can(words: &str) -> bool {
    let words: Vec<_> = words.split(' ').collect();
    Command::new(words[0]).args(&words[1..]).output().unwrap().status.success()
}

#[test]
fn root_the_doctor_says_how_limits_are_held_and_what_would_make_them_better() {
    with_a_device();
    let text = program(&["doctor"]).assert().success();
    let advice = if can("tc qdisc add dev lo root fq") {
        "on chadtest0 (tc qdisc replace"
    } else {
        "on chadtest0; this kernel has no fq"
    };
    text.stdout(contains("packet programs").and(contains(advice)));
    let output = program(&["doctor", "--format", "json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema_version"], 1);
    let fq = json["checks"].as_array().unwrap().iter().find(|it| it["what"] == "fq").unwrap();
    assert_eq!(fq["grade"], "lesser", "{fq}");
}

#[test]
fn root_of_a_cgroup_the_doctor_looks_at_the_devices_of_its_processes() {
    with_a_device();
    let cgroup = ScratchCgroup::new("theirs");
    let child = {
        let _inside = cgroup.enter();
        Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap()
    };
    let child = Mortal::from(child);
    let network = format!("/proc/{}/ns/net", child.id());
    let of = |path: &str| std::fs::read_link(path).unwrap();
    soon("it has a network of its own", || of(&network) != of("/proc/thread-self/ns/net"));
    let inside = format!("nsenter --net={network}");
    assert!(can(&format!("{inside} ip link add chadtest8 type veth peer name chadtest9")));
    assert!(can(&format!("{inside} ip link set chadtest8 up")));
    assert!(can(&format!("{inside} tc qdisc replace dev chadtest8 root pfifo")));
    let (_, json, _) = doctor_of(cgroup.path());
    let fq = json["checks"].as_array().unwrap().iter().find(|it| it["what"] == "fq").unwrap();
    let said = fq.to_string();
    assert!(said.contains("chadtest8") && !said.contains("chadtest0"), "{fq}");
}

#[test]
fn root_the_doctor_does_not_say_ok_without_rights_or_of_a_cgroup_that_is_not_there() {
    let program = env!("CARGO_BIN_EXE_chadthrottle");
    let mut denied = Command::new("setpriv");
    denied.args(["--bounding-set=-all", "--inh-caps=-all", program, "doctor"]);
    // What may not be known is neither there nor missing.
    let said = contains("?").and(contains("CAP_NET_ADMIN is missing")).and(contains("NO").not());
    denied.assert().code(2).stdout(said);
    let mut none = Command::new(program);
    none.args(["doctor", "--cgroup", "/chadtest-none"]).assert().code(64);
}

#[test]
fn root_who_insists_on_fq_is_told_that_there_is_none() {
    with_a_device();
    let cgroup = ScratchCgroup::new("nofq");
    let on = cgroup.path().to_str().unwrap();
    let limit = ["limit", "--cgroup", on, "--upload", "1M", "--duration", "1ms", "--departures"];
    program(&[&limit[..], &["fq"]].concat()).assert().failure().stderr(
        if can("tc qdisc add dev lo root fq") {
            contains("tc qdisc replace dev DEVICE root fq")
        } else {
            contains("this kernel has no fq (CONFIG_NET_SCH_FQ)")
        },
    );
    program(&[&limit[..], &["auto"]].concat()).assert().success();
}

fn shown(cgroup: &Path) -> &str {
    cgroup.to_str().unwrap()
}

fn fill(cgroup: &Path, attach_type: AttachType) {
    let open = Cgroup::open(cgroup).unwrap();
    for _ in query(&open, attach_type, Scope::Local, false).unwrap().programs.len()..MAX_PROGRAMS {
        plant_named("chadtest_fill", cgroup, attach_type, AttachFlags::MULTI).unwrap();
    }
}

/// The doctor's answer for a cgroup: its status, its JSON, and of each list the grade.
fn doctor_of(cgroup: &Path) -> (Option<i32>, Value, Vec<String>) {
    let output =
        program(&["doctor", "--cgroup", shown(cgroup), "--format", "json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let schema =
        serde_json::from_str(include_str!("../../docs/schema/doctor.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&json).map(|it| it.to_string()).collect();
    assert_eq!(errors, [""; 0], "{json:#}");
    let grade = |what: &str| {
        let checks = json["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["what"] == what).unwrap();
        check["grade"].as_str().unwrap().to_owned()
    };
    let grades = ["downloads there", "uploads there", "TCP there"].map(grade);
    (output.status.code(), json, grades.to_vec())
}

/// The directions that it says how a limit would be held in.
fn directions(json: &Value) -> Vec<&str> {
    let limits = json["limits"].as_array().unwrap().iter();
    limits.map(|it| it["traffic"].as_str().unwrap().split(',').next().unwrap()).collect()
}

fn list<'a>(json: &'a Value, attach_type: &str) -> &'a Value {
    let lists = json["cgroup"]["lists"].as_array().unwrap();
    lists.iter().find(|list| list["attach_type"] == attach_type).unwrap()
}

#[test]
fn root_the_doctor_says_of_a_cgroup_whether_a_limit_can_be_held_there_and_so_does_its_status() {
    isolate();
    let scratch = ScratchCgroup::new("doctor");
    let app = scratch.child("app");
    let (status, json, grades) = doctor_of(&app);
    assert_eq!(grades, ["ok"; 3], "{json:#}");
    assert_eq!(status, Some(0), "{json:#}");
    assert_eq!(json["cgroup"]["path"], shown(&app));

    // Full.
    fill(&app, INGRESS);
    let (status, json, grades) = doctor_of(&app);
    assert_eq!((status, grades[0].as_str(), grades[1].as_str()), (Some(1), "missing", "ok"));
    assert_eq!(directions(&json), ["upload", "upload"], "{json:#}");
    let said = program(&["doctor", "--cgroup", shown(&app)]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said, "error: no download limit can be held there\n");
    let ingress = list(&json, "cgroup_inet_ingress");
    assert_eq!(
        (&ingress["room"], &ingress["used"], &ingress["takes"]),
        (&"full".into(), &64.into(), &64.into())
    );

    // A program above that yields, and one that takes the place for itself.
    for (flags, room, mode) in [
        (AttachFlags::OVERRIDE, "displaces", "override"),
        (AttachFlags::empty(), "exclusive", "exclusive"),
    ] {
        let scratch = ScratchCgroup::new("doctorabove");
        let app = scratch.child("app");
        let id = plant_named("chadtest_fw", scratch.path(), EGRESS, flags).unwrap();
        let (status, json, grades) = doctor_of(&app);
        assert_eq!((status, grades[1].as_str()), (Some(1), "missing"), "{json:#}");
        let egress = list(&json, "cgroup_inet_egress");
        assert_eq!((&egress["room"], &egress["mode"]), (&room.into(), &"empty".into()));
        let above = &egress["above"][0];
        assert_eq!((&above["mode"], &above["programs"][0]["id"]), (&mode.into(), &id.0.into()));
        assert_eq!(above["programs"][0]["name"], "chadtest_fw");
        let text = program(&["doctor", "--cgroup", shown(&app)]).output().unwrap();
        let said = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(said.contains(&format!("program {id} 'chadtest_fw' of ")), "{said}");
    }

    // One for TCP: a limit is held without.
    let scratch = ScratchCgroup::new("doctortcp");
    plant_named("chadtest_tcp", scratch.path(), AttachType::SOCK_OPS, AttachFlags::empty())
        .unwrap();
    let (status, json, grades) = doctor_of(scratch.path());
    assert_eq!((status, grades[2].as_str()), (Some(0), "lesser"), "{json:#}");
    assert_eq!(json["limits"][0]["how"], "dropped above the limit", "{json:#}");
    assert_eq!(directions(&json), ["upload", "upload", "download", "download"]);
}
