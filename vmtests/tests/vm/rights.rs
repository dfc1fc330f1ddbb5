//! Rights taken away one by one, from root, with unprivileged BPF switched off as distributions have it.

use std::fs;
use std::process::{Command, Output};

use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::{program, shown};

/// Switches unprivileged BPF off (1 cannot be undone, 2 can) or finds it to be so already.
fn unprivileged_bpf_is_off() {
    const FILE: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
    if fs::read_to_string(FILE).unwrap().trim() == "0" {
        fs::write(FILE, "2").unwrap();
    }
    assert_ne!(fs::read_to_string(FILE).unwrap().trim(), "0");
}

/// Runs a program as root without some capabilities, which it cannot get back either.
fn without(capabilities: &str, words: &[&str]) -> Output {
    let dropped =
        capabilities.split(',').map(|name| format!("-{name}")).collect::<Vec<_>>().join(",");
    Command::new("setpriv")
        .arg(format!("--bounding-set={dropped}"))
        .arg(format!("--inh-caps={dropped}"))
        .arg(program(words[0]))
        .args(&words[1..])
        .output()
        .unwrap()
}

#[test]
fn vm_an_audit_without_rights_is_incomplete_and_names_the_capability() {
    unprivileged_bpf_is_off();
    for (dropped, named) in [
        ("net_admin,sys_admin,bpf", "CAP_NET_ADMIN"),
        ("sys_admin,bpf", "CAP_SYS_ADMIN"),
        ("sys_admin", "CAP_SYS_ADMIN"),
    ] {
        let output = without(dropped, &["chadthrottle-audit", "scan"]);
        assert_eq!(output.status.code(), Some(2), "without {dropped}: {}", shown(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(named), "without {dropped}: {text}");
        assert!(!text.lines().any(|line| line.starts_with("clean")), "without {dropped}: {text}");
    }
}

#[test]
fn vm_a_limit_without_rights_is_refused_and_names_the_capability() {
    unprivileged_bpf_is_off();
    isolate();
    let cgroup = ScratchCgroup::new("rights");
    let path = cgroup.path().display().to_string();
    let words = ["chadthrottle", "limit", "--upload", "1M", "--cgroup", &path, "--duration", "1s"];
    // CAP_SYS_ADMIN stands for the other two, so it has to go with them.
    for (dropped, named) in [("bpf,sys_admin", "CAP_BPF"), ("net_admin,sys_admin", "CAP_NET_ADMIN")]
    {
        let output = without(dropped, &words);
        assert_eq!(output.status.code(), Some(1), "without {dropped}: {}", shown(&output));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(named), "without {dropped}: {text}");
    }
    assert!(without("sys_boot", &words).status.success(), "with all that it needs");
}
