//! Without rights.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::{audit, shown};

const NOBODY: u32 = 65_534;

/// Runs the program as nobody, from where nobody can reach it.
pub(crate) fn as_nobody(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("chadthrottle-audit");
    fs::copy(env!("CARGO_BIN_EXE_chadthrottle-audit"), &program).unwrap();
    Command::new(program).args(args).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap()
}

#[test]
fn root_without_rights_a_scan_is_incomplete_and_names_the_capabilities() {
    let output = as_nobody(&["scan"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("must run as root (CAP_NET_ADMIN is missing)"), "{text}");
    assert!(text.contains("must run as root (CAP_SYS_ADMIN is missing)"), "{text}");
    assert!(text.contains("\nincomplete: "), "{text}");
    assert!(!text.contains("\nclean"), "{text}");
}

#[test]
fn root_without_rights_nothing_is_cleaned_and_the_reason_is_given() {
    let output = as_nobody(&["clean", "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("must run as root (CAP_"), "{text}");
}

#[test]
fn root_without_rights_a_snapshot_is_written_but_says_what_is_missing() {
    let output = as_nobody(&["snapshot"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let snapshot: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(snapshot["looks"][0]["coverage"]["cgroups_visited"], 0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("CAP_NET_ADMIN"));
}

#[test]
fn root_a_mount_that_hides_the_hierarchys_root_makes_an_audit_of_everything_incomplete() {
    use nix::mount::{MsFlags, mount};

    isolate();
    let cgroup = ScratchCgroup::new("top");
    cgroup.child("child");
    let mount_point = kernel::cgroup::cgroup2_mount().unwrap();
    let none = None::<&str>;
    mount(Some(cgroup.path()), &mount_point, none, MsFlags::MS_BIND, none).unwrap();
    let output = audit(&["scan", "--program", "chadtest_nobody"]).output().unwrap();
    nix::mount::umount2(&mount_point, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("is not the hierarchy's root"), "{text}");
}
