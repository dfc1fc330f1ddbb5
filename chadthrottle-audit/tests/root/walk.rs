//! Odd names of cgroups.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use kernel::list::AttachFlags;
use testkit::cgroup::ScratchCgroup;

use crate::common::*;

const MULTI: AttachFlags = AttachFlags::MULTI;

#[test]
fn root_odd_names_survive_in_text_in_json_and_on_the_command_line() {
    let cgroup = ScratchCgroup::new("odd");
    let names = Names::new();
    // (A newline is the one thing that the kernel does not take.)
    let odd: [&[u8]; 4] = [b"a b", b"q\"'\\", b"tab\tred\x1b[31m", b"x\xff\xfe"];
    for name in odd {
        let path = cgroup.child(PathBuf::from(OsString::from_vec(name.to_vec())));
        plant(&path, &names.leak, INGRESS, MULTI);
    }
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!(status, 1);
    let attachments = report["attachments"].as_array().unwrap();
    let mut paths: Vec<&str> =
        attachments.iter().map(|it| it["cgroup"]["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    let base = cgroup.relative();
    let base = base.to_str().unwrap();
    let expected = ["a b", "q\"'\\", "tab\tred\x1b[31m", "x\u{fffd}\u{fffd}"];
    assert_eq!(paths, expected.map(|name| format!("{base}/{name}")));
    let hex = attachments.iter().find_map(|it| it["cgroup"]["path_hex"].as_str()).unwrap();
    assert!(hex.ends_with("2f78fffe"), "{hex}");

    let output =
        audit(&["scan", "--program", &names.leak, "--root"]).arg(cgroup.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["a b", "q\"'\\", r"tab\tred\x1b[31m", r"x\xff\xfe"] {
        assert!(text.contains(&format!("{base}/{name}")), "{text}");
    }

    let only = cgroup.path().join(OsString::from_vec(b"x\xff\xfe".to_vec()));
    let (status, report) = scan(&only, &names.leak, &[]);
    assert_eq!((status, report["summary"]["attachments"].as_u64()), (1, Some(1)));
    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
}
