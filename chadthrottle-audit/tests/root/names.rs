//! Names that imitate ours, that mean harm to a terminal, or that lead elsewhere.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use bpf::Owner;
use bpf::throttle::{Loaded, Parts, load};
use kernel::Program;
use kernel::cgroup::Cgroup;
use kernel::link::Link;
use kernel::list::attach;
use kernel::process::start_time;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;

use crate::common::*;
use crate::place::{MULTI, arm, dead_owner};

/// Programs that say that they were made by somebody, attached the legacy way.
pub(crate) fn forged(cgroup: &Path, owner: &Owner) -> Loaded {
    let loaded = load(owner, 0, Parts::default()).unwrap();
    let open = Cgroup::open(cgroup).unwrap();
    attach(loaded.egress.as_fd(), &open, EGRESS, MULTI, None).unwrap();
    loaded
}

fn scan_ours(cgroup: &Path) -> Output {
    audit(&["scan", "--root"]).arg(cgroup).output().unwrap()
}

/// Nothing in it that a terminal would obey.
fn is_plain(output: &Output) -> bool {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(said).unwrap().chars().all(|it| it == '\n' || !it.is_control())
}

#[test]
fn root_a_name_like_ours_on_anothers_program_that_is_held_is_not_removed() {
    let cgroup = ScratchCgroup::new("imitated");
    // The very name; no metadata, no maps, and this process has it open.
    let imitator = hold(cgroup.path(), "chadthrottle_in", INGRESS);
    let output = audit(&["clean", "--yes", "--root"]).arg(cgroup.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(attached(cgroup.path(), INGRESS), [imitator.info().id]);
}

#[test]
fn root_a_forged_owner_is_believed_only_if_it_lives_and_is_the_one_that_is_named() {
    let here = Owner::this_process("test").unwrap();
    let started = |pid| start_time(pid).unwrap().unwrap();
    let evil = "\x1b[31m\x1b]0;x\x07\n\u{202e}".repeat(40);
    for (forgery, is_leak) in [
        // The first process has another start time.
        (Owner { pid: 1, start_time: started(1) + 1, ..here.clone() }, true),
        (Owner { pid: u32::MAX, ..here.clone() }, true),
        (Owner { boot_id: evil.clone(), version: evil, ..here.clone() }, true),
        // Whoever names a process that lives hides a leak of its own, and hurts nobody else.
        (Owner { pid: 1, start_time: started(1), ..here.clone() }, false),
        (Owner { pid_namespace: 1, ..here }, false),
    ] {
        let cgroup = ScratchCgroup::new("forged");
        let loaded = forged(cgroup.path(), &forgery);
        arm(&loaded.egress, &Cgroup::open(cgroup.path()).unwrap());
        let output = scan_ours(cgroup.path());
        assert!(is_plain(&output), "{}", shown(&output));
        assert_eq!(
            output.status.code(),
            Some(i32::from(is_leak)),
            "{forgery:?} {}",
            shown(&output)
        );
        let output = audit(&["clean", "--yes", "--root"]).arg(cgroup.path()).output().unwrap();
        assert!(is_plain(&output), "{}", shown(&output));
        assert_eq!(attached(cgroup.path(), EGRESS).is_empty(), is_leak, "{forgery:?}");
    }
}

/// A shell that calls itself something, with a program open, and sleeps.
struct Named(Child);

impl Named {
    fn new(name: &str, program: &Program) -> Self {
        let script = r#"printf '%s' "$1" >/proc/$$/comm; echo named; kill -STOP $$"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", name]).stdout(Stdio::piped());
        shell.stdin(program.as_fd().try_clone_to_owned().unwrap());
        let mut child = shell.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "named\n");
        Self(child)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn root_a_process_that_is_called_by_an_escape_sequence_is_named_plainly() {
    let cgroup = ScratchCgroup::new("comm");
    let loaded = forged(cgroup.path(), &dead_owner());
    let _holder = Named::new("\x1b[2Ja\nb", &loaded.egress);
    let output = scan_ours(cgroup.path());
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(is_plain(&output), "{}", shown(&output));
    assert!(shown(&output).contains(r"(\x1b[2Ja\nb)"), "{}", shown(&output));
    let output = audit(&["clean", "--yes", "--root"]).arg(cgroup.path()).output().unwrap();
    assert!(is_plain(&output), "{}", shown(&output));
    assert!(shown(&output).contains(r"(\x1b[2Ja\nb) closes it"), "{}", shown(&output));
}

/// A link that only its pin keeps.
fn pinned(cgroup: &Path, name: &str, pin: &Path) {
    let program = Program::load_pass(name, EGRESS).unwrap();
    let open = Cgroup::open(cgroup).unwrap();
    Link::create(program.as_fd(), &open, EGRESS).unwrap().pin(pin).unwrap();
}

#[test]
fn root_a_pin_with_a_newline_and_an_escape_sequence_in_its_path_is_named_plainly_and_removed() {
    isolate();
    let cgroup = ScratchCgroup::new("pin-name");
    let names = Names::new();
    let folder = Path::new("/sys/fs/bpf/chadthrottle/\x1b]0;x\x07");
    fs::create_dir_all(folder).unwrap();
    let pin = folder.join("a\nclean: no leak\u{202e}");
    pinned(cgroup.path(), &names.leak, &pin);
    let scan = ["scan", "--program", &names.leak, "--root"];
    let output = audit(&scan).arg(cgroup.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(is_plain(&output), "{}", shown(&output));
    let path = r"/sys/fs/bpf/chadthrottle/\x1b]0;x\x07/a\nclean: no leak\u{202e}";
    assert!(shown(&output).contains(path), "{}", shown(&output));
    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(is_plain(&output), "{}", shown(&output));
    assert!(shown(&output).contains(&format!("unpinned {path}")), "{}", shown(&output));
    assert!(!pin.exists());
}

#[test]
fn root_symbolic_links_in_a_bpffs_are_not_followed() {
    const OURS: &str = "chadthrottle/1/ours";
    isolate();
    let cgroup = ScratchCgroup::new("symlinks");
    let names = Names::new();
    let at = |name: &str| Path::new("/sys/fs/bpf").join(name);
    pinned(cgroup.path(), &names.foreign, &at("theirs"));
    let foreign = attached(cgroup.path(), EGRESS);
    fs::create_dir_all(at("chadthrottle/1")).unwrap();
    pinned(cgroup.path(), &names.leak, &at(OURS));
    fs::write("/run/file", "somebody's").unwrap();
    let links = [
        ("to-theirs", "/sys/fs/bpf/theirs"),
        ("to-ours", "/sys/fs/bpf/chadthrottle/1/ours"),
        ("to-a-file", "/run/file"),
        ("to-itself", "/sys/fs/bpf/to-itself"),
        ("to-a-folder", "/sys/fs/bpf"),
        ("to-nothing", "/nowhere"),
    ];
    for (name, target) in links {
        symlink(target, at(name)).unwrap();
    }
    let (status, report) = scan(cgroup.path(), &names.leak, &[]);
    assert_eq!((status, findings(&report)), (1, vec!["orphaned_pin".to_owned()]));
    let ours = report["leaks"][0]["program"]["id"].clone();
    let of_ours =
        report["attachments"].as_array().unwrap().iter().find(|it| it["program"]["id"] == ours);
    assert_eq!(of_ours.unwrap()["pins"], serde_json::json!(["/sys/fs/bpf/chadthrottle/1/ours"]));
    assert!(!report["coverage"]["gaps"].to_string().contains("/sys/fs/bpf"), "{report}");

    let output = clean(cgroup.path(), &names.leak);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(!at(OURS).exists() && at("theirs").exists());
    assert_eq!(attached(cgroup.path(), EGRESS), foreign);
    assert_eq!(fs::read_to_string("/run/file").unwrap(), "somebody's");
    assert!(links.iter().all(|(name, _)| at(name).is_symlink()), "the links stay as well");
}

#[test]
fn root_a_comparison_tells_whole_names_where_the_kernel_has_cut_them() {
    let cgroup = ScratchCgroup::new("whole");
    let folder = tempfile::tempdir().unwrap();
    let snapshot = |name: &str| {
        let path = folder.path().join(name);
        let mut command = audit(&["snapshot", "--all", "--root"]);
        command.arg(cgroup.path()).arg("--output").arg(&path);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
        path
    };
    let before = snapshot("before");
    let loaded = load(&dead_owner(), 0, Parts::default()).unwrap();
    let after = snapshot("after");
    let id = loaded.ingress.info().id;
    let output = audit(&["diff"]).args([&before, &after]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let told = format!("program {id} (chadthrottle_ingress)");
    assert!(shown(&output).contains(&told), "{}", shown(&output));
}
