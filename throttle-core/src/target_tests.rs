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
fn a_cgroup_called_deleted_is_not_taken_for_one_that_was() {
    let dir = tempfile::tempdir().unwrap();
    let called = cgroup(&dir.path().join("a (deleted)"), "7\n");
    assert!(!is_removed(&called, 7));
    assert!(is_removed(&called, 8));
    assert!(is_removed(&dir.path().join("b (deleted)"), 7));
    assert!(!is_removed(&dir.path().join("b"), 7));
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
fn a_cgroup_that_goes_away_meanwhile_has_no_processes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(below(&dir.path().join("gone")), (true, vec![]));
}

#[test]
fn a_cgroup_that_cannot_be_asked_may_have_more_processes() {
    let dir = tempfile::tempdir().unwrap();
    cgroup(dir.path(), "1\n");
    // As of a threaded cgroup, these cannot be read.
    fs::create_dir_all(dir.path().join("threaded/cgroup.procs")).unwrap();
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
    let root = Target::Cgroup("/".into()).resolve().unwrap();
    assert!(root.is_root && root.neighbours.is_empty());
    let missing = Target::Cgroup("/chadthrottle-no-such-cgroup".into()).resolve().unwrap();
    assert!(!missing.is_root);
    assert_eq!(missing.cgroup.parent(), Some(root.cgroup.as_path()));
}
