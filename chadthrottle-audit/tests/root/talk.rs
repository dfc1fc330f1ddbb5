//! What is said beside the report, and to whom.

use testkit::cgroup::ScratchCgroup;

use crate::common::*;

#[test]
fn root_v_tells_how_the_host_was_looked_at_and_q_says_nothing_beside_the_report() {
    let cgroup = ScratchCgroup::new("talk");
    let talk = |loudness: &str| {
        let scan = ["scan", loudness, "--program", "chadtest_nobody", "--root"];
        let output = audit(&scan).arg(cgroup.path()).output().unwrap();
        assert!(!output.stdout.is_empty(), "the report is no talk");
        String::from_utf8(output.stderr).unwrap()
    };
    let told = talk("-v");
    assert!(told.starts_with("debug: the host was looked at (method=query, cgroups=1, "), "{told}");
    assert!(told.contains("debug: of that, loading took 0.0 ms, the cgroups "), "{told}");
    assert_eq!(talk("-q"), "");
}
