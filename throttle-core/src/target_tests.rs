use std::fs;

use super::*;

/// Creates a folder like a cgroup's, with these processes.
fn cgroup(path: &Path, processes: &str) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("cgroup.procs"), processes).unwrap();
    path.to_owned()
}

/// Returns this process's neighbours in a cgroup with these processes, and the result. The user has named `named`.
fn beside_this(processes: &str, named: u32) -> (Vec<u32>, Resolved) {
    let dir = tempfile::tempdir().unwrap();
    let resolved = Resolved {
        cgroup: cgroup(dir.path(), processes),
        cgroup_id: CgroupId(7),
        reach: Reach::Itself,
        neighbours: Vec::new(),
        neighbours_hidden: false,
        thread_of: None,
        threads_elsewhere: Some(Vec::new()),
    };
    let elsewhere = Some(vec!["/p/t2".into()]);
    let resolved = resolved.of_the_process(&ThisHost, named, std::process::id(), elsewhere.clone());
    assert_eq!((resolved.cgroup_id, &resolved.threads_elsewhere), (CgroupId(7), &elsewhere));
    (resolved.neighbours.iter().map(|it| it.pid).collect(), resolved)
}

#[test]
fn a_process_is_no_neighbour_of_itself_whichever_of_its_threads_was_named() {
    let (this, parent) = (std::process::id(), std::os::unix::process::parent_id());
    // A number without a process has ended meanwhile. A number that is listed twice counts once.
    let listed = format!("{this}\n{parent}\n{}\n{this}\n{parent}\n", u32::MAX);
    let (pids, resolved) = beside_this(&listed, this);
    assert_eq!((pids, resolved.neighbours_hidden, resolved.thread_of), (vec![parent], false, None));
    let (pids, resolved) = beside_this(&listed, this + 1);
    assert_eq!((pids, resolved.thread_of), (vec![parent], Some(this)));
    let (pids, resolved) = beside_this("0\n", this);
    assert_eq!((pids, resolved.neighbours_hidden), (vec![], true));
}

#[test]
fn a_process_that_does_not_exist_is_told_as_such() {
    let error = Target::Process(u32::MAX).resolve(&ThisHost).unwrap_err();
    assert!(matches!(error, Error::NoSuchProcess(u32::MAX)), "{error}");
}

#[test]
fn only_the_topmost_cgroup_is_the_whole_host() {
    let top = cgroup::View::best().unwrap();
    let found = Target::Cgroup("/".into()).resolve(&ThisHost).unwrap();
    assert_eq!((found.cgroup.as_path(), found.cgroup_id), (top.point(), top.top().id()));
    assert_eq!(found.reach == Reach::Host, found.cgroup_id == cgroup::ROOT_CGROUP_ID);
    assert!(found.neighbours.is_empty());
}

#[test]
fn what_is_no_cgroup_is_not_resolved() {
    for named in ["/chadthrottle-no-such-cgroup", "", "/proc"] {
        let error = Target::Cgroup(named.into()).resolve(&ThisHost).unwrap_err();
        assert!(matches!(error, Error::Kernel(_)), "{named}: {error}");
    }
}
