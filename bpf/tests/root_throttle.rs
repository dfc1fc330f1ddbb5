//! The packet programs on the real kernel: their owner, their names, their pins, and what happens without rights.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use bpf::advice::explained;
use bpf::{LinuxBpf, Owner, owner_of};
use kernel::boundary::{Pins as _, Programs as _};
use kernel::cgroup::Cgroup;
use kernel::error::Kind;
use kernel::list::{Scope, query};
use kernel::objects::{cgroup_links, program, program_ids};
use kernel::{AttachType, Link, Program};
use nix::errno::Errno;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

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

#[test]
fn root_a_pin_that_cannot_be_made_leaves_no_folder() {
    isolate();
    let Scratch { cgroup: _cgroup, open } = scratch("nopin");
    let link = Link::create(pass("chadtest_nopin").as_fd(), &open, EGRESS).unwrap();
    // A bpffs takes no name with a dot.
    let path = PathBuf::from("/sys/fs/bpf/chadtest/a.link");
    let error = LinuxBpf::new().unwrap().link_pin(&link, &path).unwrap_err();
    assert_eq!(error.errno(), Errno::EPERM);
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn root_the_owner_is_read_from_the_kernel_and_printed_by_bpftool() {
    let owner = Owner::this_process("9.8.7-test").unwrap();
    let loaded = bpf::throttle::load(&owner, 0, bpf::throttle::Parts::TCP).unwrap();
    for ours in [&loaded.ingress, &loaded.egress, loaded.sockops.as_ref().unwrap()] {
        let id = ours.info().id;
        assert!(program_ids().unwrap().contains(&id));
        let found = program(id).unwrap().unwrap();
        assert_eq!(found.info(), ours.info());
        assert_eq!(owner_of(&found).unwrap().as_ref(), Some(&owner));
        assert!(found.memlock_bytes().unwrap() > 0);

        let shown = Command::new("bpftool").args(["prog", "show", "id", &id.to_string()]).output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        for text in [
            format!("owner_pid = {}", owner.pid),
            format!("owner_start = {}", owner.start_time),
            "9.8.7-test".to_owned(),
            owner.boot_id.clone(),
        ] {
            assert!(shown.contains(&text), "{text} in:\n{shown}");
        }
    }
    let id = loaded.ingress.info().id;
    drop(loaded);
    assert!(program(id).unwrap().is_none());
}

#[test]
fn root_a_name_that_the_kernel_has_cut_is_read_whole_and_as_bpftool_shows_it() {
    let owner = Owner::this_process("test").unwrap();
    let loaded = bpf::throttle::load(&owner, 0, bpf::throttle::Parts::TCP).unwrap();
    for (ours, name) in [
        (&loaded.ingress, "chadthrottle_ingress"),
        (&loaded.egress, "chadthrottle_egress"),
        (loaded.sockops.as_ref().unwrap(), "chadthrottle_sockops"),
    ] {
        assert_eq!(ours.info().name, name[..15]);
        assert_eq!(ours.full_name().unwrap().as_deref(), Some(name));
        let told = LinuxBpf::new().unwrap().program_info(ours.info().id).unwrap();
        assert_eq!((told.name.as_str(), ours.whole_name().as_str()), (name, name));
        let id = ours.info().id.to_string();
        let shown = Command::new("bpftool").args(["prog", "show", "id", &id]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(&format!("name {name} ")), "{shown}");
    }
    // Without type information, and with a name that fits.
    assert_eq!(pass("chadtest_15_long").full_name().unwrap(), None);
    assert_eq!(pass("chadtest_15_long").whole_name(), "chadtest_15_lon");
    assert_eq!(pass("chadtest_short").full_name().unwrap(), None);
}

#[test]
fn root_a_program_without_metadata_has_no_owner() {
    assert_eq!(owner_of(&pass("chadtest_anon")).unwrap(), None);
}

#[test]
fn root_without_rights_nothing_is_taken_for_an_empty_list() {
    use nix::unistd::{Uid, seteuid};
    let Scratch { cgroup: _cgroup, open } = scratch("rights");
    seteuid(Uid::from_raw(65_534)).unwrap();
    let load = || bpf::throttle::load(&Owner::this_process("x")?, 0, bpf::throttle::Parts::TCP);
    let answers = [
        (query(&open, EGRESS, Scope::Local, false).map(drop), "CAP_NET_ADMIN"),
        (program_ids().map(drop), "CAP_SYS_ADMIN"),
        (cgroup_links().map(drop), "CAP_SYS_ADMIN"),
        (load().map(drop), "CAP_BPF and CAP_NET_ADMIN"),
    ];
    // What an error advises goes by the rights that its reader has.
    let said = answers.map(|(answer, capability)| {
        let error = answer.unwrap_err();
        (error.kind(), explained(&error), capability)
    });
    seteuid(Uid::from_raw(0)).unwrap();
    for (kind, text, capability) in said {
        assert_eq!(kind, Kind::Denied, "{text}");
        assert!(text.contains(&format!("must run as root ({capability} ")), "{text}");
    }
}
