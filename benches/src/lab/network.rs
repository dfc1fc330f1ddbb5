//! Where the traffic goes: two networks, a wire between them, and what is far away and loses packets.
//!
//! ```text
//!   near: the lab's own network                far: a network of its own
//!   +-----------------------------+            +-----------------------------+
//!   | throttled cgroup  chadtest0 |----veth----| chadtest1   iperf3, echo    |
//!   | the systems limit here      |  MTU 1500  | delay and loss are here     |
//!   +-----------------------------+            +-----------------------------+
//! ```
//!
//! All of it lies in namespaces of this process, the far network's name in its own `/run`, and every process
//! that is started lives in a scratch cgroup: whatever kills the lab, nothing stays.

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

/// The interface at which systems limit.
pub const NEAR: &str = "chadtest0";
const FAR: &str = "chadtest1";
/// What comes in at the far end goes through this one where it is to be delayed or lost.
const FAR_IN: &str = "chadtest2";
/// The far network's name.
pub const FAR_NETWORK: &str = "chadtest-far";
/// The far end's address.
pub const FAR_ADDRESS: &str = "198.18.0.2";
const NEAR_ADDRESS: &str = "198.18.0.1";
/// How long an interface may take until it is up.
const COMES_UP: Duration = Duration::from_secs(20);

/// Both networks, and the cgroups.
#[derive(Debug)]
pub struct Network {
    echo: Echo,
    /// What is limited: processes and sockets in it.
    throttled: PathBuf,
    /// All others that the lab starts.
    others: PathBuf,
    // Last: what lives in it has ended by then.
    _setup: Setup,
    _cgroup: ScratchCgroup,
}

impl Network {
    /// Makes them, and moves this thread into the near one. To be called before there are other threads that
    /// have to do with networks.
    ///
    /// # Errors
    /// When a command fails or is missing. Without root it panics; ask first.
    pub fn new() -> Result<Self> {
        isolate();
        let cgroup = ScratchCgroup::new("lab");
        let (throttled, others) = (cgroup.child("throttled"), cgroup.child("others"));
        let mut setup = Setup::default();
        let far = |command: &str| format!("ip -n {FAR_NETWORK} {command}");
        let inside = |command: &str| format!("ip netns exec {FAR_NETWORK} {command}");
        // What one run learns of the way is not the next one's to know.
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

    /// The cgroup that is limited.
    pub fn throttled(&self) -> &Path {
        &self.throttled
    }

    /// The cgroup of what is not limited.
    pub fn others(&self) -> &Path {
        &self.others
    }

    /// A socket that the far end echoes to, belonging to that cgroup.
    ///
    /// # Errors
    /// Those of sockets.
    pub fn probe_socket(&self, cgroup: &Path) -> Result<UdpSocket> {
        let connect = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((NEAR_ADDRESS, 0))?;
            socket.connect(self.echo.address())?;
            Ok(socket)
        };
        let _inside = enter(cgroup);
        connect().context("a socket to the far end")
    }

    /// Makes the way as long and as bad as the cell wants it: half of the round trip in each direction, and
    /// loss in that of the data: at the far end, so behind what limits uploads and before what limits downloads. Where packets are lost, each is one segment long:
    /// otherwise 45 segments would go at once.
    ///
    /// # Errors
    /// [`Refusal::Missing`] where the kernel has no netem.
    pub fn distance(&self, cell: &Cell) -> Result<Setup, Refusal> {
        let mut setup = Setup::default();
        if !cell.needs_netem() {
            return Ok(setup);
        }
        let netem = |way: Way| {
            let loss = if way == cell.way { cell.loss_percent } else { 0 };
            // As many packets as are under way at the highest rate, and more.
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

/// Waits until the interface that this shows is up: a moment after it was told to be.
fn until_up(show: &str) -> Result<()> {
    let deadline = Instant::now() + COMES_UP;
    while !run(show)?.contains(" UP ") {
        ensure!(Instant::now() < deadline, "{show}: it is not up within {COMES_UP:?}");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The words after `tc` that send everything which comes in at an interface through another.
pub fn redirect(from: &str, through: &str) -> String {
    format!(
        "filter add dev {from} ingress protocol all prio 1 {ALL} action mirred egress redirect dev {through}"
    )
}

/// A filter for all packets: matchall is rarer than u32.
pub const ALL: &str = "u32 match u32 0 0";
