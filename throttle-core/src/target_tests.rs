use super::*;

/// A folder as a cgroup is one, with these processes in it.
fn cgroup(path: &Path, processes: &str) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("cgroup.procs"), processes).unwrap();
    path.to_owned()
}

fn below(path: &Path) -> (bool, Vec<u32>) {
    let mut pids = Vec::new();
    let complete = processes_below(path, &mut pids);
    pids.sort_unstable();
    (complete, pids)
}

#[test]
fn the_processes_below_a_cgroup_are_those_of_all_its_cgroups() {
    let dir = tempfile::tempdir().unwrap();
    cgroup(dir.path(), "1\n2\n");
    cgroup(&dir.path().join("a"), "");
    cgroup(&dir.path().join("a/b"), "3\n");
    assert_eq!(below(dir.path()), (true, vec![1, 2, 3]));
}

#[test]
fn a_process_outside_of_this_pid_namespace_is_one_more() {
    let dir = tempfile::tempdir().unwrap();
    cgroup(dir.path(), "0\n1\n");
    assert_eq!(below(dir.path()), (false, vec![1]));
}

#[test]
fn a_cgroup_that_goes_away_meanwhile_has_no_processes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(below(&dir.path().join("gone")), (true, vec![]));
}

#[test]
fn a_cgroup_that_cannot_be_asked_may_have_more_processes() {
    let dir = tempfile::tempdir().unwrap();
    cgroup(dir.path(), "1\n");
    // These cannot be read.
    fs::create_dir_all(dir.path().join("odd/cgroup.procs")).unwrap();
    assert_eq!(below(dir.path()), (false, vec![1]));
    // Neither read nor shown to be gone.
    assert_eq!(below(&dir.path().join("long".repeat(100))), (false, vec![]));
}

#[test]
fn a_neighbour_has_its_name() {
    let this = neighbour(std::process::id()).unwrap();
    assert_eq!(this.pid, std::process::id());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(status.lines().next(), Some(format!("Name:\t{}", this.comm).as_str()));
    assert_eq!(neighbour(u32::MAX), None);
}

#[test]
fn a_process_that_does_not_exist_is_told_as_such() {
    let error = Target::Process(u32::MAX).resolve().unwrap_err();
    assert!(matches!(error, Error::NoSuchProcess(u32::MAX)), "{error}");
}

#[test]
fn only_the_topmost_cgroup_is_the_whole_host() {
    let top = cgroup::View::best().unwrap();
    let found = Target::Cgroup("/".into()).resolve().unwrap();
    assert_eq!((found.cgroup.as_path(), found.cgroup_id), (top.point(), top.top().id()));
    assert_eq!(found.reach == Reach::Host, found.cgroup_id == cgroup::ROOT_CGROUP_ID);
    assert!(found.neighbours.is_empty());
}

#[test]
fn what_is_no_cgroup_is_not_resolved() {
    for named in ["/chadthrottle-no-such-cgroup", "", "/proc"] {
        let error = Target::Cgroup(named.into()).resolve().unwrap_err();
        assert!(matches!(error, Error::Kernel(_)), "{named}: {error}");
    }
}
