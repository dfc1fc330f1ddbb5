//! Where something is not there that a limit can do without, or cannot: the cgroup2 hierarchy, the kernel's own types, a
//! capability.

use std::process::{Command, Output};

use kernel::AttachType;
use kernel::cgroup::{Cgroup, cgroup2_mount};
use kernel::list::{Scope, query};
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chadthrottle");

/// Runs the program in a mount namespace of its own, after a script there; `$MOUNT` is where cgroup2 is.
fn after(script: &str, args: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-euc", &format!("{script}; exec \"$@\""), "sh", PROGRAM]);
    command.args(args).env("MOUNT", cgroup2_mount().unwrap()).output().unwrap()
}

/// Runs the program as root without some capabilities (`-perfmon`).
fn lacking(capabilities: &str, args: &[&str]) -> Output {
    let bounding = format!("--bounding-set={capabilities}");
    let mut setpriv = Command::new("setpriv");
    setpriv.args([&bounding, "--inh-caps=-all", PROGRAM]).args(args).output().unwrap()
}

fn told(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]]
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .concat()
}

fn limit(cgroup: &ScratchCgroup) -> [&str; 7] {
    let on = cgroup.path().to_str().unwrap();
    ["limit", "--cgroup", on, "--upload", "1M", "--duration", "1ms"]
}

/// One check of `doctor --format json`.
fn check(output: &Output, what: &str) -> Value {
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap().clone();
    checks.into_iter().find(|check| check["what"] == what).unwrap()
}

const DOCTOR: &[&str] = &["doctor", "--format", "json"];

#[test]
fn root_without_the_hierarchy_every_command_ends_alike_and_says_the_same() {
    isolate();
    let cgroup = ScratchCgroup::new("covered");
    let pid = std::process::id().to_string();
    for (script, why) in [
        (r#"mount -t tmpfs none "$MOUNT""#, "but something else lies on top of it, so nobody"),
        (r#"umount --lazy "$MOUNT""#, "it is not mounted here, so nobody"),
    ] {
        let by_pid: &[&str] = &["limit", "--pid", &pid, "--upload", "1M", "--duration", "1ms"];
        for args in [&limit(&cgroup), by_pid, &["list"], &["doctor"], &["doctor", "--cgroup", "/x"]]
        {
            let output = after(script, args);
            let said = told(&output);
            assert_eq!(output.status.code(), Some(70), "{args:?}: {said}");
            assert!(said.contains("cannot find the cgroup2 hierarchy: "), "{args:?}: {said}");
            assert!(said.contains(why), "{args:?}: {said}");
            // One way to mount it, and that a right one.
            assert_eq!(said.matches("mount -t").count(), 1, "{args:?}: {said}");
            assert!(said.contains("(mount -t cgroup2 none DIRECTORY)"), "{args:?}: {said}");
            assert!(!said.contains("would do"), "{args:?}: {said}");
        }
        // The advice helps.
        let mended = format!("{script}; mount -t cgroup2 none /mnt");
        let output = after(&mended, &["list"]);
        // (Others may have something that cannot be seen from here.)
        assert!([Some(0), Some(2)].contains(&output.status.code()), "{script}: {}", told(&output));
        assert!(!told(&output).contains("hierarchy"), "{script}: {}", told(&output));
    }
}

#[test]
fn root_a_hierarchy_that_may_not_be_opened_is_told_of_by_the_right_that_is_missing() {
    isolate();
    let lock = r#"mkdir --parents /run/locked/m; mount -t cgroup2 none /run/locked/m; umount --lazy "$MOUNT"
        chown 65534 /run/locked; chmod 700 /run/locked
        exec setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-all "$@""#;
    for args in [&["list"][..], DOCTOR] {
        let output = after(lock, args);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot open the cgroup /run/locked/m: "), "{said}");
        assert!(said.contains("CAP_DAC_OVERRIDE is missing") && !said.contains("on top"), "{said}");
    }
}

#[test]
fn root_a_pinned_throttle_is_ended_also_where_the_hierarchy_is_not_to_be_seen() {
    isolate();
    let cgroup = ScratchCgroup::new("covered-pin");
    let on = cgroup.path().to_str().unwrap();
    let pinned = ["limit", "--cgroup", on, "--upload", "1M", "--attach", "pinned"];
    assert!(Command::new(PROGRAM).args(pinned).output().unwrap().status.success());
    let cover = r#"mount -t tmpfs none "$MOUNT""#;
    // That its cgroup is not there, nobody can tell.
    for args in [&["rearm"][..], &["rearm", "1"]] {
        let output = after(cover, args);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(70), "{said}");
        assert!(said.contains("cannot find the cgroup2 hierarchy: "), "{said}");
    }
    let output = after(cover, &["rm", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let open = Cgroup::open(cgroup.path()).unwrap();
    let left = query(&open, AttachType::INET_EGRESS, Scope::Local, false).unwrap();
    assert!(left.programs.is_empty(), "{left:?}");
}

#[test]
fn root_the_doctor_says_what_a_mount_shows_that_does_not_show_everything() {
    isolate();
    let cgroup = ScratchCgroup::new("part");
    let part = format!(
        r#"mkdir /run/part; mount --bind "{}" /run/part; umount --lazy "$MOUNT""#,
        cgroup.path().display()
    );
    let container = format!(r#"echo 0 >"{}/cgroup.procs""#, cgroup.path().display());
    let own = r#"umount --lazy "$MOUNT"; mount -t cgroup2 none "$MOUNT""#;
    let output = after(&part, DOCTOR);
    let found = check(&output, "cgroup2");
    assert_eq!(found["grade"], "lesser", "{found}");
    let says = found["says"].as_str().unwrap();
    assert!(says.starts_with("mounted on /run/part, ") && says.contains("a part of it"), "{says}");
    let own =
        format!(r#"{container}; exec unshare --cgroup -- sh -euc '{own}; exec "$@"' sh "$@""#);
    let output = after(&own, DOCTOR);
    let found = check(&output, "cgroup2");
    assert!(found["says"].as_str().unwrap().contains("a container's"), "{found}");
}

#[test]
fn root_a_limit_is_held_without_the_capability_to_monitor() {
    isolate();
    let cgroup = ScratchCgroup::new("perfmon");
    let lacks = "-perfmon,-sys_admin";
    let (limited, doctor) = (lacking(lacks, &limit(&cgroup)), lacking(lacks, DOCTOR));
    let said = told(&limited);
    let tcp = check(&doctor, "shaping TCP");
    let packets = check(&doctor, "packet programs");
    if limited.status.success() {
        assert!(said.contains("packets above the limit are dropped"), "{said}");
        assert_eq!((&packets["grade"], &tcp["grade"]), (&"ok".into(), &"lesser".into()));
        let open = check(&doctor, "open connections");
        assert_eq!(open["grade"], "lesser", "they are no better off: {open}");
        let why = tcp["says"].as_str().unwrap();
        assert!(why.contains("the kernel's verifier refused it; CAP_PERFMON is missing"), "{why}");
    } else {
        // An older verifier may take less from who lacks it. It says so, and asks for no other kernel.
        assert!(kernel::release::running() < Some((6, 18)), "{said}");
        assert!(said.contains("CAP_PERFMON is missing") && !said.contains("or newer"), "{said}");
        assert_eq!(packets["grade"], "unknown", "{packets}");
    }
}

#[test]
fn root_without_the_kernels_types_tcp_is_policed() {
    isolate();
    let cgroup = ScratchCgroup::new("types");
    let hide = "mount -t tmpfs none /sys/kernel/btf";
    let output = after(hide, &limit(&cgroup));
    let said = told(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("CONFIG_DEBUG_INFO_BTF") && said.contains("are dropped"), "{said}");
    let doctor = after(hide, DOCTOR);
    assert_eq!(check(&doctor, "packet programs")["grade"], "ok", "{}", told(&doctor));
    let tcp = check(&doctor, "shaping TCP");
    assert_eq!(tcp["grade"], "lesser", "{tcp}");
    let says = tcp["says"].as_str().unwrap();
    assert!(
        says.contains("this kernel does not tell its types") && !says.contains("BPF_"),
        "{says}"
    );
}

#[test]
fn root_where_fq_cannot_be_tried_that_is_unknown_and_it_is_not_recommended() {
    isolate();
    for words in ["ip link add chadtest0 type veth peer name chadtest1", "ip link set chadtest0 up"]
    {
        let words: Vec<_> = words.split(' ').collect();
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    }
    // Which makes no network namespaces.
    let doctor = lacking("-sys_admin", DOCTOR);
    assert_eq!(doctor.status.code(), Some(2), "{}", told(&doctor));
    let fq = check(&doctor, "fq");
    assert_eq!((&fq["grade"], &fq["advice"]), (&"unknown".into(), &Value::Null), "{fq}");
    let says = fq["says"].as_str().unwrap();
    assert!(says.contains("could not be tried") && says.contains("CAP_SYS_ADMIN"), "{says}");
}

#[test]
fn root_a_guard_without_the_right_to_trace_names_that_right_and_no_policy() {
    isolate();
    let scratch = ScratchCgroup::new("noguard");
    let app = scratch.child("app");
    let limit = ["limit", "--upload", "1M", "--duration", "1s", "--guard", "--cgroup"];
    let args = [&limit[..], &[app.to_str().unwrap()]].concat();
    let said = told(&lacking("-perfmon,-sys_admin", &args));
    let why = said.lines().find(|line| line.contains("the programs that follow")).unwrap_or(&said);
    assert!(why.contains("CAP_PERFMON is missing") && !why.contains("policy"), "{said}");
}

#[test]
fn root_who_cannot_write_a_record_is_told_once_why_and_what_to_do() {
    isolate();
    let cgroup = ScratchCgroup::new("records");
    let path = cgroup.path().to_str().unwrap();
    let limit = ["limit", "--cgroup", path, "--upload", "1M", "--attach", "legacy"];
    let read_only = "mount -o remount,bind,ro /run";
    for (script, why, errno) in [
        (read_only, "with '--attach link', which needs no record", "(mkdir: EROFS)"),
        ("touch /run/chadthrottle", "in the way and no folder: remove it", "(mkdir: EEXIST)"),
    ] {
        let output = after(script, &limit);
        let said = String::from_utf8(output.stderr).unwrap();
        let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(error.contains(why) && error.ends_with(errno), "{said}");
        assert!(!said.contains("os error"), "{said}");
        let warned = "warning: a limit on a cgroup above charges for what this one drops, because";
        assert!(said.lines().next().unwrap().starts_with(warned), "{said}");
        std::fs::remove_file("/run/chadthrottle").ok();
    }
    let nothing = after(read_only, &["rearm"]);
    assert!(nothing.status.success() && nothing.stderr.is_empty(), "{nothing:?}");
}

#[test]
fn root_ids_that_are_not_there_get_one_advice_and_one_that_is_named_twice_counts_once() {
    isolate();
    let cgroup = ScratchCgroup::new("twice");
    let path = cgroup.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for command in ["rm", "rearm"] {
        let said = "error: there are no pinned throttles '1', '2', '4'; 'chadthrottle list' shows those that there are\n";
        assert_eq!(run(&[command, "1", "2", "4", "2"]), (Some(64), said.to_owned()));
    }
    let (status, said) =
        run(&["limit", "--cgroup", path, "--upload", "1M", "--attach", "pinned", "-q"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(run(&["rm", "1", "1"]), (Some(0), String::new()));
}

/// `list` has no `--root`.
#[test]
fn root_where_only_a_part_is_mounted_the_advice_names_a_command_that_has_the_option() {
    isolate();
    let cgroup = ScratchCgroup::new("advice");
    let script = format!(
        r#"mkdir /run/part; mount --bind "{}" /run/part; umount --lazy "$MOUNT""#,
        cgroup.path().display()
    );
    let said = String::from_utf8(after(&script, &["list"]).stderr).unwrap();
    assert!(said.contains("this part alone with 'chadthrottle-audit scan --root PATH'"), "{said}");
}
