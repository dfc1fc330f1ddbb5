//! What these tests share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bpf::limits::{Burst, FqDevices, Rate, Traffic};
use bpf::{LinuxBpf, Owner};
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use throttle_core::ledger::LedgerDir;
use throttle_core::mode::{TcpWish, Wish};
use throttle_core::{Config, Engine, Spec};

/// The address of the near interface of a [`Pair`].
pub(crate) const NEAR: &str = "198.18.0.1";
/// That of the far one.
pub(crate) const FAR: &str = "198.18.0.2";

/// Two interfaces, the far one in a network of its own, which goes with this.
pub(crate) struct Pair;

impl Pair {
    pub(crate) fn new() -> Self {
        isolate();
        for words in [
            "ip netns add chadtest-far",
            "ip link add chadtest0 type veth peer name chadtest1 netns chadtest-far",
            "ip addr add 198.18.0.1/30 dev chadtest0",
            "ip link set chadtest0 up",
            "ip -n chadtest-far addr add 198.18.0.2/30 dev chadtest1",
            "ip -n chadtest-far link set chadtest1 up",
        ] {
            run(&words.split(' ').collect::<Vec<_>>());
        }
        Self
    }

    /// Gives the near interface another queueing discipline; returns what tc shows of it.
    pub(crate) fn qdisc(words: &str) -> String {
        let command = format!("tc qdisc replace dev chadtest0 root {words}");
        run(&command.split(' ').collect::<Vec<_>>());
        run(&["tc", "-s", "qdisc", "show", "dev", "chadtest0"])
    }

    /// And the far one.
    pub(crate) fn far_qdisc(words: &str) {
        let command = format!("tc -n chadtest-far qdisc replace dev chadtest1 root {words}");
        run(&command.split(' ').collect::<Vec<_>>());
    }

    /// Moves this thread into the far network.
    pub(crate) fn go_far() {
        let far = std::fs::File::open("/run/netns/chadtest-far").unwrap();
        nix::sched::setns(far, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        run(&["ip", "netns", "del", "chadtest-far"]);
    }
}

/// An engine with records and pins of this test's own.
pub(crate) fn engine() -> Engine<LinuxBpf> {
    let config = Config {
        ledger: LedgerDir::new("/run/chadthrottle"),
        pins: "/sys/fs/bpf/chadthrottle".into(),
        bpffs: true,
        owner: Owner::this_process("test").unwrap(),
        mark: 0,
        cgroup_namespace: 0,
    };
    Engine::start(LinuxBpf::new().unwrap(), config).unwrap().0
}

/// Limits of these bytes a second, attached through links.
pub(crate) fn spec(cgroup: &Path, download: Option<u64>, upload: Option<u64>) -> Spec {
    let rate = |rate| Rate::from_bytes_per_second(rate).unwrap();
    Spec {
        cgroup: cgroup.to_owned(),
        cgroup_id: None,
        download: download.map(rate),
        upload: upload.map(rate),
        burst: Burst::DEFAULT,
        traffic: Traffic::All,
        attach: Wish::Link,
        tcp: TcpWish::Auto,
        departures: FqDevices::NONE,
        queue: false,
        displace: false,
    }
}

/// A program of another crate of the workspace, built with it: beside the directory of this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Runs a command, which has to succeed, and returns what it printed.
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// All of what a command said, for messages.
pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What `ip` shows of queues' devices, a line each.
pub(crate) fn devices_of_ours() -> String {
    let shown = run(&["ip", "-o", "link", "show", "type", "ifb"]);
    shown.lines().filter(|line| line.contains("chadq")).collect()
}

/// What holds where the kernel has no tcx: the wish for a queue is not granted, and nothing stays behind.
pub(crate) fn queue_is_refused() {
    let _pair = Pair::new();
    let cgroup = ScratchCgroup::new("refused");
    let mut engine = engine();
    let error = engine.add(&Spec { queue: true, ..spec(cgroup.path(), Some(1_000_000), None) });
    assert!(error.unwrap_err().to_string().contains("6.6"));
    assert!(engine.list().is_empty());
    assert_eq!(devices_of_ours(), "");
}
