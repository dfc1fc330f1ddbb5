//! Findings that can be made on a real kernel, made for real.

use std::fs::{File, create_dir_all};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use bpf::throttle::{Parts, load};
use bpf::{Owner, throttle::Loaded};
use kernel::Program;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{AttachFlags, detach};
use nix::mount::{MsFlags, mount};
use nix::unistd::{UnlinkatFlags, unlinkat};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;

/// Everything, judged by programs of one name.
fn scan_all(program: &str) -> (i32, Vec<String>, String) {
    let (status, report) = scan(Path::new("/"), program, &[]);
    (status, findings(&report), report["leaks"].to_string())
}

#[test]
fn root_an_older_program_of_the_same_owner_is_a_stacked_duplicate() {
    let cgroup = ScratchCgroup::new("stacked");
    let names = Names::new();
    let older = hold(cgroup.path(), &names.leak, INGRESS);
    let newer = hold(cgroup.path(), &names.leak, INGRESS);
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (1, strings(&["active", "stacked_duplicate"])));
    assert_eq!(report["leaks"][0]["program"]["id"], older.info().id.0);

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), INGRESS), [newer.info().id]);
}

#[test]
fn root_a_link_and_a_legacy_attachment_of_one_program_are_stacked_and_the_link_stays() {
    let cgroup = ScratchCgroup::new("both");
    let names = Names::new();
    let program = hold(cgroup.path(), &names.leak, EGRESS);
    let open = Cgroup::open(cgroup.path()).unwrap();
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (1, strings(&["active", "stacked_duplicate"])));

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), EGRESS), [program.info().id]);
    assert_eq!(link.info().unwrap().cgroup_id, Some(open.id()));
}

#[test]
fn root_a_link_that_was_detached_but_is_open_is_defunct_and_its_process_is_named() {
    let cgroup = ScratchCgroup::new("defunct");
    let names = Names::new();
    let link = {
        let program = Program::load_pass(&names.leak, EGRESS).unwrap();
        Link::create(program.as_fd(), &Cgroup::open(cgroup.path()).unwrap(), EGRESS).unwrap()
    };
    link.detach().unwrap();
    let (status, found, leaks) = scan_all(&names.leak);
    assert_eq!((status, found), (1, strings(&["defunct_link"])));
    let pid = std::process::id().to_string();
    assert!(leaks.contains(&pid), "{leaks}");

    let output = clean(Path::new("/"), &names.leak);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&pid), "{}", shown(&output));
    drop(link);
    assert_eq!(scan_all(&names.leak), (0, vec![], "[]".to_owned()));
}

#[test]
fn root_a_link_outlives_its_cgroup_as_a_defunct_one() {
    let cgroup = ScratchCgroup::new("dead");
    let names = Names::new();
    let program = Program::load_pass(&names.leak, EGRESS).unwrap();
    let _link =
        Link::create(program.as_fd(), &Cgroup::open(cgroup.path()).unwrap(), EGRESS).unwrap();
    drop(program);
    drop(cgroup);
    let (status, found, _) = scan_all(&names.leak);
    assert_eq!((status, found), (1, strings(&["defunct_link"])));
}

#[test]
fn root_a_program_that_is_open_but_attached_nowhere_is_unattached() {
    let names = Names::new();
    let program = Program::load_pass(&names.leak, INGRESS).unwrap();
    let (status, found, leaks) = scan_all(&names.leak);
    assert_eq!((status, found), (1, strings(&["unattached_program"])));
    assert!(leaks.contains(&std::process::id().to_string()), "{leaks}");
    drop(program);
}

#[test]
fn root_a_pin_of_a_link_whose_cgroup_died_is_orphaned_and_removed() {
    isolate();
    let cgroup = ScratchCgroup::new("deadpin");
    let names = Names::new();
    let pin = Path::new("/sys/fs/bpf/chadthrottle/1/dead");
    create_dir_all(pin.parent().unwrap()).unwrap();
    {
        let program = Program::load_pass(&names.leak, EGRESS).unwrap();
        let open = Cgroup::open(cgroup.path()).unwrap();
        Link::create(program.as_fd(), &open, EGRESS).unwrap().pin(pin).unwrap();
    }
    drop(cgroup);
    let (status, found, _) = scan_all(&names.leak);
    assert_eq!((status, found), (1, strings(&["orphaned_pin"])));
    let output = clean(Path::new("/"), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(!pin.exists());
}

/// The throttle's own programs, attached the legacy way under this process's name, or another's.
fn throttle(cgroup: &Path, owner: &Owner) -> Loaded {
    let loaded = load(owner, 0, Parts::TCP).unwrap();
    let open = Cgroup::open(cgroup).unwrap();
    let flags = AttachFlags::MULTI;
    kernel::list::attach(loaded.egress.as_fd(), &open, EGRESS, flags, None).unwrap();
    loaded
}

#[test]
fn root_a_throttle_that_its_living_owner_has_disarmed_is_left_over() {
    let cgroup = ScratchCgroup::new("disarmed");
    let throttle = throttle(cgroup.path(), &Owner::this_process("test").unwrap());
    let (status, report) = scan(cgroup.path(), "chadthrottle*", &[]);
    assert_eq!((status, findings(&report)), (1, strings(&["disarmed_attachment"])));
    assert_eq!(report["attachments"][0]["owner"]["pid"], std::process::id());
    assert_eq!(report["attachments"][0]["owner"]["source"], "metadata");

    let output = clean(cgroup.path(), "chadthrottle*");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), EGRESS), []);
    drop(throttle);
}

#[test]
fn root_a_throttle_whose_named_owner_is_dead_is_orphaned_though_somebody_holds_it() {
    let cgroup = ScratchCgroup::new("dead-owner");
    let here = Owner::this_process("test").unwrap();
    let dead = Owner { start_time: here.start_time + 1, ..here };
    let throttle = throttle(cgroup.path(), &dead);
    let (status, report) = scan(cgroup.path(), "chadthrottle*", &[]);
    assert_eq!((status, findings(&report)), (1, strings(&["orphaned_attachment"])));
    assert_eq!(report["attachments"][0]["owner"]["alive"], false);

    let output = clean(cgroup.path(), "chadthrottle*");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), EGRESS), []);
    drop(throttle);
}

/// In this time what happens after the first look has happened.
const SETTLE: &str = "5s";

#[test]
fn root_what_goes_before_the_second_look_is_no_leak() {
    let cgroup = ScratchCgroup::new("settle");
    let names = Names::new();
    let id = plant(cgroup.path(), &names.leak, INGRESS, AttachFlags::MULTI);
    let (status, report) = scan_while(cgroup.path(), &names.leak, SETTLE, || {
        let program = Program::open(id).unwrap();
        detach(program.as_fd(), &Cgroup::open(cgroup.path()).unwrap(), INGRESS, None).unwrap();
    });
    assert_eq!(status, 0, "{report}");
    assert!(report["timings_ms"]["settle"].as_f64().unwrap() >= 5_000.0);
}

/// The kernel frees a program some time after the last that held it has let go.
#[test]
fn root_what_cannot_be_judged_and_goes_before_the_second_look_is_no_gap() {
    isolate();
    // Kept by a pin that nobody sees, as another bpffs covers it.
    let names = Names::new();
    let bpffs = File::open("/sys/fs/bpf").unwrap();
    let program = Program::load_pass(&names.leak, INGRESS).unwrap();
    let pinned = Command::new("bpftool")
        .args(["prog", "pin", "id", &program.info().id.to_string(), "/sys/fs/bpf/unseen"])
        .status();
    assert!(pinned.unwrap().success());
    drop(program);
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    let (status, report) = scan(Path::new("/"), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (2, Vec::new()), "{report}");
    let (status, report) = scan_while(Path::new("/"), &names.leak, SETTLE, || {
        unlinkat(&bpffs, "unseen", UnlinkatFlags::NoRemoveDir).unwrap();
    });
    assert_eq!(status, 0, "{report}");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
