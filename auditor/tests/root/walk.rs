//! Trees of cgroups as they come.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use auditor::classify::{Verdict, classify};
use auditor::collect::{Method, Options, collect};
use auditor::snapshot::Snapshot;
use bpf::list::AttachFlags;
use vmtests::cgroup::ScratchCgroup;
use vmtests::iterator::has_cgroup_iterator;

use crate::common::*;

const MULTI: AttachFlags = AttachFlags::MULTI;

fn look_at(root: &Path, program: &str) -> Snapshot {
    look_by(Method::Query, root, program)
}

fn look_by(method: Method, root: &Path, program: &str) -> Snapshot {
    let options = Options {
        method,
        root: root.to_owned(),
        programs: vec![program.to_owned()],
        settle: Duration::from_millis(1),
        ..Options::default()
    };
    collect(&options).unwrap()
}

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

#[test]
fn root_a_deep_tree_is_seen_to_its_end() {
    const DEPTH: usize = 1_000;
    let cgroup = ScratchCgroup::new("deep");
    let names = Names::new();
    // The whole path is longer than the kernel takes: every cgroup is made from within its parent.
    let mut here = nix::dir::Dir::open(cgroup.path(), OPEN, nix::sys::stat::Mode::empty()).unwrap();
    for depth in 0..DEPTH {
        nix::sys::stat::mkdirat(&here, "deep", nix::sys::stat::Mode::S_IRWXU)
            .unwrap_or_else(|errno| panic!("{errno} at a depth of {depth}"));
        here = nix::dir::Dir::openat(&here, "deep", OPEN, nix::sys::stat::Mode::empty()).unwrap();
    }
    drop(here);
    plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let snapshot = look_at(cgroup.path(), &names.leak);
    assert_eq!(snapshot.looks[0].coverage.cgroups_visited, DEPTH as u64 + 1);
    assert_eq!(snapshot.looks[0].attachments.len(), 1);
    assert_eq!(classify(&snapshot).verdict, Verdict::Leaks);
}

const OPEN: nix::fcntl::OFlag = nix::fcntl::OFlag::O_DIRECTORY.union(nix::fcntl::OFlag::O_CLOEXEC);

#[test]
fn root_cgroups_that_come_and_go_during_the_walk_are_counted_and_are_no_gap() {
    let cgroup = ScratchCgroup::new("busy");
    let names = Names::new();
    let steady = cgroup.child("steady");
    plant(&steady, &names.leak, INGRESS, MULTI);
    let done = AtomicBool::new(false);
    let mut vanished = 0;
    scope(|threads| {
        for thread in 0..2 {
            let (done, root) = (&done, cgroup.path());
            let name = &names.leak;
            threads.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for number in 0..20 {
                        let path = root.join(format!("{thread}-{number}/child"));
                        fs::create_dir_all(&path).unwrap();
                        plant(&path, name, EGRESS, MULTI);
                    }
                    for number in 0..20 {
                        let path = root.join(format!("{thread}-{number}"));
                        fs::remove_dir(path.join("child")).unwrap();
                        fs::remove_dir(path).unwrap();
                    }
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        let has_iterator = has_cgroup_iterator();
        let mut looks = Vec::new();
        while looks.len() < 20 || (vanished == 0 && Instant::now() < deadline) {
            // The iterator's answer is of one moment, but then every cgroup is opened by its id.
            let method =
                if has_iterator && looks.len() % 2 == 1 { Method::Iter } else { Method::Query };
            let look = look_by(method, cgroup.path(), &names.leak).looks.pop().unwrap();
            assert_eq!(look.method, method.to_string());
            vanished += look.coverage.cgroups_vanished;
            looks.push(look);
        }
        done.store(true, Ordering::Relaxed);
        for look in looks {
            assert_eq!(look.coverage.cgroups_denied, 0);
            let gaps: Vec<_> = look
                .coverage
                .gaps
                .iter()
                .filter(|gap| gap.about == auditor::snapshot::Subject::Cgroups)
                .collect();
            assert!(gaps.is_empty(), "{gaps:?}");
            assert!(
                look.attachments.iter().any(|it| it.cgroup.ends_with("steady")),
                "what stays is always seen"
            );
            for attachment in &look.attachments {
                assert!(
                    look.programs.iter().any(|program| program.id == attachment.program_id),
                    "every attachment has its program"
                );
            }
        }
    });
    assert!(vanished > 0, "none vanished: the test is not busy enough");
}
