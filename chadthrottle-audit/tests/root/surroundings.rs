//! Where the audit runs: what hides a leak, or who holds what looks like one. The answer is the truth, or "incomplete"
//! with the reason; `docs/operating/surroundings.md` has a row for each test.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use bpf::Owner;
use bpf::throttle::{Parts, load};
use kernel::list::attach;
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;
use crate::place::*;

#[test]
fn root_in_a_cgroup_namespace_with_the_hosts_mount_the_leak_is_found() {
    let place = Place::new("cgroupns");
    let leak = place.plant();
    let output = place.run(r#"echo 0 >"$INSIDE/cgroup.procs"; scan unshare --cgroup --"#);
    found(&output, leak);
}

#[test]
fn root_in_a_cgroup_namespace_the_mount_that_shows_the_whole_hierarchy_is_taken() {
    let place = Place::new("cgroupns-both");
    let leak = place.plant();
    // To the namespace the new mount's top is `/`, and the host's is something like `/../..`.
    let output = place.run(
        r#"echo 0 >"$INSIDE/cgroup.procs"
        scan unshare --cgroup -- sh -euc 'mkdir "$SPARE/own"; mount -t cgroup2 none "$SPARE/own"; exec "$@"' sh"#,
    );
    found(&output, leak);
}

#[test]
fn root_in_a_cgroup_namespace_with_a_mount_of_its_own_what_is_beside_it_is_not_called_clean() {
    let place = Place::new("cgroupns-own");
    place.plant();
    let script = r#"echo 0 >"$INSIDE/cgroup.procs"; ROOT=/
        umount --lazy "$MOUNT"
        scan unshare --cgroup -- sh -euc 'mount -t cgroup2 none "$MOUNT"; exec "$@"' sh"#;
    not_known(&place.run(script), &["a cgroup namespace", "run it on the host"]);
    let leak = plant(&place.inside(), &place.names.leak, EGRESS, MULTI);
    found(&place.run(script), leak);
}

#[test]
fn root_in_a_mount_namespace_the_leak_is_found() {
    let place = Place::new("mnt");
    let leak = place.plant();
    found(&place.run("scan"), leak);
}

#[test]
fn root_a_pin_below_another_mount_or_without_any_bpffs_may_keep_a_link_so_that_is_no_leak() {
    isolate();
    let place = Place::new("covered");
    place.pin("/sys/fs/bpf/link");
    assert_eq!(findings(&json(&place.run("scan"))), ["orphaned_pin"]);

    let covered = "mount -t bpf bpf /sys/fs/bpf; ";
    let none = r#"while umount --lazy /sys/fs/bpf 2>"$SPARE/last"; do :; done; "#;
    for (how, why) in [
        (covered, "something else is mounted on top of the bpffs on /sys/fs/bpf"),
        (none, "pins in a bpffs that cannot be seen from here"),
    ] {
        not_known(&place.run(&format!("{how}scan")), &[why, "not every pin could be read"]);
        let cleaned = place.run(&format!("{how}clean"));
        assert_eq!(cleaned.status.code(), Some(2), "{}", shown(&cleaned));
        assert_eq!(attached(place.cgroup.path(), EGRESS).len(), 1, "{how}");
    }
}

#[test]
fn root_the_pins_of_every_bpffs_are_seen() {
    isolate();
    let second = tempfile::tempdir().unwrap();
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), second.path(), Some("bpf"), flags, none).unwrap();
    let place = Place::new("second");
    let pin = second.path().join("chadthrottle/1/link");
    place.pin(&pin);
    let report = json(&place.run("scan"));
    assert_eq!(findings(&report), ["orphaned_pin"]);
    assert_eq!(report["attachments"][0]["pins"][0], pin.to_str().unwrap());
    let output = clean(place.cgroup.path(), &place.names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(!pin.exists());
    nix::mount::umount(second.path()).unwrap();
}

/// Of one bpffs several mounts may show a part each.
#[test]
fn root_a_pin_that_only_another_mount_of_its_bpffs_shows_is_seen() {
    isolate();
    let [whole, part, later] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let none = None::<&str>;
    let mount = |from: &Path, to: &TempDir, kind, flags| {
        nix::mount::mount(Some(from), to.path(), kind, flags, none).unwrap();
    };
    mount(Path::new("bpf"), &whole, Some("bpf"), MsFlags::empty());
    let inner = whole.path().join("inner");
    fs::create_dir(&inner).unwrap();
    mount(&inner, &part, None, MsFlags::MS_BIND);
    mount(whole.path(), &later, None, MsFlags::MS_BIND);
    nix::mount::umount(whole.path()).unwrap();
    let place = Place::new("parts");
    let pin = later.path().join("chadthrottle/1/link");
    place.pin(&pin);
    let report = json(&place.run("scan"));
    assert_eq!(findings(&report), ["orphaned_pin"]);
    assert_eq!(report["attachments"][0]["pins"][0], pin.to_str().unwrap());
    for folder in [&part, &later] {
        nix::mount::umount(folder.path()).unwrap();
    }
}

#[test]
fn root_a_bpffs_that_is_read_only_is_a_gap_that_says_so_and_nothing_is_cleaned_there() {
    isolate();
    let place = Place::new("read-only");
    place.pin("/sys/fs/bpf/chadthrottle/1/link");
    let read_only = "mount -o remount,ro /sys/fs/bpf; ";
    not_known(&place.run(&format!("{read_only}scan")), &["EROFS", "remount,rw"]);
    let cleaned = place.run(&format!(
        "{read_only}clean || status=$?; mount -o remount,rw /sys/fs/bpf; exit $status"
    ));
    assert_eq!(cleaned.status.code(), Some(2), "{}", shown(&cleaned));
    assert!(std::path::Path::new("/sys/fs/bpf/chadthrottle/1/link").exists());
    // Only this mount of it is: its files can be opened.
    let output = place.run("mount -o remount,bind,ro /sys/fs/bpf; scan");
    assert_eq!(findings(&json(&output)), ["orphaned_pin"], "{}", shown(&output));
    let cleaned = place.run("mount -o remount,bind,ro /sys/fs/bpf; clean");
    assert_eq!(cleaned.status.code(), Some(1), "{}", shown(&cleaned));
    assert!(shown(&cleaned).contains("remount,rw"), "{}", shown(&cleaned));
}

#[test]
fn root_read_only_mounts_of_cgroup2_and_proc_hide_nothing() {
    let place = Place::new("ro-mounts");
    let leak = place.plant();
    let output =
        place.run(r#"mount -o remount,bind,ro "$MOUNT"; mount -o remount,bind,ro /proc; scan"#);
    found(&output, leak);
}

#[test]
fn root_without_the_kernels_own_types_the_leak_is_found() {
    let cgroup = ScratchCgroup::new("btf");
    let place = Place::of(cgroup, "chadthrottle*");
    let owner = dead_owner();
    let program = load(&owner, 0, Parts::default()).unwrap().egress;
    let open = kernel::cgroup::Cgroup::open(place.cgroup.path()).unwrap();
    attach(program.as_fd(), &open, EGRESS, MULTI, None).unwrap();
    let leak = program.info().id;
    drop(program);
    found(&place.run("mount -t tmpfs none /sys/kernel; scan"), leak);
}

#[test]
fn root_the_root_of_a_user_namespace_is_told_that_it_is_not_the_hosts() {
    let place = Place::new("userns");
    place.plant();
    for with in [
        "unshare --user --map-root-user --",
        "unshare --user --map-root-user --pid --fork --mount-proc --",
    ] {
        let output = place.run(&format!("scan {with}"));
        not_known(&output, &["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "on the host"]);
    }
}

#[test]
fn root_in_a_chroot_the_answer_is_as_good_as_its_proc_and_sys() {
    let place = Place::new("chroot");
    let leak = place.plant();
    let new = r#"mkdir "$SPARE/root"; mount --rbind / "$SPARE/root"; "#;
    // Some systems mount them more than once.
    let bare = r#"for it in proc sys; do
            while umount --lazy --recursive "$SPARE/root/$it" 2>"$SPARE/last"; do :; done
        done; "#;
    let proc = r#"mount -t proc proc "$SPARE/root/proc"; "#;
    let scan = r#"scan chroot "$SPARE/root""#;
    found(&place.run(&format!("{new}{scan}")), leak);
    // Files of that name are no procfs: they may tell of another process, or of another machine.
    let files = r#"mount -t tmpfs none "$SPARE/root/proc"; mkdir "$SPARE/root/proc/thread-self"
            cat /proc/self/mountinfo >"$SPARE/root/proc/thread-self/mountinfo"; "#;
    for proc in ["", files] {
        let output = place.run(&format!("{new}{bare}{proc}{scan}"));
        not_known(&output, &["/proc", "there is no procfs on /proc here", "mount -t proc"]);
    }
    let output = place.run(&format!("{new}{bare}{proc}{scan}"));
    not_known(&output, &["the cgroup2 hierarchy", "it is not mounted here"]);
}

#[test]
fn root_where_cgroup2_is_not_mounted_or_is_covered_nobody_can_tell() {
    let place = Place::new("v1-only");
    place.plant();
    let unmount = r#"umount --lazy "$MOUNT"; "#;
    let output = place.run(&format!("{unmount}scan"));
    not_known(&output, &["it is not mounted here", "mount -t cgroup2 none DIRECTORY"]);
    for root in ["$ROOT", "/"] {
        let output = place.run(&format!(r#"mount -t tmpfs none "$MOUNT"; ROOT={root}; scan"#));
        not_known(&output, &["something else lies on top of it"]);
    }
}

#[test]
fn root_on_a_hybrid_host_on_a_unified_one_and_where_cgroup2_is_mounted_twice_the_leak_is_found() {
    let place = Place::new("layouts");
    let leak = place.plant();
    let hybrid = r"mount -t tmpfs none /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir unified v1
        mount -t cgroup2 none unified; mount -t cgroup -o none,name=chadtest none v1; cd /; ";
    let unified =
        "umount --lazy --recursive /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; ";
    let twice = r#"mkdir "$SPARE/again"; mount -t cgroup2 none "$SPARE/again"; "#;
    // The first that mountinfo has is covered, the second shows a part, the third the whole.
    let parts = r#"mkdir "$SPARE/part" "$SPARE/whole"
        mount --bind "$INSIDE" "$SPARE/part"; mount -t cgroup2 none "$SPARE/whole"; mount -t tmpfs none "$MOUNT"; "#;
    for layout in [hybrid, unified, twice, parts] {
        found(&place.run(&format!("{layout}scan")), leak);
    }
}

/// A program that nobody but this process holds, and one that names this process as its owner.
fn held(place: &Place) -> kernel::Program {
    hold(place.cgroup.path(), &place.names.leak, INGRESS)
}

/// Nobody, with those rights that a scan asks for by name.
fn nobody(with: &str) -> String {
    format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps {with} --ambient-caps {with} --"
    )
}

#[test]
fn root_where_proc_hides_processes_what_one_of_them_holds_is_not_called_a_leak() {
    let place = Place::new("hidepid");
    let program = held(&place);
    let hide = "mount -t proc -o hidepid=2 proc /proc; scan ";
    let report = json(&place.run(hide));
    assert_eq!(
        findings(&report),
        ["active"],
        "who may look into every process sees the holder: {report}"
    );
    let as_nobody = format!("{hide}{}", nobody("+net_admin,+sys_admin"));
    not_known(&place.run(&as_nobody), &["/proc hides them", "hidepid", "CAP_SYS_PTRACE"]);
    drop(program);
}

#[test]
fn root_where_proc_hides_the_owner_it_is_not_taken_for_dead() {
    let place = Place::of(ScratchCgroup::new("hidden-owner"), "chadthrottle*");
    let owner = Owner::this_process("test").unwrap();
    let program = load(&owner, 0, Parts::default()).unwrap().egress;
    let open = kernel::cgroup::Cgroup::open(place.cgroup.path()).unwrap();
    attach(program.as_fd(), &open, EGRESS, MULTI, None).unwrap();
    let hide = "mount -t proc -o hidepid=2 proc /proc; scan ";
    let output = place.run(&format!("{hide}{}", nobody("+net_admin,+sys_admin")));
    not_known(&output, &["the process is there, but /proc hides it"]);
}

#[test]
fn root_a_proc_with_processes_only_is_told_of() {
    let place = Place::new("subset");
    place.plant();
    let output = place.run("mount -t proc -o subset=pid proc /proc; scan");
    not_known(&output, &["boot_id", "subset=pid"]);
}

#[test]
fn root_in_a_pid_namespace_what_others_may_hold_is_not_called_a_leak() {
    let place = Place::new("pidns");
    let program = held(&place);
    let own = place.run("scan unshare --pid --fork --mount-proc --");
    not_known(&own, &["outside of this pid namespace", "run the audit on the host"]);
    // In the host's `/proc` the holder is still to be seen.
    let hosts = json(&place.run("scan unshare --pid --fork --"));
    assert_eq!(findings(&hosts), ["active"], "{hosts}");
    drop(program);
    let hosts = place.run("scan unshare --pid --fork --");
    not_known(&hosts, &["outside of this pid namespace", "not to be judged"]);
}

#[test]
fn root_with_a_capability_missing_the_answer_is_the_truth_or_names_the_capability() {
    let place = Place::new("caps");
    let leak = place.plant();
    let without = |which: &str| place.run(&format!("scan setpriv --bounding-set -{which} --"));
    not_known(&without("sys_admin"), &["CAP_SYS_ADMIN", "although this is root"]);
    // Newer kernels take CAP_SYS_ADMIN for it.
    let output = without("net_admin");
    if output.status.code() == Some(1) {
        found(&output, leak);
    } else {
        not_known(&output, &["CAP_NET_ADMIN", "although this is root"]);
    }
    not_known(&without("net_admin,-sys_admin"), &["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    not_known(&without("sys_ptrace"), &["CAP_SYS_PTRACE", "although this is root"]);
    found(&without("bpf"), leak);
}

#[test]
fn root_another_user_with_every_capability_but_those_for_files_does_not_take_what_is_held_for_a_leak()
 {
    let place = Place::new("user");
    let program = held(&place);
    let rights = "+net_admin,+sys_admin,+sys_ptrace";
    let output = place.run(&format!("scan {}", nobody(rights)));
    not_known(&output, &["CAP_DAC_READ_SEARCH", "run as root"]);
    let output = place.run(&format!("clean {}", nobody(&format!("{rights},+bpf"))));
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert_eq!(attached(place.cgroup.path(), INGRESS), [program.info().id]);
    // With them it is told who holds it.
    let output =
        place.run(&format!("scan {}", nobody(&format!("{rights},+dac_read_search,+dac_override"))));
    assert_eq!(findings(&json(&output)), ["active"], "{}", shown(&output));
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
}

#[test]
fn root_in_a_pid_namespace_with_the_proc_of_another_a_living_owner_is_not_taken_for_dead() {
    let place = Place::of(ScratchCgroup::new("stale-proc"), "chadthrottle*");
    // From now on this thread's children are in another pid namespace, and the first of them is its first process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
    let mut first = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let namespace = std::fs::metadata(format!("/proc/{}/ns/pid", first.id())).unwrap();
    let owner = Owner {
        pid: 1,
        start_time: kernel::process::start_time(first.id()).unwrap().unwrap(),
        pid_namespace: u32::try_from(std::os::unix::fs::MetadataExt::ino(&namespace)).unwrap(),
        ..Owner::this_process("test").unwrap()
    };
    let program = load(&owner, 0, Parts::default()).unwrap().egress;
    let open = kernel::cgroup::Cgroup::open(place.cgroup.path()).unwrap();
    attach(program.as_fd(), &open, EGRESS, MULTI, None).unwrap();
    arm(&program, &open);
    // Nobody is seen to hold it, so all rests on the owner.
    drop(program);
    // What `/proc` has as process 1 is the first of the host.
    let stale = place.run("scan");
    let right = place.run("mount -t proc proc /proc; scan");
    first.kill().unwrap();
    first.wait().unwrap();
    not_known(&stale, &["process 1 of another pid or time namespace", "cannot be told from here"]);
    assert_eq!(right.status.code(), Some(0), "{}", shown(&right));
    assert_eq!(findings(&json(&right)), ["active"]);
}

#[test]
fn root_what_only_a_thread_holds_is_held_though_the_first_has_ended_or_has_other_files() {
    for how in ["leaderless", "unshared"] {
        let cgroup = ScratchCgroup::new(how);
        let (folder, names) = (tempfile::tempdir().unwrap(), Names::new());
        let daemon = compiled(&folder, "tests/root/daemon.c");
        let output = Command::new(daemon).arg(cgroup.path()).args([&names.leak, how]).output();
        let pid: i32 = String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().unwrap();
        let has_leader =
            || !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
        while how == "leaderless" && has_leader() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let started = kernel::process::start_time(u32::try_from(pid).unwrap()).unwrap();
        let (status, report) = scan(cgroup.path(), &names.leak, &[]);
        let cleaned = clean(cgroup.path(), &names.leak);
        let left = attached(cgroup.path(), EGRESS).len();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(started.is_some(), "{how}: it was taken for a zombie");
        assert_eq!((status, findings(&report)), (0, vec!["active".to_owned()]), "{how}: {report}");
        assert_eq!(report["attachments"][0]["holders"][0]["pid"], pid, "{how}");
        assert_eq!((cleaned.status.code(), left), (Some(0), 1), "{how}: {}", shown(&cleaned));
    }
}
