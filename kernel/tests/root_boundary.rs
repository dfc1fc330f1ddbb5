//! The boundary on the real kernel: what it answers, and with which errors.

extern crate cgroup_bpf as kernel;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel::cgroup::{Cgroup, ROOT_CGROUP_ID, cgroup2_mount};
use kernel::error::{Call, Kind};
use kernel::holders::{Holder, holders, still_holding};
use kernel::link::Link;
use kernel::list::{self, AttachFlags, Scope, query};
use kernel::objects::cgroup_links;
use kernel::pins::{Held, Sought, held_by, make_folder_for, pins, remove_empty_folder_of, unpin};
use kernel::{AttachType, Program, probe};
use nix::errno::Errno;
use testkit::cgroup::{ScratchCgroup, remove_tree};
use testkit::isolation::isolate;
use testkit::process::wait_for_name;

const EGRESS: AttachType = AttachType::INET_EGRESS;

struct Scratch {
    cgroup: ScratchCgroup,
    open: Cgroup,
}

fn scratch(label: &str) -> Scratch {
    let cgroup = ScratchCgroup::new(label);
    let open = Cgroup::open(cgroup.path()).unwrap();
    Scratch { cgroup, open }
}

fn pass(name: &str) -> Program {
    Program::load_pass(name, EGRESS).unwrap()
}

fn attach(program: &Program, cgroup: &Cgroup, flags: AttachFlags) -> kernel::Result<()> {
    list::attach(program.as_fd(), cgroup, EGRESS, flags, None)
}

fn local(cgroup: &Cgroup) -> list::ProgramList {
    query(cgroup, EGRESS, Scope::Local, probe::support().unwrap().program_flags).unwrap()
}

#[test]
fn root_probes_agree_with_the_kernels_version() {
    let version = kernel::release::running().unwrap();
    let support = probe::support().unwrap();
    // Older kernels may have it too, as 6.12.117 has revisions: the version tells only that it must be there.
    assert!(support.links || version < (5, 7));
    assert!(support.program_flags || version < (6, 0));
    assert!(support.expected_revision || version < (6, 17));
    let cgroup = ScratchCgroup::new("revision");
    let open = Cgroup::open(cgroup.path()).unwrap();
    assert_eq!(support.expected_revision, local(&open).revision.is_some());
}

#[test]
fn root_every_attach_type_that_the_kernel_knows_is_found() {
    let mount = cgroup2_mount().unwrap();
    let root = Cgroup::open(&mount).unwrap();
    assert_eq!(root.id(), ROOT_CGROUP_ID);
    let known =
        probe::attach_types(&root, AttachType::all(), probe::support().unwrap().program_flags)
            .unwrap();
    assert!(known.contains(&AttachType::INET_INGRESS) && known.contains(&EGRESS), "{known:?}");
    assert!(known.len() > 20, "{known:?}");
}

#[test]
fn root_detach_refuses_what_the_history_tried() {
    let Scratch { cgroup: _cgroup, open } = scratch("history");
    let (ours, other) = (pass("chadtest_ours"), pass("chadtest_other"));
    attach(&ours, &open, AttachFlags::MULTI).unwrap();

    // A program that is not attached here.
    let error = list::detach(other.as_fd(), &open, EGRESS, None).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Vanished, Errno::ENOENT));
    // The same program once more.
    let error = attach(&ours, &open, AttachFlags::MULTI).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (Kind::Other, Errno::EINVAL));
    // Another kind of list.
    let error = attach(&other, &open, AttachFlags::OVERRIDE).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);

    assert_eq!(local(&open).count(ours.info().id), 1);
    list::detach(ours.as_fd(), &open, EGRESS, None).unwrap();
    assert_eq!(local(&open).programs, []);
}

#[test]
fn root_an_attach_or_detach_with_an_old_revision_is_refused() {
    let Scratch { cgroup: _cgroup, open } = scratch("revision");
    let (one, two) = (pass("chadtest_one"), pass("chadtest_two"));
    attach(&one, &open, AttachFlags::MULTI).unwrap();
    let before = local(&open);
    attach(&two, &open, AttachFlags::MULTI).unwrap();
    if !probe::support().unwrap().expected_revision {
        assert_eq!(before.revision, None);
        return;
    }
    let error = list::detach(one.as_fd(), &open, EGRESS, before.revision).unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    let three = pass("chadtest_three");
    let mut options = list::AttachOptions {
        flags: AttachFlags::MULTI,
        expected_revision: before.revision,
        ..Default::default()
    };
    let error = list::attach_with(three.as_fd(), &open, EGRESS, &options).unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    options.expected_revision = local(&open).revision;
    list::attach_with(three.as_fd(), &open, EGRESS, &options).unwrap();
    list::detach(three.as_fd(), &open, EGRESS, None).unwrap();
    assert_eq!(local(&open).programs.len(), 2);
    list::detach(one.as_fd(), &open, EGRESS, local(&open).revision).unwrap();
    assert_eq!(local(&open).programs[0].id, two.info().id);
}

#[test]
fn root_a_query_grows_until_everything_fits() {
    let parent = scratch("parent");
    let child = Cgroup::open(&parent.cgroup.child("child")).unwrap();
    let mut expected = Vec::new();
    for cgroup in [&child, &parent.open] {
        for _ in 0..list::MAX_PROGRAMS {
            let program = pass("chadtest_many");
            attach(&program, cgroup, AttachFlags::MULTI).unwrap();
            expected.push(program.info().id);
        }
    }
    let full = attach(&pass("chadtest_65th"), &child, AttachFlags::MULTI).unwrap_err();
    assert_eq!((full.kind(), full.errno()), (Kind::Full, Errno::E2BIG));
    let effective = query(&child, EGRESS, Scope::Effective, true).unwrap();
    let ids: Vec<_> = effective.programs.iter().map(|program| program.id).collect();
    assert_eq!(ids, expected);
    assert_eq!(local(&child).flags, AttachFlags::MULTI);
}

#[test]
fn root_a_cgroup_that_is_gone_is_vanished() {
    let Scratch { cgroup, open } = scratch("gone");
    remove_tree(cgroup.path()).unwrap();
    assert_eq!(query(&open, EGRESS, Scope::Local, false).unwrap_err().kind(), Kind::Vanished);
    assert_eq!(Cgroup::open(cgroup.path()).unwrap_err().kind(), Kind::Vanished);
}

#[test]
fn root_a_directory_that_is_no_cgroup_is_refused() {
    let error = Cgroup::open(Path::new("/proc")).unwrap_err();
    assert_eq!((error.call(), error.errno()), (Call::OpenCgroup, Errno::EINVAL));
    assert!(error.to_string().contains("not a directory of the cgroup2 hierarchy"), "{error}");
}

#[test]
fn root_a_link_is_seen_and_detached_and_then_defunct() {
    let Scratch { cgroup: _cgroup, open } = scratch("link");
    let program = pass("chadtest_link");
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    let info = link.info().unwrap();
    assert_eq!((info.program_id, info.cgroup_id), (program.info().id, Some(open.id())));
    assert_eq!(info.attach_type, Some(EGRESS));
    assert!(cgroup_links().unwrap().links.contains(&info));
    // A legacy detach does not take a link's program.
    let error = list::detach(program.as_fd(), &open, EGRESS, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Vanished);

    link.detach().unwrap();
    assert_eq!(local(&open).programs, []);
    assert_eq!(link.info().unwrap().cgroup_id, None);
    assert!(cgroup_links().unwrap().links.iter().any(|other| other.id == link.id()));
    // Once more is what was asked for already.
    link.detach().unwrap();
    let id = link.id();
    drop(link);
    assert!(!cgroup_links().unwrap().links.iter().any(|other| other.id == id));
}

#[test]
fn root_a_link_that_is_dropped_detaches() {
    let Scratch { cgroup: _cgroup, open } = scratch("dropped");
    let program = pass("chadtest_drop");
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    assert_eq!(local(&open).count(program.info().id), 1);
    drop(link);
    assert_eq!(local(&open).programs, []);
}

#[test]
fn root_pins_are_found_opened_and_removed() {
    isolate();
    // A bpffs on top of a bpffs: one place in the tree, two lines in mountinfo.
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), flags, none).unwrap();
    let Scratch { cgroup: _cgroup, open } = scratch("pins");
    let program = pass("chadtest_pin");
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    let path = PathBuf::from("/sys/fs/bpf/chadtest dir/li\nnk");
    make_folder_for(&path).unwrap();
    link.pin(&path).unwrap();
    let id = link.id();
    drop(link);
    assert_eq!(local(&open).programs.len(), 1);

    let found = pins(Sought::ProgramsAndLinks).unwrap();
    assert!(found.unreadable.is_empty(), "{found:?}");
    let found: Vec<_> = found.pins.iter().filter(|pin| pin.held == Held::Link(id)).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, path);
    assert_eq!(held_by(&path).unwrap(), Some(Held::Link(id)));
    assert_eq!(Link::open_pinned(&path).unwrap().id(), id);

    unpin(&path).unwrap();
    remove_empty_folder_of(&path).unwrap();
    assert!(!path.parent().unwrap().exists());
    assert_eq!(held_by(&path).unwrap(), None);
    unpin(&path).unwrap();
    // The kernel lets go of an unlinked pin a moment later, in a worker.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !local(&open).programs.is_empty() {
        assert!(
            Instant::now() < deadline,
            "the last pin is gone, and the program is still attached"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn root_a_pin_outside_of_a_bpffs_is_refused() {
    isolate();
    let Scratch { cgroup: _cgroup, open } = scratch("nobpffs");
    let program = pass("chadtest_pin");
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    let error = link.pin(Path::new("/run/link")).unwrap_err();
    assert_eq!(error.call(), Call::ObjPin);
    assert!(link.pin(Path::new("/sys/fs/bpf/no/folder")).unwrap_err().kind() == Kind::Vanished);
}

#[test]
fn root_another_process_that_holds_a_program_is_found() {
    let program = pass("chadtest_hold");
    // Its standard input is a copy of the program's descriptor.
    let descriptor = program.as_fd().try_clone_to_owned().unwrap();
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(descriptor)).spawn().unwrap();
    wait_for_name(child.id(), "sleep");
    let found = holders(Sought::ProgramsAndLinks).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let held = Held::Program(program.info().id);
    let holding: Vec<_> =
        found.holders.iter().filter(|holder| holder.held.contains(&held)).collect();
    assert_eq!(holding.len(), 1, "this process itself is not listed");
    assert_eq!((holding[0].pid, holding[0].comm.as_str()), (child.id(), "sleep"));
}

#[test]
fn root_a_program_that_was_handed_to_another_process_is_held() {
    let program = pass("chadtest_hand");
    let sought = Sought::ProgramsAndLinks;
    let held = Held::Program(program.info().id);
    // Linux gives no process so large a number, so this one has ended since.
    let ended = vec![Holder { pid: 5_000_001, comm: "ended".to_owned(), held: vec![held] }];
    assert_eq!(still_holding(ended.clone(), sought).unwrap(), []);
    let descriptor = program.as_fd().try_clone_to_owned().unwrap();
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(descriptor)).spawn().unwrap();
    wait_for_name(child.id(), "sleep");
    let still = still_holding(ended.clone(), sought);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(still.unwrap(), ended);
}
