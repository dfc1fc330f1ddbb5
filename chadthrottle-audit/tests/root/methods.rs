//! An iterator that cannot be had.

use std::path::Path;
use std::process::Command;

use kernel::list::AttachFlags;
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::iterator::has_cgroup_iterator;

use crate::common::*;

/// As root, but without some of root's rights.
fn without(rights: &str, method: &str, root: &Path) -> (Option<i32>, Value) {
    let output = Command::new("setpriv")
        .args(["--bounding-set", rights, "--"])
        .arg(env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .args(["scan", "--format", "json", "--program", "chadtest_nobody", "--method", method])
        .arg("--root")
        .arg(root)
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
    (output.status.code(), report)
}

#[test]
fn root_an_iterator_that_is_asked_for_and_cannot_be_had_is_no_clean_audit() {
    let root = ScratchCgroup::new("denied");
    plant(root.path(), "chadtest_there", INGRESS, AttachFlags::MULTI);
    // It may load the iterator, but not open by its id what that has met.
    let rights = "-all,+net_admin,+sys_admin,+sys_ptrace,+dac_override";
    let (status, report) = without(rights, "iter", root.path());
    assert_eq!((status, &report["verdict"]), (Some(2), &"incomplete".into()));
    let gaps = report["coverage"]["gaps"].to_string();
    assert!(gaps.contains("--method query needs no iterator"), "{gaps}");
    assert_eq!(gaps.contains("CAP_DAC_READ_SEARCH"), has_cgroup_iterator(), "{gaps}");
    assert_eq!(report["attachments"].as_array().unwrap().len(), 0);
    let (status, report) = without(rights, "query", root.path());
    assert_eq!((status, &report["verdict"]), (Some(0), &"clean".into()));
}
