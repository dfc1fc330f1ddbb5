//! Trees of cgroups as they come.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use auditor::collect::{Method, Options, collect};
use auditor::facts::Snapshot;
use auditor::judge::{Verdict, classify};
use kernel::list::AttachFlags;
use testkit::cgroup::ScratchCgroup;
use testkit::iterator::has_cgroup_iterator;

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
                .filter(|gap| gap.about == auditor::facts::Subject::Cgroups)
                .collect();
            assert!(gaps.is_empty(), "{gaps:?}");
            assert!(
                look.attachments.iter().any(|it| it.cgroup.ends_with("steady")),
                "what stays is always seen"
            );
            for attachment in &look.attachments {
                assert!(
                    look.programs.iter().any(|program| program.loaded.id == attachment.program_id),
                    "every attachment has its program"
                );
            }
        }
    });
    assert!(vanished > 0, "none vanished: the test is not busy enough");
}
