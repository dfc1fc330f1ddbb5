//! The cgroup that was meant, or none: namespaces, mounts, threads, and what is no cgroup.
//! `docs/developing/reported-situations.md` has a row for each test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use kernel::cgroup::{Cgroup, cgroup2_mount};
use kernel::list::{Scope, query};
use kernel::{AttachType, CgroupId};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

/// A cgroup with a process in it, which ends with this.
struct Sleeper(Child);

impl Sleeper {
    fn in_cgroup(cgroup: &Path) -> Self {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let started = Self(child);
        fs::write(cgroup.join("cgroup.procs"), started.pid()).unwrap();
        started
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container below a scratch cgroup, and beside it on the host a namesake of a cgroup in it.
struct Container {
    scratch: ScratchCgroup,
    top: PathBuf,
    /// In the container; the scratch cgroup has the same path on the host.
    app: PathBuf,
    spare: tempfile::TempDir,
}

impl Container {
    fn new(label: &str) -> Self {
        isolate();
        let scratch = ScratchCgroup::new(label);
        let top = scratch.child("container");
        let name = scratch.relative().strip_prefix("/").unwrap().to_owned();
        let app = scratch.child(Path::new("container").join(name));
        Self { scratch, top, app, spare: tempfile::tempdir().unwrap() }
    }

    /// Runs `limit` in a cgroup namespace of the container's, after `first` in a mount namespace. What it says, and on
    /// which of the cgroups there was a program meanwhile.
    fn limit(&self, first: &str, args: &[&str]) -> Said {
        const SCRIPT: &str = r#"echo 0 >"$TOP/cgroup.procs"
            exec unshare --cgroup --mount --propagation private -- sh -euc "$FIRST; exec \"\$@\"" sh "$@""#;
        let mut command = Command::new("sh");
        command.args(["-euc", SCRIPT, "sh", env!("CARGO_BIN_EXE_chadthrottle"), "limit"]);
        command.args(["--upload", "1M", "--duration", "1s"]).args(args);
        command.env("TOP", &self.top).env("FIRST", first).env("SPARE", self.spare.path());
        command.env("MOUNT", cgroup2_mount().unwrap());
        said(command)
    }
}

struct Said {
    output: Output,
    text: String,
}

fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Said { output, text }
}

impl Said {
    /// It was armed on that cgroup, by a path that is below this mount.
    #[track_caller]
    fn on(&self, path: &Path) -> &Self {
        assert!(self.output.status.success(), "{}", self.text);
        assert!(self.text.contains(&format!("limiting {} to ", path.display())), "{}", self.text);
        self
    }

    #[track_caller]
    fn says(&self, words: &str) -> &Self {
        assert!(self.text.contains(words), "{words:?}: {}", self.text);
        self
    }

    /// It was refused, and nothing was printed but why.
    #[track_caller]
    fn refused(&self, words: &str) -> &Self {
        assert!(!self.output.status.success(), "{}", self.text);
        assert!(self.output.stdout.is_empty(), "{}", self.text);
        self.says(words)
    }
}

fn limit(args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle"));
    command.args(["limit", "--upload", "1M", "--duration", "1ms"]).args(args);
    said(command)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The host's mount stays; or another one comes beside it, or on top of it.
const HOSTS: &str = ":";
const BOTH: &str = r#"mount -t cgroup2 none "$SPARE""#;
const OWN: &str = r#"umount --lazy "$MOUNT"; mount -t cgroup2 none "$MOUNT""#;
const ON_TOP: &str =
    r#"mount -t cgroup2 none "$SPARE"; mount --bind "$SPARE" "$MOUNT"; umount "$SPARE""#;

#[test]
fn root_in_a_cgroup_namespace_a_process_is_limited_where_it_lives_and_not_in_the_hosts_namesake() {
    let it = Container::new("own");
    let process = Sleeper::in_cgroup(&it.app);
    for mounts in [HOSTS, BOTH] {
        it.limit(mounts, &["--pid", &process.pid()]).on(&it.app);
    }
    // There the mount's top is the container's.
    let mount = cgroup2_mount().unwrap();
    for mounts in [OWN, ON_TOP] {
        let inside = mount.join(it.app.file_name().unwrap());
        it.limit(mounts, &["--pid", &process.pid()]).on(&inside);
    }
}

#[test]
fn root_a_process_outside_of_the_cgroup_namespace_is_limited_where_it_is_seen_and_nowhere_else() {
    let it = Container::new("outside");
    let other = it.scratch.child("other");
    let process = Sleeper::in_cgroup(&other);
    it.limit(HOSTS, &["--pid", &process.pid()]).on(&other);
    it.limit(OWN, &["--pid", &process.pid()])
        .refused("cannot be seen from here")
        .says("/../other")
        .says("outside of this cgroup namespace");
}

#[test]
fn root_the_top_of_a_cgroup_namespace_is_the_container_and_not_the_host() {
    let it = Container::new("top");
    let process = Sleeper::in_cgroup(&it.top);
    let mount = cgroup2_mount().unwrap();
    for args in [["--cgroup", "/"], ["--pid", &process.pid()]] {
        let said = it.limit(OWN, &args);
        said.on(&mount).says("the whole container is limited, and not the host");
        assert!(!said.text.contains("the whole host is limited"), "{}", said.text);
    }
}

#[test]
fn root_a_path_that_two_cgroups_have_in_a_cgroup_namespace_names_neither() {
    let it = Container::new("twice");
    let name = it.scratch.relative();
    it.limit(HOSTS, &["--cgroup", text(&name)])
        .refused("two cgroups have this path")
        .says(text(it.scratch.path()))
        .says(text(&it.app));
    it.limit(HOSTS, &["--cgroup", "/"]).refused("two cgroups have this path");
    // Each has a name that only it has.
    it.limit(HOSTS, &["--cgroup", text(it.scratch.path())]).on(it.scratch.path());
    it.limit(HOSTS, &["--cgroup", text(&it.app)]).on(&it.app);
    fs::create_dir(it.top.join("only")).unwrap();
    it.limit(HOSTS, &["--cgroup", "/only"]).on(&it.top.join("only"));
}

#[test]
fn root_what_a_mount_of_a_part_does_not_show_is_not_limited_and_its_top_is_no_host() {
    let it = Container::new("part");
    let process = Sleeper::in_cgroup(&it.app);
    let part = it.scratch.child("part");
    let covered = format!(
        r#"mount --bind "{}" "$SPARE"; umount --lazy "$MOUNT"; mount --bind "$SPARE" "$MOUNT"; umount "$SPARE""#,
        part.display()
    );
    it.limit(&covered, &["--pid", &process.pid()]).refused("cannot be seen from here");
    let mount = cgroup2_mount().unwrap();
    it.limit(&covered, &["--cgroup", "/"])
        .on(&mount)
        .says("a mount of a part of the cgroup2 hierarchy: that part is limited, and not the host");
}

#[test]
fn root_a_directory_on_another_mount_and_a_link_to_a_cgroup_name_it() {
    isolate();
    let cgroup = ScratchCgroup::new("mounts");
    let spare = tempfile::tempdir().unwrap();
    let (again, link) = (spare.path().join("again"), spare.path().join("link"));
    fs::create_dir(&again).unwrap();
    symlink(cgroup.path(), &link).unwrap();
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &again, Some("cgroup2"), flags, none).unwrap();
    let second = again.join(cgroup.path().file_name().unwrap());
    for named in [&second, &link] {
        limit(&["--cgroup", text(named)]).on(cgroup.path());
    }
    nix::mount::umount(&again).unwrap();
}

#[test]
fn root_what_is_no_cgroup_is_named_for_what_it_is() {
    isolate();
    let cgroup = ScratchCgroup::new("odd");
    let spare = tempfile::tempdir().unwrap();
    let (flags, named) = (nix::mount::MsFlags::empty(), Some("none,name=chadtest"));
    let v1 = spare.path().join("v1");
    fs::create_dir(&v1).unwrap();
    nix::mount::mount(Some("none"), &v1, Some("cgroup"), flags, named).unwrap();
    let file = cgroup.path().join("cgroup.procs");
    for (path, words) in [
        (v1.as_path(), "it is a directory of cgroup v1"),
        (spare.path(), "it is a directory, but of no cgroup"),
        (&file, "it is a file of the cgroup"),
        (Path::new("/proc/self/cgroup"), "it is a file, and no cgroup"),
    ] {
        limit(&["--cgroup", text(path)]).refused(words);
    }
    nix::mount::umount2(&v1, nix::mount::MntFlags::MNT_DETACH).unwrap();
    limit(&["--cgroup="]).refused("");
    cgroup.child("x");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle"));
    command.args(["limit", "--upload", "1M", "--cgroup", "x"]).current_dir(cgroup.path());
    said(command).refused("./x is one");
}

#[test]
fn root_a_process_that_has_ended_is_told_as_such() {
    isolate();
    let cgroup = ScratchCgroup::new("zombie");
    let mut ended = {
        let _inside = cgroup.enter();
        Command::new("true").spawn().unwrap()
    };
    let pid = ended.id().to_string();
    let stat = format!("/proc/{pid}/stat");
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    limit(&["--pid", &pid]).refused(&format!("process {pid} is a zombie: it has ended"));
    ended.wait().unwrap();
    limit(&["--pid", &pid]).refused(&format!("there is no process {pid}"));
}

#[test]
fn root_a_thread_outside_of_the_pid_namespace_has_a_network_namespace_that_cannot_be_told() {
    isolate();
    let cgroup = ScratchCgroup::new("pidns");
    let _outside = Sleeper::in_cgroup(cgroup.path());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--", env!("CARGO_BIN_EXE_chadthrottle")]);
    command.args(["limit", "--upload", "1M", "--duration", "1ms", "--cgroup"]).arg(cgroup.path());
    let said = said(command);
    said.on(cgroup.path()).says("the network namespaces of 1 threads of the cgroup cannot be told");
    assert!(!limit(&["--cgroup", text(cgroup.path())]).text.contains("cannot be told"));
}

/// The programs for what is sent on a cgroup.
fn programs(id: CgroupId, cgroup: &Path) -> usize {
    let open = Cgroup::open(cgroup).unwrap();
    assert_eq!(open.id(), id);
    query(&open, AttachType::INET_EGRESS, Scope::Local, false).unwrap().programs.len()
}

#[test]
fn root_of_threads_in_several_cgroups_it_is_told_which_are_not_limited() {
    isolate();
    let cgroup = ScratchCgroup::new("threads");
    let above = cgroup.child("p");
    let (one, two) = (cgroup.child("p/t1"), cgroup.child("p/t2"));
    let _inside = testkit::cgroup::enter(&above);
    for child in [&one, &two] {
        fs::write(child.join("cgroup.type"), "threaded").unwrap();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let id = nix::unistd::gettid().to_string();
            fs::write(one.join("cgroup.threads"), &id).unwrap();
            let by_id = limit(&["--pid", &id]);
            by_id.on(&one).says(&format!("{id} is a thread of process {}", std::process::id()));
            by_id.says("other threads of the process are in").says("and are not limited");
            limit(&["--cgroup", text(&one)]).on(&one);
        });
        thread.join().unwrap();
    });
    // The first thread lives above all others.
    let all = limit(&["--pid", &std::process::id().to_string()]);
    all.on(&above);
    assert!(!all.text.contains("not limited"), "{}", all.text);
    assert_eq!(programs(Cgroup::open(&one).unwrap().id(), &one), 0);
}
