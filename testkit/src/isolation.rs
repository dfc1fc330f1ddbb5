//! Gives a test its own namespaces. Its mounts, pins and network disappear with its process.

use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives this process its own network with only a loopback that is up, an empty `/run`, and an empty bpffs at
/// `/sys/fs/bpf`. Its children share them.
///
/// # Panics
/// Panics without root.
pub fn isolate() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .expect("new namespaces; run as root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("an empty /run");
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).expect("an empty bpffs");
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(status.expect("ip runs").success(), "loopback comes up");
}
