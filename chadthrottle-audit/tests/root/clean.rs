//! The cure: what is leaked goes, and nothing else does.

use std::os::fd::AsFd;

use kernel::Program;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::AttachFlags;
use kernel::pins::is_on_bpffs;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;
use crate::names::forged;
use crate::place::{arm, dead_owner};

const MULTI: AttachFlags = AttachFlags::MULTI;

#[test]
fn root_the_historical_leak_is_found_and_cleaned() {
    let cgroup = ScratchCgroup::new("history");
    let names = Names::new();
    for attach_type in [INGRESS, EGRESS] {
        plant(cgroup.path(), &names.leak, attach_type, MULTI);
    }
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!(status, 1);
    assert_eq!(findings(&report), ["orphaned_attachment", "orphaned_attachment"]);
    assert_eq!(report["verdict"], "leaks");

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), INGRESS), []);
    assert_eq!(attached(cgroup.path(), EGRESS), []);

    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, &report["verdict"]), (0, &"clean".into()));
}

#[test]
fn root_the_leak_is_found_under_its_historical_name_without_options_but_the_root() {
    let cgroup = ScratchCgroup::new("default");
    let id = testkit::leak::plant(cgroup.path(), INGRESS).unwrap();
    let output = audit(&["scan", "--root"]).arg(cgroup.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("{id} chadthrottle_in")), "{text}");
}

#[test]
fn root_foreign_programs_keep_their_place_and_order() {
    let cgroup = ScratchCgroup::new("order");
    let names = Names::new();
    let mut foreign = Vec::new();
    for round in 0..3 {
        foreign.push(plant(cgroup.path(), &names.foreign, INGRESS, MULTI));
        for _ in 0..round {
            plant(cgroup.path(), &names.leak, INGRESS, MULTI);
        }
    }
    plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    foreign.push(plant(cgroup.path(), &names.foreign, INGRESS, MULTI));
    assert_eq!(attached(cgroup.path(), INGRESS).len(), 8);

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), INGRESS), foreign);
}

#[test]
fn root_override_and_none_lists_are_cleaned_and_those_of_others_are_not() {
    let names = Names::new();
    for flags in [AttachFlags::OVERRIDE, AttachFlags::empty()] {
        let cgroup = ScratchCgroup::new("kinds");
        let theirs = cgroup.child("theirs");
        let ours = cgroup.child("ours");
        let foreign = plant(&theirs, &names.foreign, INGRESS, flags);
        plant(&ours, &names.leak, INGRESS, flags);
        let output = clean(cgroup.path(), &names.leak);
        assert_eq!(output.status.code(), Some(0), "{flags:?} {}", shown(&output));
        assert_eq!(attached(&ours, INGRESS), []);
        assert_eq!(attached(&theirs, INGRESS), [foreign]);
    }
}

#[test]
fn root_a_full_list_is_cleaned() {
    let cgroup = ScratchCgroup::new("full");
    let names = Names::new();
    for _ in 0..kernel::list::MAX_PROGRAMS {
        plant(cgroup.path(), &names.leak, EGRESS, MULTI);
    }
    let (_, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!(report["attachments"][0]["slots_used"], 64);
    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), EGRESS), []);
}

#[test]
fn root_what_a_living_process_holds_is_left_alone() {
    let cgroup = ScratchCgroup::new("alive");
    let names = Names::new();
    let legacy = hold(cgroup.path(), &names.leak, INGRESS);
    let program = Program::load_pass(&names.leak, EGRESS).unwrap();
    let open = Cgroup::open(cgroup.path()).unwrap();
    let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (0, vec!["active".to_owned(); 2]));

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), INGRESS), [legacy.info().id]);
    assert_eq!(attached(cgroup.path(), EGRESS), [program.info().id]);
    assert_eq!(link.info().unwrap().cgroup_id, Some(open.id()));
}

#[test]
fn root_an_orphaned_pin_is_removed_and_its_link_ends() {
    isolate();
    let cgroup = ScratchCgroup::new("pin");
    let names = Names::new();
    let folder = std::path::Path::new("/sys/fs/bpf/chadthrottle/1");
    std::fs::create_dir_all(folder).unwrap();
    let pin = folder.join("link");
    {
        let program = Program::load_pass(&names.leak, EGRESS).unwrap();
        let open = Cgroup::open(cgroup.path()).unwrap();
        Link::create(program.as_fd(), &open, EGRESS).unwrap().pin(&pin).unwrap();
    }
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (1, vec!["orphaned_pin".to_owned()]));
    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(!folder.exists());
    assert!(folder.parent().unwrap().exists());
    assert_eq!(attached(cgroup.path(), EGRESS), []);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert!(lines.len() == 2 && lines[0].starts_with("detached program"), "{text}");
    assert!(lines[1].starts_with("unpinned /sys/fs/bpf/chadthrottle/1/link"), "{text}");
}

#[test]
fn root_a_throttle_that_is_pinned_in_another_mount_namespace_is_left_alone() {
    let cgroup = ScratchCgroup::new("mounts");
    let names = Names::new();
    // The thread that pins it has mounts of its own, and stays until it is asked to end.
    let (pinned, is_pinned) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (cgroup, names) = (&cgroup, &names);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            isolate();
            let program = Program::load_pass(&names.leak, EGRESS).unwrap();
            let open = Cgroup::open(cgroup.path()).unwrap();
            let link = Link::create(program.as_fd(), &open, EGRESS).unwrap();
            link.pin(std::path::Path::new("/sys/fs/bpf/link")).unwrap();
            drop((program, link));
            pinned.send(()).unwrap();
            let _ = ended.recv();
        });
        is_pinned.recv().unwrap();
        let (status, report) = scan(cgroup.path(), &names.leak, &[]);
        // Where the host has no bpffs at all, one that is out of sight may keep anything.
        let (verdict, finding, told) = if is_on_bpffs("/sys/fs/bpf".as_ref()).unwrap() {
            (1, "unreachable_program", "the bpffs of another mount namespace")
        } else {
            (2, "unknown", "not every pin could be read, and one may keep it")
        };
        assert_eq!((status, findings(&report)), (verdict, vec![finding.to_owned()]), "{report}");
        let output = clean(cgroup.path(), &names.leak);
        assert_eq!(output.status.code(), Some(verdict), "{}", shown(&output));
        assert!(shown(&output).contains(told), "{}", shown(&output));
        assert_eq!(attached(cgroup.path(), EGRESS).len(), 1);
        drop(end);
    });
}

#[test]
fn root_a_dry_run_changes_nothing() {
    let cgroup = ScratchCgroup::new("dry");
    let names = Names::new();
    let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let output = audit(&["clean", "--dry-run", "--program", &names.leak, "--root"])
        .arg(cgroup.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("would detach program {leak} ({})", names.leak)), "{text}");
    assert_eq!(attached(cgroup.path(), INGRESS), [leak]);
}

#[test]
fn root_without_yes_and_without_a_terminal_nothing_is_done() {
    let cgroup = ScratchCgroup::new("refuse");
    let names = Names::new();
    let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let output =
        audit(&["clean", "--program", &names.leak, "--root"]).arg(cgroup.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--yes") && text.contains("--dry-run"), "{text}");
    assert_eq!(attached(cgroup.path(), INGRESS), [leak]);
}

#[test]
fn root_clean_gives_the_whole_name_of_a_program_in_text_and_json() {
    let cgroup = ScratchCgroup::new("whole");
    let loaded = forged(cgroup.path(), &dead_owner());
    arm(&loaded.egress, &Cgroup::open(cgroup.path()).unwrap());
    drop(loaded);
    let named = "(chadthrottle_egress)";
    let run = |args: &[&str]| {
        let output = audit(&["clean", "--root"]).arg(cgroup.path()).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["--dry-run"]);
    assert!(text.lines().next().unwrap().contains(named), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["--dry-run", "--format", "json"])).unwrap();
    assert_eq!(json["steps"][0]["program_name"], "chadthrottle_egress");
    assert!(json["steps"][0]["about"].as_str().unwrap().ends_with(named), "{json}");
    let text = run(&["--yes"]);
    assert!(
        text.starts_with("detached ") && text.lines().next().unwrap().contains(named),
        "{text}"
    );
}
