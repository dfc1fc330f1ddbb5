//! What rests on something that could not be seen is left alone.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};

use bpf::Owner;
use bpf::ledger::{DEFAULT_DIR, Entry, RecordedAttachment, SCHEMA_VERSION, Stage};
use kernel::Program;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;
use crate::place::arm;

/// Makes a throttle that is meant to outlive its owner, who is dead: a pin, and the entry for it.
fn persist(cgroup: &Path, name: &str, pin: &Path) -> Entry {
    let program = Program::load_pass(name, EGRESS).unwrap();
    let open = Cgroup::open(cgroup).unwrap();
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    link.pin(pin).unwrap();
    let here = Owner::this_process("test").unwrap();
    Entry {
        schema_version: SCHEMA_VERSION,
        throttle: "1".to_owned(),
        owner: Owner { start_time: here.start_time + 1, ..here },
        stage: Stage::Attached,
        persist: true,
        cgroup_path: cgroup.to_owned(),
        cgroup_id: open.id(),
        attachments: vec![RecordedAttachment {
            attach_type: EGRESS,
            program_id: program.info().id,
            tag: program.info().tag.clone(),
            loaded_at_ns: program.info().loaded_at_ns,
            link_id: Some(link.id()),
            pin: Some(pin.to_owned()),
            limits: None,
            former_cgroup: None,
        }],
        waiting: false,
        cgroup_namespace: 0,
        cgroup_top: None,
        displace: false,
    }
}

#[test]
fn root_a_pin_that_is_meant_stays_though_its_entry_is_torn() {
    isolate();
    let cgroup = ScratchCgroup::new("torn");
    let names = Names::new();
    let pin = Path::new("/sys/fs/bpf/meant");
    let entry = persist(cgroup.path(), &names.leak, pin);
    let before = attached(cgroup.path(), EGRESS);
    let file = Path::new(DEFAULT_DIR).join("1.json");
    fs::create_dir(DEFAULT_DIR).unwrap();
    fs::write(&file, serde_json::to_vec(&entry).unwrap()).unwrap();
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (0, vec!["pinned".to_owned()]));

    let torn = || fs::write(&file, "{").unwrap();
    let no_folder = || {
        fs::remove_dir_all(DEFAULT_DIR).unwrap();
        fs::write(DEFAULT_DIR, "").unwrap();
    };
    for (what, tear) in [("an entry", &torn as &dyn Fn()), ("the folder", &no_folder)] {
        tear();
        let (status, report) = scan(cgroup.path(), &names.leak, &[]);
        assert_eq!((status, findings(&report)), (2, vec!["unknown".to_owned()]), "{what}");
        let output = clean(cgroup.path(), &names.leak);
        assert_eq!(output.status.code(), Some(2), "{what}: {}", shown(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("not to be judged: the ledger cannot be read"), "{what}: {text}");
        assert!(pin.exists(), "{what}");
        assert_eq!(attached(cgroup.path(), EGRESS), before, "{what}");
    }
}

/// Runs the program as root, but without the right to look into other processes. Files it may open: the kernel
/// may have made pins in the host's bpffs (`CONFIG_BPF_PRELOAD`) that not even their owner, root, may write to.
fn without_ptrace(args: &[&str], root: &Path) -> Output {
    Command::new("setpriv")
        .args(["--bounding-set", "-all,+net_admin,+sys_admin,+dac_override", "--"])
        .arg(env!("CARGO_BIN_EXE_chadthrottle-audit"))
        .args(args)
        .arg("--root")
        .arg(root)
        .output()
        .unwrap()
}

#[test]
fn root_without_the_right_to_look_into_processes_what_one_holds_is_not_judged() {
    let cgroup = ScratchCgroup::new("ptrace");
    let names = Names::new();
    let held = hold(cgroup.path(), &names.leak, INGRESS);
    let output =
        without_ptrace(&["scan", "--format", "json", "--program", &names.leak], cgroup.path());
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["verdict"], &report["leaks"]),
        (&"incomplete".into(), &Value::from([(); 0]))
    );
    assert_eq!(findings(&report), ["unknown"]);

    let output = without_ptrace(&["clean", "--yes", "--program", &names.leak], cgroup.path());
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), INGRESS), [held.info().id]);
}

#[test]
fn root_in_a_time_namespace_a_living_owner_is_not_taken_for_dead() {
    let cgroup = ScratchCgroup::new("time");
    let throttle =
        bpf::throttle::load(&Owner::this_process("test").unwrap(), 0, bpf::throttle::Parts::TCP)
            .unwrap();
    let open = Cgroup::open(cgroup.path()).unwrap();
    let flags = kernel::list::AttachFlags::MULTI;
    kernel::list::attach(throttle.egress.as_fd(), &open, EGRESS, flags, None).unwrap();
    arm(&throttle.egress, &open);
    let shifted = |more: &[&str]| {
        let output = Command::new("unshare")
            // Before 6.3 only children are in the new namespace.
            .args(["--fork", "-T", "--boottime", "100000", "--"])
            .args(more)
            .arg(env!("CARGO_BIN_EXE_chadthrottle-audit"))
            .args(["scan", "--format", "json", "--program", "chadthrottle*", "--root"])
            .arg(cgroup.path())
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
        (output.status.code(), report)
    };
    let (status, report) = shifted(&[]);
    assert_eq!(
        (status, findings(&report)),
        (Some(0), vec!["active".to_owned()]),
        "its holder is seen"
    );
    let (_, here) = scan(cgroup.path(), "chadthrottle*", &[]);
    let loaded_at = |report: &Value| {
        let text = report["attachments"][0]["program"]["loaded_at"].as_str().unwrap().to_owned();
        text[..text.len() - 2].to_owned()
    };
    assert_eq!(loaded_at(&report), loaded_at(&here));

    // Where its holder is out of sight, the owner that is named is known all the same.
    let blind = ["setpriv", "--bounding-set", "-all,+net_admin,+sys_admin,+dac_override", "--"];
    let (status, report) = shifted(&blind);
    assert_eq!((status, findings(&report)), (Some(0), vec!["active".to_owned()]), "{report}");
    assert_eq!(report["attachments"][0]["owner"]["source"], "metadata");
}

#[test]
fn root_an_owner_that_could_not_tell_when_it_started_is_not_taken_for_dead() {
    let cgroup = ScratchCgroup::new("unknown-start");
    let owner = Owner { start_time: 0, ..Owner::this_process("test").unwrap() };
    let throttle = bpf::throttle::load(&owner, 0, bpf::throttle::Parts::TCP).unwrap();
    let open = Cgroup::open(cgroup.path()).unwrap();
    let flags = kernel::list::AttachFlags::MULTI;
    kernel::list::attach(throttle.egress.as_fd(), &open, EGRESS, flags, None).unwrap();
    arm(&throttle.egress, &open);
    let (status, report) = scan(cgroup.path(), "chadthrottle*", &[]);
    assert_eq!((status, findings(&report)), (0, vec!["active".to_owned()]), "its holder is seen");
    // Without its holder there is nothing to tell.
    let scan = ["scan", "--format", "json", "--program", "chadthrottle*"];
    let output = without_ptrace(&scan, cgroup.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), findings(&report)),
        (Some(2), vec!["unknown".to_owned()]),
        "{report}"
    );
    assert!(report["coverage"].to_string().contains("cannot be told from here"), "{report}");
}

#[test]
fn root_a_snapshot_is_as_complete_as_the_scan_that_would_be_made_of_it() {
    let cgroup = ScratchCgroup::new("answered");
    // It has metadata, so nobody needs to look into processes.
    let throttle =
        bpf::throttle::load(&Owner::this_process("test").unwrap(), 0, bpf::throttle::Parts::TCP)
            .unwrap();
    let open = Cgroup::open(cgroup.path()).unwrap();
    let _link = Link::create(throttle.egress.as_fd(), &open, EGRESS).unwrap();
    arm(&throttle.egress, &open);
    for command in ["scan", "snapshot"] {
        let output = without_ptrace(&[command], cgroup.path());
        assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    }
}
