//! A scan beside others who make and drop links, pins, folders and processes all the time.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use auditor::collect::{Breadth, Method, Options, collect};
use auditor::compare::compare;
use auditor::facts::Snapshot;
use auditor::judge::{Verdict, classify};
use kernel::Program;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{AttachFlags, attach, detach};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::iterator::has_cgroup_iterator;

use crate::common::*;

/// How often everything is looked at.
const LOOKS: usize = 40;

/// Ends the others, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Makes links and drops them.
fn links(cgroup: &Path, name: &str, is_done: &AtomicBool) {
    let cgroup = Cgroup::open(cgroup).unwrap();
    let program = Program::load_pass(name, INGRESS).unwrap();
    while !is_done.load(Relaxed) {
        drop(Link::create(program.as_fd(), &cgroup, INGRESS).unwrap());
    }
}

/// Loads, attaches and detaches the legacy way.
fn programs(cgroup: &Path, name: &str, is_done: &AtomicBool) {
    let cgroup = Cgroup::open(cgroup).unwrap();
    while !is_done.load(Relaxed) {
        let program = Program::load_pass(name, EGRESS).unwrap();
        attach(program.as_fd(), &cgroup, EGRESS, AttachFlags::MULTI, None).unwrap();
        detach(program.as_fd(), &cgroup, EGRESS, None).unwrap();
    }
}

/// Pins a link in a folder, removes both, and pins it under the folder's name.
fn pins(cgroup: &Path, name: &str, is_done: &AtomicBool) {
    let cgroup = Cgroup::open(cgroup).unwrap();
    let program = Program::load_pass(name, INGRESS).unwrap();
    let folder = Path::new("/sys/fs/bpf/churn");
    while !is_done.load(Relaxed) {
        fs::create_dir(folder).unwrap();
        let link = Link::create(program.as_fd(), &cgroup, INGRESS).unwrap();
        link.pin(&folder.join("a")).unwrap();
        fs::remove_file(folder.join("a")).unwrap();
        fs::remove_dir(folder).unwrap();
        link.pin(folder).unwrap();
        fs::remove_file(folder).unwrap();
    }
}

/// Starts processes that end.
fn processes(is_done: &AtomicBool) {
    while !is_done.load(Relaxed) {
        assert!(Command::new("true").status().unwrap().success());
    }
}

#[test]
fn root_beside_links_pins_and_processes_that_come_and_go_a_scan_is_never_incomplete() {
    isolate();
    let (cgroup, names) = (ScratchCgroup::new("churn"), Names::new());
    let is_done = AtomicBool::new(false);
    let look = |breadth, method| {
        let options = Options {
            root: cgroup.path().to_owned(),
            programs: vec![names.leak.clone()],
            breadth,
            method,
            ..Options::default()
        };
        collect(&options).unwrap()
    };
    let iterate = if has_cgroup_iterator() { Method::Iter } else { Method::Query };
    let mut scans: Vec<Snapshot> = Vec::new();
    let mut all: Vec<Snapshot> = Vec::new();
    thread::scope(|scope| {
        let _done = Done(&is_done);
        for _ in 0..2 {
            scope.spawn(|| links(cgroup.path(), &names.foreign, &is_done));
        }
        scope.spawn(|| programs(cgroup.path(), &names.foreign, &is_done));
        scope.spawn(|| pins(cgroup.path(), &names.foreign, &is_done));
        scope.spawn(|| processes(&is_done));
        for round in 0..LOOKS {
            let method = if round % 2 == 0 { Method::Query } else { iterate };
            scans.push(look(Breadth::Everybody, method));
            all.push(look(Breadth::Everything, method));
        }
    });
    for scan in &scans {
        let classified = classify(scan);
        assert_eq!((classified.verdict, classified.gaps), (Verdict::Clean, vec![]));
    }
    for pair in all.windows(2) {
        let globs = [names.leak.clone()];
        assert_eq!(compare(&pair[0], &pair[1], &globs).unwrap().gaps, []);
    }
}
