//! cgroup2 alone, at `/sys/fs/cgroup`.

use std::path::Path;
use std::process::Command;

use crate::common::{program, shown};

#[test]
fn vm_cgroup2_is_the_only_hierarchy_and_is_found_where_it_is() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let types: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split_once(" - ")?.1.split(' ').next())
        .filter(|kind| kind.starts_with("cgroup"))
        .collect();
    assert_eq!(types, ["cgroup2"]);
    assert_eq!(kernel::cgroup::cgroup2_mount().unwrap(), Path::new("/sys/fs/cgroup"));
}

#[test]
fn vm_an_audit_of_this_layout_is_clean() {
    let output = Command::new(program("chadthrottle-audit"))
        .args(["scan", "--format", "json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "clean");
    assert!(report["coverage"]["cgroups_visited"].as_u64() >= Some(1), "{report}");
}
