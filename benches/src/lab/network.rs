//! Sets up two networks with a wire between them. The far one adds delay and loss.
//!
//! ```text
//!   near: the lab's own network                far: a network of its own
//!   +-----------------------------+            +-----------------------------+
//!   | throttled cgroup  chadtest0 |----veth----| chadtest1   iperf3, echo    |
//!   | the systems limit here      |  MTU 1500  | delay and loss are here     |
//!   +-----------------------------+            +-----------------------------+
//! ```
//!
//! All of it is in namespaces of this process, and the name of the far network is in a private `/run`. Every process
//! that the lab starts lives in a scratch cgroup. So nothing stays, even if the lab is killed.

use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::cgroup::{ScratchCgroup, enter};
use testkit::isolation::isolate;

use super::cell::{Cell, Way};
use super::echo::Echo;
use super::setup::{Refusal, Setup, run};

/// The interface where systems limit.
pub const NEAR: &str = "chadtest0";
const FAR: &str = "chadtest1";
/// The interface that delays and drops what comes in at the far end.
const FAR_IN: &str = "chadtest2";
/// The name of the far network.
pub const FAR_NETWORK: &str = "chadtest-far";
/// The address of the far end.
pub const FAR_ADDRESS: &str = "198.18.0.2";
const NEAR_ADDRESS: &str = "198.18.0.1";
/// The longest wait for an interface to come up.
const COMES_UP: Duration = Duration::from_secs(20);

/// Both networks and the cgroups.
#[derive(Debug)]
pub struct Network {
    echo: Echo,
    /// The cgroup that the systems limit, with its processes and sockets.
    throttled: PathBuf,
    /// The cgroup of all other processes that the lab starts.
    others: PathBuf,
    // This field is last, because the processes in the networks must end before it is dropped.
    _setup: Setup,
    _cgroup: ScratchCgroup,
}

impl Network {
    /// Creates both networks and moves this thread into the near one. Call it before other threads use the network.
    ///
    /// # Errors
    /// Fails if a command fails or is missing. It panics without root, so check that first.
    pub fn new() -> Result<Self> {
        isolate();
        let cgroup = ScratchCgroup::new("lab");
        let (throttled, others) = (cgroup.child("throttled"), cgroup.child("others"));
        let mut setup = Setup::default();
        let far = |command: &str| format!("ip -n {FAR_NETWORK} {command}");
        let inside = |command: &str| format!("ip netns exec {FAR_NETWORK} {command}");
        // A run must not profit from what TCP learned about the path in an earlier run.
        let forget = "sysctl -qw net.ipv4.tcp_no_metrics_save=1";
        let delete = format!("ip netns del {FAR_NETWORK}");
        setup.run(&format!("ip netns add {FAR_NETWORK}"), Some(&delete))?;
        for command in [
            &format!("ip link add {NEAR} type veth peer name {FAR} netns {FAR_NETWORK}"),
            &format!("ip addr add {NEAR_ADDRESS}/30 dev {NEAR}"),
            &format!("ip link set {NEAR} up"),
            &far("link set lo up"),
            &far(&format!("addr add {FAR_ADDRESS}/30 dev {FAR}")),
            &far(&format!("link set {FAR} up")),
            forget,
            &inside(forget),
        ] {
            setup.run(command, None)?;
        }
        for show in
            [format!("ip -br link show dev {NEAR}"), far(&format!("-br link show dev {FAR}"))]
        {
            until_up(&show)?;
        }
        let echo = Echo::start(Path::new("/run/netns").join(FAR_NETWORK), FAR_ADDRESS)?;
        Ok(Self { echo, throttled, others, _setup: setup, _cgroup: cgroup })
    }

    /// Returns the cgroup that the systems limit.
    pub fn throttled(&self) -> &Path {
        &self.throttled
    }

    /// Returns the cgroup of everything else.
    pub fn others(&self) -> &Path {
        &self.others
    }

    /// Opens a socket to the far end's echo server. It belongs to the given cgroup.
    ///
    /// # Errors
    /// Returns errors of the socket calls.
    pub fn probe_socket(&self, cgroup: &Path) -> Result<UdpSocket> {
        let connect = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((NEAR_ADDRESS, 0))?;
            socket.connect(self.echo.address())?;
            Ok(socket)
        };
        let _inside = enter(cgroup);
        connect().context("a socket to the far end")
    }

    /// Sets up the delay and loss of a cell. Each direction gets half of the round trip. The direction of the data gets
    /// the loss, at the far end: behind the limit of uploads, and before the limit of downloads.
    ///
    /// With loss, every packet has one segment. Otherwise one loss would take 45 segments.
    ///
    /// # Errors
    /// Returns [`Refusal::Missing`] if the kernel has no netem.
    pub fn distance(&self, cell: &Cell) -> Result<Setup, Refusal> {
        let mut setup = Setup::default();
        if !cell.needs_netem() {
            return Ok(setup);
        }
        let netem = |way: Way| {
            let loss = if way == cell.way { cell.loss_percent } else { 0 };
            // The queue holds more packets than are in flight at the highest rate.
            format!("netem limit 100000 delay {}us loss {loss}%", cell.rtt_ms * 500)
        };
        let tc = format!("tc -n {FAR_NETWORK}");
        let ip = format!("ip -n {FAR_NETWORK}");
        setup.run(
            &format!("{tc} qdisc add dev {FAR} root {}", netem(Way::Down)),
            Some(&format!("{tc} qdisc del dev {FAR} root")),
        )?;
        setup.run(
            &format!("{ip} link add {FAR_IN} type ifb"),
            Some(&format!("{ip} link del {FAR_IN}")),
        )?;
        setup.run(&format!("{ip} link set {FAR_IN} up"), None)?;
        setup.run(&format!("{tc} qdisc add dev {FAR_IN} root {}", netem(Way::Up)), None)?;
        setup.run(
            &format!("{tc} qdisc add dev {FAR} clsact"),
            Some(&format!("{tc} qdisc del dev {FAR} clsact")),
        )?;
        setup.run(&format!("{tc} {}", redirect(FAR, FAR_IN)), None)?;
        if cell.loss_percent > 0 {
            let (ip, sender) = match cell.way {
                Way::Up => ("ip".to_owned(), NEAR),
                Way::Down => (ip, FAR),
            };
            setup.run(
                &format!("{ip} link set dev {sender} gso_max_segs 1"),
                Some(&format!("{ip} link set dev {sender} gso_max_segs 65535")),
            )?;
        }
        Ok(setup)
    }
}

/// Waits until the interface in this command's output is up, which takes a moment.
fn until_up(show: &str) -> Result<()> {
    let deadline = Instant::now() + COMES_UP;
    while !run(show)?.contains(" UP ") {
        ensure!(Instant::now() < deadline, "{show}: it is not up within {COMES_UP:?}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Returns the words after `tc` that redirect everything that enters one interface through another.
pub fn redirect(from: &str, through: &str) -> String {
    format!(
        "filter add dev {from} ingress protocol all prio 1 {ALL} action mirred egress redirect dev {through}"
    )
}

/// A filter for all packets. More kernels have u32 than matchall.
pub const ALL: &str = "u32 match u32 0 0";
