//! The kernel's module for ifb makes two devices in the first network namespace when it is loaded. A queue loads it, and so
//! does who looks whether there can be one.
//!
//! It is unloaded here, which takes everybody's devices away: nothing else runs meanwhile (`.config/nextest.toml`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use testkit::cgroup::ScratchCgroup;
use testkit::tcx::has_tcx;
use throttle_core::Spec;

use crate::common::{Pair, engine, program, run, spec};

/// What the kernel calls when it needs a module.
const LOADER: &str = "/proc/sys/kernel/modprobe";

/// The kernel loads modules without a distribution's settings: systemd's have this one make no devices.
struct PlainLoader {
    before: String,
    _folder: TempDir,
}

impl PlainLoader {
    fn new() -> Self {
        let before = fs::read_to_string(LOADER).unwrap().trim_end().to_owned();
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("modprobe");
        fs::write(&script, format!("#!/bin/sh\nexec {before} -C /dev/null \"$@\"\n")).unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(LOADER, script.to_str().unwrap()).unwrap();
        Self { before, _folder: folder }
    }
}

impl Drop for PlainLoader {
    fn drop(&mut self) {
        fs::write(LOADER, &self.before).unwrap();
    }
}

fn is_loaded() -> bool {
    Path::new("/sys/module/ifb").exists()
}

fn unload() {
    if is_loaded() {
        run(&["modprobe", "-r", "ifb"]);
    }
}

/// The ifb devices of the first network namespace.
fn devices_there() -> Vec<String> {
    let words = ["nsenter", "--net=/proc/1/ns/net", "ip", "-br", "link", "show", "type", "ifb"];
    let shown = run(&words);
    shown.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn vm_devices_that_the_module_makes_when_it_is_loaded_are_taken_back_and_those_of_others_are_not() {
    let _pair = Pair::new();
    let _plain = PlainLoader::new();
    unload();
    // Loading it for a device that was asked for makes these two as well.
    run(&["ip", "link", "add", "chadtest2", "type", "ifb"]);
    assert_eq!(devices_there(), ["ifb0", "ifb1"]);
    // They were there before, so they are somebody's.
    open_a_queue();
    look();
    assert_eq!(devices_there(), ["ifb0", "ifb1"]);
    for load in [open_a_queue, look] {
        unload();
        load();
        assert!(is_loaded());
        assert!(devices_there().is_empty(), "{:?}", devices_there());
    }
    unload();
}

fn open_a_queue() {
    let cgroup = ScratchCgroup::new("module");
    let mut engine = engine();
    let queued = Spec { queue: true, ..spec(cgroup.path(), Some(1_000_000), None) };
    match engine.add(&queued) {
        Ok(started) => drop(engine.remove(started.id).unwrap()),
        Err(error) => assert!(!has_tcx() && error.to_string().contains("6.6"), "{error}"),
    }
}

fn look() {
    // Its status is about other things.
    Command::new(program("chadthrottle")).arg("doctor").output().unwrap();
}
