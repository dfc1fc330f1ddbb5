//! Guards, their limits, and firewalls on cgroups above that they would switch off.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use kernel::Program;
use kernel::list::AttachFlags;
use nix::sys::signal::Signal;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::traffic::socket;

use crate::{EGRESS, LOOPBACK, Limit, arrive, make_again, on, plant, socket_of, soon};

fn firewall() -> Program {
    Program::load_refuse("chadtest_fw", EGRESS).unwrap()
}

/// A firewall that yields, a cgroup below it, and below that a service and a neighbour.
struct Firewalled {
    cgroup: ScratchCgroup,
    above: PathBuf,
    service: PathBuf,
    neighbour: UdpSocket,
    receiver: UdpSocket,
}

impl Firewalled {
    fn new() -> Self {
        isolate();
        let cgroup = ScratchCgroup::new("firewall");
        let (above, service) = (cgroup.child("above"), cgroup.child("above/service"));
        let neighbour = socket_of(&cgroup.child("above/beside"));
        Self { cgroup, above, service, neighbour, receiver: socket(LOOPBACK) }
    }

    fn close(&self) {
        plant(self.cgroup.path(), &firewall(), AttachFlags::OVERRIDE);
    }

    fn is_open(&self) -> bool {
        arrive(&self.neighbour, &self.receiver, 1) == 1
    }

    /// What runs a command where only the cgroup above the service is mounted, at `/run/part`.
    fn part(&self) -> String {
        let mount = kernel::cgroup::cgroup2_mount().unwrap();
        format!(
            "mkdir -p /run/part && mount --bind {} /run/part && umount -l {} && exec \"$@\"",
            self.above.display(),
            mount.display()
        )
    }
}

#[test]
fn root_a_guard_that_would_switch_a_firewall_off_is_refused_and_the_limit_holds() {
    let host = Firewalled::new();
    host.close();
    assert!(!host.is_open());
    let part = host.part();
    let part = ["unshare", "--mount", "sh", "-c", &part, "sh"];
    for (surroundings, service) in
        [(&["env"][..], host.service.as_path()), (&part, Path::new("/run/part/service"))]
    {
        // It is in force for the neighbour, and need not be for the service.
        let args = ["--guard", "--displace", "--duration", "2m"];
        let mut limit = Limit::start_in(surroundings, service, &args);
        let said = limit.says("first packets will not be held (--guard)");
        assert!(said.contains("would switch off") && said.contains("'chadtest_fw'"), "{said}");
        assert!(!host.is_open());
        assert_eq!((on(&host.above).len(), on(&host.service).len()), (0, 1));
        limit.interrupt();
    }
}

#[test]
fn root_guards_and_their_limits_go_when_a_firewall_comes_that_they_switch_off() {
    let host = Firewalled::new();
    let other = host.cgroup.child("above/other");
    let service = socket_of(&host.service);
    let part = host.part();
    let part = ["unshare", "--mount", "sh", "-c", &part, "sh"];
    let args = ["--guard", "--duration", "2m"];
    let mut limits = [
        Limit::start(&host.service, &args),
        Limit::start_in(&part, Path::new("/run/part/other"), &args),
    ];
    soon("the guards are there", || on(&host.above).len() == 2);
    assert!(host.is_open());
    host.close();
    soon("the firewall is in force", || !host.is_open());
    for limit in &mut limits {
        let said = limit.says("it was taken off again");
        assert!(said.contains("switched off") && said.contains("'chadtest_fw'"), "{said}");
        assert_eq!(limit.child.wait().unwrap().code(), Some(1));
    }
    assert_eq!((on(&host.above), on(&host.service), on(&other)), (vec![], vec![], vec![]));
    assert_eq!(arrive(&service, &host.receiver, 1), 0);
}

/// One that may be in the way, and whose guard may not.
#[test]
fn root_a_guard_goes_when_a_firewall_comes_and_its_limit_stays_if_it_may() {
    let host = Firewalled::new();
    let args = ["--guard", "--displace", "--duration", "2m"];
    let mut limit = Limit::start(&host.service, &args);
    soon("the guard is there", || on(&host.above).len() == 1);
    host.close();
    let said = limit.says("they were taken off again");
    assert!(said.contains("switch off") && said.contains("'chadtest_fw'"), "{said}");
    assert!(!host.is_open());
    assert_eq!((on(&host.above).len(), on(&host.service).len()), (0, 1));
    limit.interrupt();
}

/// Beside the guard the limit would be attached: the firewall is out of force already.
#[test]
fn root_a_limit_does_not_take_the_place_of_a_guard_that_switched_a_firewall_off() {
    let host = Firewalled::new();
    let mut limit = Limit::start(&host.service, &["--guard", "--duration", "2m"]);
    soon("the guard is there", || on(&host.above).len() == 1);
    limit.stand_still();
    host.close();
    make_again(&host.service);
    let service = socket_of(&host.service);
    limit.signal(Signal::SIGCONT);
    let said = limit.says("the new cgroup cannot be limited");
    assert!(said.contains("they were taken off again"), "{said}");
    assert_eq!((on(&host.above).len(), on(&host.service).len()), (0, 0));
    assert_eq!(arrive(&service, &host.receiver, 1), 0);
    assert!(!host.is_open());
}
