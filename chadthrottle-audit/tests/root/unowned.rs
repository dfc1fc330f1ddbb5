//! What nothing says the owner of: it is told of and left alone; and what `--force` may do, and may not.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::{AttachFlags, MAX_PROGRAMS};
use kernel::{AttachType, LinkId, Program, ProgramId};
use serde_json::Value;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;

const MULTI: AttachFlags = AttachFlags::MULTI;

fn device() -> AttachType {
    AttachType::all().find(|it| it.name() == "cgroup_device").unwrap()
}

/// A process in a cgroup.
struct Inside(Child);

impl Inside {
    fn new(cgroup: &Path) -> Self {
        let child = Self(Command::new("sleep").arg("1000").spawn().unwrap());
        fs::write(cgroup.join("cgroup.procs"), child.0.id().to_string()).unwrap();
        child
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A link that only a pin keeps.
fn pin(cgroup: &Path, name: &str, pin: &Path) -> (ProgramId, LinkId) {
    fs::create_dir_all(pin.parent().unwrap()).unwrap();
    let program = Program::load_pass(name, EGRESS).unwrap();
    let link = Link::create(program.as_fd(), &Cgroup::open(cgroup).unwrap(), EGRESS).unwrap();
    link.pin(pin).unwrap();
    (program.info().id, link.id())
}

fn force(root: &Path, program: &str, ids: &[ProgramId]) -> std::process::Output {
    let mut command = audit(&["clean", "--yes", "--program", program]);
    command.arg("--root").arg(root);
    for id in ids {
        command.args(["--force", &id.to_string()]);
    }
    command.output().unwrap()
}

fn reasons(report: &Value) -> Vec<String> {
    let all = ["attachments", "programs"].iter().flat_map(|list| report[list].as_array().unwrap());
    all.map(|it| it["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn root_a_link_that_another_tool_has_pinned_on_purpose_stays_and_so_does_a_forgotten_program() {
    isolate();
    let cgroup = ScratchCgroup::new("pinned");
    let names = Names::new();
    let path = Path::new("/sys/fs/bpf/acme/fw");
    let (meant, link) = pin(cgroup.path(), &names.foreign, path);
    let stale = plant(cgroup.path(), &names.foreign, EGRESS, MULTI);
    let (status, report) = scan(cgroup.path(), &names.foreign, &[]);
    assert_eq!((status, findings(&report)), (0, vec!["unowned".to_owned(); 2]), "{report}");
    assert_eq!(report["leaks"], Value::from([(); 0]));
    assert_eq!(report["summary"]["unowned"], 2);
    let reasons = reasons(&report);
    assert!(reasons.iter().any(|it| it.contains("pinned as /sys/fs/bpf/acme/fw")), "{reasons:?}");
    assert!(reasons.iter().any(|it| it.contains(&format!("through link {link}"))), "{reasons:?}");

    let output = clean(cgroup.path(), &names.foreign);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(path.exists());
    assert_eq!(attached(cgroup.path(), EGRESS), [meant, stale]);

    // What is pinned stays even by force; what nobody keeps goes, as another program is there.
    let output = force(cgroup.path(), &names.foreign, &[meant]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        shown(&output).contains(", so somebody keeps it: remove the pin with the tool"),
        "{}",
        shown(&output)
    );
    let output = force(cgroup.path(), &names.foreign, &[stale]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains(&format!("forced: program {stale}")), "{}", shown(&output));
    assert!(path.exists());
    assert_eq!(attached(cgroup.path(), EGRESS), [meant]);
}

/// runc#2876: at each `systemctl daemon-reload` one more device filter, until the kernel takes no more.
#[test]
fn root_of_64_device_filters_of_a_running_container_clean_takes_none() {
    let cgroup = ScratchCgroup::new("runc");
    let below = cgroup.child("container");
    let _container = Inside::new(&below);
    let filters: Vec<_> =
        (0..MAX_PROGRAMS).map(|_| plant(cgroup.path(), "", device(), MULTI)).collect();
    let (status, report) = scan(cgroup.path(), "", &[]);
    assert_eq!((status, findings(&report)), (0, vec!["unowned".to_owned(); 64]), "{report}");
    assert_eq!(report["full_places"][0]["slots_used"], 64);
    assert_eq!(report["full_places"][0]["programs"][0]["name"], "");
    let output = clean(cgroup.path(), "");
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), device()), filters);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("64 unowned"), "{text}");

    // The last one is what keeps the container's devices closed: it stays, whatever is asked for. (So does one that
    // somebody else looks at just then, who has it open.)
    let output = std::iter::repeat_with(|| {
        let left = attached(cgroup.path(), device());
        let output = force(cgroup.path(), "", &left);
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        output
    });
    let is_last = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout);
        text.contains("it is the last program at this place, and the cgroup has")
    };
    let output = output.take(30).find(is_last).expect("the last one stays for what it is");
    let left = attached(cgroup.path(), device());
    assert!(left.len() == 1 && filters.contains(&left[0]), "{left:?}: {}", shown(&output));
}

#[test]
fn root_the_last_program_of_a_place_goes_by_force_once_nobody_is_in_the_cgroup() {
    let cgroup = ScratchCgroup::new("last");
    let names = Names::new();
    for is_threaded in [false, true] {
        let place = cgroup.child(format!("threaded-{is_threaded}"));
        let inside = if is_threaded {
            let inside = place.join("inside");
            fs::create_dir(&inside).unwrap();
            fs::write(inside.join("cgroup.type"), "threaded").unwrap();
            inside
        } else {
            place.clone()
        };
        let process = Inside::new(&place);
        if is_threaded {
            fs::write(inside.join("cgroup.threads"), process.0.id().to_string()).unwrap();
        }
        let last = plant(&inside, &names.foreign, INGRESS, MULTI);
        let output = force(&inside, &names.foreign, &[last]);
        assert_eq!(output.status.code(), Some(1), "{is_threaded} {}", shown(&output));
        assert_eq!(attached(&inside, INGRESS), [last]);
        drop(process);
        let output = force(&inside, &names.foreign, &[last]);
        assert_eq!(output.status.code(), Some(0), "{is_threaded} {}", shown(&output));
        assert_eq!(attached(&inside, INGRESS), []);
    }
}

/// Without the pin the link would go, and with it the filter that was not to be detached.
#[test]
fn root_by_force_the_pin_of_what_stays_attached_stays_too() {
    isolate();
    let cgroup = ScratchCgroup::new("kept");
    let names = Names::new();
    let path = Path::new("/sys/fs/bpf/chadthrottle/1/fw");
    let (id, _) = pin(cgroup.path(), &names.foreign, path);
    let process = Inside::new(cgroup.path());
    let output = force(cgroup.path(), &names.foreign, &[id]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(path.exists(), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), EGRESS), [id]);
    drop(process);
    let output = force(cgroup.path(), &names.foreign, &[id]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(!path.exists());
    assert_eq!(attached(cgroup.path(), EGRESS), []);
}

#[test]
fn root_what_a_process_holds_or_what_is_not_unowned_stays_by_force() {
    let cgroup = ScratchCgroup::new("held");
    let names = Names::new();
    let held = hold(cgroup.path(), &names.foreign, INGRESS);
    plant(cgroup.path(), &names.foreign, INGRESS, MULTI);
    let leak = plant(cgroup.path(), &names.leak, INGRESS, MULTI);
    let before = attached(cgroup.path(), INGRESS);
    let output = force(cgroup.path(), &names.foreign, &[held.info().id]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let pid = std::process::id();
    assert!(shown(&output).contains(&format!("process {pid} (")), "{}", shown(&output));
    assert!(shown(&output).contains("holds it, and so answers for it"), "{}", shown(&output));
    // An id that is wrong keeps the rest from being done as well.
    for (program, id, why) in [
        (&names.leak, leak, "is a leak"),
        (&names.leak, held.info().id, "is foreign, not unowned"),
        (&names.foreign, ProgramId(u32::MAX), "no program 4294967295"),
    ] {
        let output = force(cgroup.path(), program, &[id]);
        assert_eq!(output.status.code(), Some(64), "{}", shown(&output));
        assert!(shown(&output).contains(why), "{why}: {}", shown(&output));
    }
    assert_eq!(attached(cgroup.path(), INGRESS), before);
}

#[test]
fn root_a_defunct_link_of_somebody_is_told_of_and_left() {
    isolate();
    let cgroup = ScratchCgroup::new("stale");
    let names = Names::new();
    let path = Path::new("/sys/fs/bpf/acme/old");
    pin(cgroup.path(), &names.foreign, path);
    drop(cgroup);
    let (status, report) = scan(Path::new("/"), &names.foreign, &[]);
    assert_eq!((status, findings(&report)), (0, vec!["unowned".to_owned()]), "{report}");
    let reason = report["programs"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("; defunct: ") && reason.contains("pinned as /sys/"), "{reason}");
    let output = clean(Path::new("/"), &names.foreign);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(path.exists());
}

#[test]
fn root_a_place_that_is_nearly_full_is_told_of_in_a_plain_scan() {
    let cgroup = ScratchCgroup::new("crowded");
    let names = Names::new();
    let tell = || {
        let output = audit(&["scan", "--root"]).arg(cgroup.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for _ in 0..47 {
        plant(cgroup.path(), &names.foreign, INGRESS, MULTI);
    }
    plant(cgroup.path(), &names.foreign, EGRESS, AttachFlags::OVERRIDE);
    assert!(!tell().contains("nearly full"), "{}", tell());
    plant(cgroup.path(), &names.foreign, INGRESS, MULTI);
    let told = format!(
        "{}, cgroup_inet_ingress: 48 of 64 programs, nearly full: 48 {}",
        cgroup.relative().display(),
        names.foreign
    );
    assert!(tell().contains(&told), "{}", tell());
    assert!(!tell().contains("cgroup_inet_egress"), "{}", tell());
}

#[test]
fn root_without_yes_and_without_a_terminal_force_does_nothing() {
    let cgroup = ScratchCgroup::new("refuse");
    let names = Names::new();
    let ids = [0, 1].map(|_| plant(cgroup.path(), &names.foreign, INGRESS, MULTI));
    let one = ids[0].to_string();
    let forced = ["--program", &names.foreign, "--force", &one, "--root"];
    let output = audit(&["clean"]).args(forced).arg(cgroup.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", shown(&output));
    let output = audit(&["clean", "--dry-run"]).args(forced).arg(cgroup.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(
        shown(&output).contains(&format!("would detach program {one} (")),
        "{}",
        shown(&output)
    );
    assert_eq!(attached(cgroup.path(), INGRESS), ids);
}

/// What `clean` says and does where it may ask, to these answers; its standard output goes to the file.
fn answered(arguments: &str, answers: &str, stdout: &Path) -> std::process::Output {
    let program = env!("CARGO_BIN_EXE_chadthrottle-audit");
    let command = format!("{program} clean {arguments} >{}", stdout.display());
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    script.wait_with_output().unwrap()
}

#[test]
fn root_at_a_terminal_each_program_that_is_forced_is_asked_for_by_name() {
    let cgroup = ScratchCgroup::new("asked");
    let (names, folder) = (Names::new(), tempfile::tempdir().unwrap());
    let stdout = folder.path().join("stdout");
    let ids = [0, 1, 2].map(|_| plant(cgroup.path(), &names.foreign, INGRESS, MULTI));
    let arguments = format!(
        "--program {} --force {} --force {} --root {}",
        names.foreign,
        ids[0],
        ids[1],
        cgroup.path().display()
    );
    let declined = answered(&format!("{arguments} --format json"), "n\nno\n", &stdout);
    let talk = shown(&declined);
    for id in &ids[..2] {
        assert!(talk.contains(&format!("Remove program {id} ({})", names.foreign)), "{talk}");
    }
    assert!(talk.contains("Nothing was done."), "{talk}");
    assert_eq!(attached(cgroup.path(), INGRESS), ids);
    let report: Value = serde_json::from_str(&fs::read_to_string(&stdout).unwrap()).unwrap();
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{report}");
    assert!(
        steps.iter().all(|it| it["outcome"] == "left" && it["why"] == "nobody agreed to it"),
        "{report}"
    );

    let one = answered(&arguments, "n\ny\n", &stdout);
    assert_eq!(attached(cgroup.path(), INGRESS), [ids[0], ids[2]], "{}", shown(&one));
    let told = fs::read_to_string(&stdout).unwrap();
    assert!(told.contains(&format!("detached program {}", ids[1])), "{told}");
}
