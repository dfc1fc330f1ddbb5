//! Other people's programs and limits beside, above and below a limit: they stay in force, and they are told of.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::cgroup::Cgroup;
use kernel::list::{AttachFlags, Scope, attach, detach, query};
use kernel::{AttachType, Program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::cgroup::ScratchCgroup;
use testkit::isolation::isolate;
use testkit::process::Mortal;
use testkit::traffic::socket;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const EGRESS: AttachType = AttachType::INET_EGRESS;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chadthrottle"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(cgroup: &Path) -> &str {
    cgroup.to_str().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `chadthrottle limit`, armed.
struct Limit(Mortal);

impl Limit {
    fn start(args: &[&str]) -> Self {
        let mut child = Mortal::from(program(&[&["limit"], args].concat()).spawn().unwrap());
        let mut armed = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut armed).unwrap();
        let mut limit = Self(child);
        assert!(armed.starts_with("limiting "), "{armed}{}", limit.rest());
        limit
    }

    fn rest(&mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.wait().unwrap();
        said
    }

    /// What it says until it ends by itself, with status 1.
    fn fails(mut self) -> String {
        let said = self.rest();
        assert_eq!(self.0.wait().unwrap().code(), Some(1), "{said}");
        said
    }

    /// What it says up to some words.
    fn says(&mut self, words: &str) -> String {
        let mut said = String::new();
        let mut byte = [0];
        while !said.ends_with(words) {
            assert_eq!(self.0.stderr.as_mut().unwrap().read(&mut byte).unwrap(), 1, "{said}");
            said.push(char::from(byte[0]));
        }
        said
    }

    /// What it said on standard error.
    fn end(mut self) -> String {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGINT).unwrap();
        self.rest()
    }
}

/// A parent with a firewall that drops everything and yields, a child, and sockets.
struct Firewall {
    scratch: ScratchCgroup,
    app: std::path::PathBuf,
    sender: UdpSocket,
    receiver: UdpSocket,
    /// How many packets were tried.
    sent: AtomicU64,
}

impl Firewall {
    /// One that comes later.
    fn later() -> (Self, Program) {
        let host = Self::new();
        let open = Cgroup::open(host.scratch.path()).unwrap();
        let id = query(&open, EGRESS, Scope::Local, false).unwrap().programs[0].id;
        let firewall = Program::open(id).unwrap();
        detach(firewall.as_fd(), &open, EGRESS, None).unwrap();
        (host, firewall)
    }

    fn comes(&self, firewall: &Program, flags: AttachFlags) {
        let open = Cgroup::open(self.scratch.path()).unwrap();
        attach(firewall.as_fd(), &open, EGRESS, flags, None).unwrap();
    }

    fn new() -> Self {
        isolate();
        let scratch = ScratchCgroup::new("firewall");
        let app = scratch.child("app");
        let firewall = Program::load_refuse("chadtest_fw", EGRESS).unwrap();
        let parent = Cgroup::open(scratch.path()).unwrap();
        attach(firewall.as_fd(), &parent, EGRESS, AttachFlags::OVERRIDE, None).unwrap();
        let receiver = socket(LOOPBACK);
        let sender = {
            let _inside = testkit::cgroup::enter(&app);
            socket(LOOPBACK)
        };
        Self { scratch, app, sender, receiver, sent: AtomicU64::new(0) }
    }

    /// Whether a packet gets through. One that a program drops is refused to who sends it.
    fn passes(&self) -> bool {
        let number = self.sent.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
        match self.sender.send_to(&number, self.receiver.local_addr().unwrap()) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return false,
            sent => assert_eq!(sent.unwrap(), number.len()),
        }
        // On a busy processor even loopback may take its time.
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut came = [0; 8];
        while self.receiver.recv(&mut came).is_err() || came != number {
            assert!(Instant::now() < deadline, "sent, and not refused, but it did not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

#[test]
fn root_a_firewall_above_goes_on_dropping_where_a_limit_would_switch_it_off() {
    let host = Firewall::new();
    assert!(!host.passes());
    // Packets are sent all the while: not one may pass.
    let (is_over, passed) = (AtomicBool::new(false), AtomicBool::new(false));
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                passed.fetch_or(host.passes(), Ordering::Relaxed);
            }
        });
        let limit = ["limit", "--cgroup", text(&host.app), "--upload", "1M", "--duration", "1ms"];
        let output = program(&limit).output();
        is_over.store(true, Ordering::Relaxed);
        output.unwrap()
    });
    assert!(!passed.load(Ordering::Relaxed), "a packet has passed the firewall");
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = stderr(&output);
    for word in ["'chadtest_fw'", text(host.scratch.path()), "BPF_F_ALLOW_OVERRIDE", "--displace"] {
        assert!(said.contains(word), "{said}");
    }
    // Nobody was in the way of downloads.
    let download = ["limit", "--cgroup", text(&host.app), "--download", "1M", "--duration", "1ms"];
    assert!(program(&download).output().unwrap().status.success());
}

#[test]
fn root_who_asks_to_displace_a_firewall_is_told_which_and_it_is_back_in_the_end() {
    let host = Firewall::new();
    let limit = Limit::start(&["--cgroup", text(&host.app), "--upload", "1M", "--displace"]);
    assert!(host.passes());
    let said = limit.end();
    assert!(said.contains("out of force here as long as this limit lasts: program "), "{said}");
    assert!(said.contains("'chadtest_fw'"), "{said}");
    assert!(!host.passes());
}

#[track_caller]
fn assert_gave_way(said: &str, host: &Firewall) {
    for word in ["switched off another program", "'chadtest_fw'", text(host.scratch.path())] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn root_a_limit_goes_when_a_firewall_comes_later_that_it_switches_off() {
    for flags in [AttachFlags::OVERRIDE, AttachFlags::empty()] {
        let (host, firewall) = Firewall::later();
        let limit = ["--cgroup", text(&host.app), "--upload", "1M", "--duration", "2m"];
        // Two of them: each alone could go, and nothing would be back in force.
        let limits = [Limit::start(&limit), Limit::start(&limit)];
        assert!(host.passes());
        host.comes(&firewall, flags);
        for limit in limits {
            assert_gave_way(&limit.fails(), &host);
        }
        assert!(!host.passes());
    }
}

#[test]
fn root_a_limit_that_was_armed_again_goes_as_well_when_a_firewall_comes_that_it_switches_off() {
    let (host, firewall) = Firewall::later();
    let limit = ["--cgroup", text(&host.app), "--upload", "1M", "--duration", "2m"];
    let mut limit = Limit::start(&limit);
    std::fs::remove_dir(&host.app).unwrap();
    std::fs::create_dir(&host.app).unwrap();
    limit.says(": limiting ");
    host.comes(&firewall, AttachFlags::OVERRIDE);
    assert_gave_way(&limit.fails(), &host);
}

#[test]
fn root_a_limit_goes_when_only_itself_is_left_in_the_way_of_a_firewall() {
    let (host, firewall) = Firewall::later();
    let app = Cgroup::open(&host.app).unwrap();
    let neighbour = Program::load_pass("chadtest_pass", EGRESS).unwrap();
    attach(neighbour.as_fd(), &app, EGRESS, AttachFlags::MULTI, None).unwrap();
    host.comes(&firewall, AttachFlags::OVERRIDE);
    let args = ["--cgroup", text(&host.app), "--upload", "1M", "--duration", "2m"];
    let mut allowed = Limit::start(&[&args[..], &["--displace"]].concat());
    let limit = Limit::start(&args);
    detach(neighbour.as_fd(), &app, EGRESS, None).unwrap();
    let limit = limit.fails();
    assert_gave_way(&limit, &host);
    assert!(host.passes());
    // Nobody is in the way of the second one but who may be.
    let mut second = Limit::start(&args);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert!(second.0.try_wait().unwrap().is_none(), "it has not ended");
    // When it looks next.
    allowed.says("out of force here");
    let said = allowed.end();
    assert!(!said.contains("out of force here"), "{said}");
    assert_gave_way(&second.fails(), &host);
    assert!(!host.passes());
}

#[test]
fn root_who_asks_to_displace_is_told_once_which_firewall_came_later() {
    let (host, firewall) = Firewall::later();
    let limit = ["--cgroup", text(&host.app), "--upload", "1M", "--displace"];
    let mut limit = Limit::start(&limit);
    host.comes(&firewall, AttachFlags::OVERRIDE);
    limit.says("out of force here as long as this limit lasts: program ");
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert!(host.passes());
    let said = limit.end();
    assert!(said.contains("'chadtest_fw'") && !said.contains("out of force"), "{said}");
    assert!(!host.passes());
}

#[test]
fn root_a_pinned_limit_displaces_when_it_is_armed_again_only_if_it_was_made_so() {
    let host = Firewall::new();
    let make_again = || {
        std::fs::remove_dir(&host.app).unwrap();
        std::fs::create_dir(&host.app).unwrap();
    };
    let limit = ["limit", "--cgroup", text(&host.app), "--upload", "1M", "--attach", "pinned"];
    let made = program(&limit).arg("--displace").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    make_again();
    let armed = program(&["rearm", "1"]).output().unwrap();
    let said = stderr(&armed);
    assert!(armed.status.success(), "{said}");
    assert!(said.contains("out of force here") && said.contains("'chadtest_fw'"), "{said}");
    assert!(program(&["rm", "1"]).output().unwrap().status.success());

    // While nobody was in its way.
    let open = Cgroup::open(host.scratch.path()).unwrap();
    let id = query(&open, EGRESS, Scope::Local, false).unwrap().programs[0].id;
    let firewall = Program::open(id).unwrap();
    detach(firewall.as_fd(), &open, EGRESS, None).unwrap();
    assert!(program(&limit).output().unwrap().status.success());
    make_again();
    attach(firewall.as_fd(), &open, EGRESS, AttachFlags::OVERRIDE, None).unwrap();
    let refused = program(&["rearm", "1"]).output().unwrap();
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("would switch off") && said.contains("'chadtest_fw'"), "{said}");
    // `rearm` has no such option.
    let advice = "end this one with 'chadthrottle rm 1', and make another one with 'chadthrottle limit … --displace'";
    assert!(said.contains(advice), "{said}");
    // What waits is as it was.
    assert!(program(&["rm", "1"]).output().unwrap().status.success());
}

#[test]
fn root_other_limits_on_the_cgroup_above_and_below_are_told_with_owner_rate_and_which_holds() {
    isolate();
    let scratch = ScratchCgroup::new("others");
    let (app, inner) = (scratch.child("app"), scratch.child("app/inner"));
    let above = Limit::start(&["--cgroup", text(scratch.path()), "--upload", "300K"]);
    let first = Limit::start(&["--cgroup", text(&app), "--upload", "2M"]);
    let below = Limit::start(&["--cgroup", text(&inner), "--upload", "500K"]);
    let second = Limit::start(&["--cgroup", text(&app), "--upload", "1M", "--download", "1M"]);
    let of = |limit: &Limit| format!("of process {} (chadthrottle)", limit.0.id());
    let (of_above, of_first, of_below) = (of(&above), of(&first), of(&below));
    let said = second.end();
    for line in [
        format!("upload: this cgroup has another limit already: 2 MB/s, {of_first}"),
        format!(
            "upload: {} above has a limit that this cgroup shares with all others below it: 300 kB/s, {of_above}",
            text(scratch.path())
        ),
        format!("upload: {} below has a limit of its own: 500 kB/s, {of_below}", text(&inner)),
        "the lower rate holds there: 500 kB/s".to_owned(),
        format!("the lowest rate holds: 300 kB/s (that {of_above})"),
    ] {
        assert!(said.contains(&line), "{line}\n{said}");
    }
    assert!(!said.contains("download:"), "{said}");
    // The first one was alone but for the one above.
    let said = first.end();
    assert!(said.contains("300 kB/s") && !said.contains("this cgroup has another"), "{said}");
    let said = above.end();
    assert!(!said.contains("limit already") && !said.contains("holds"), "{said}");
    drop(below);
}

#[test]
fn root_other_limits_are_told_again_when_a_limit_is_armed_again() {
    isolate();
    let scratch = ScratchCgroup::new("again");
    let (app, pinned) = (scratch.child("app"), scratch.child("pinned"));
    let above = Limit::start(&["--cgroup", text(scratch.path()), "--upload", "300K"]);
    let line = format!(
        "upload: {} above has a limit that this cgroup shares with all others below it: 300 kB/s, of process {} \
         (chadthrottle)",
        text(scratch.path()),
        above.0.id()
    );
    let make_again = |cgroup: &Path| {
        std::fs::remove_dir(cgroup).unwrap();
        std::fs::create_dir(cgroup).unwrap();
    };
    let mut limit = Limit::start(&["--cgroup", text(&app), "--upload", "1M", "--duration", "2m"]);
    limit.says(&line);
    make_again(&app);
    // Who is slow sees the one go and the other come.
    limit.says(": limiting ");
    let said = limit.says(&line);
    assert!(!said.contains("has another limit already"), "{said}");
    drop(limit);

    let made = ["limit", "--cgroup", text(&pinned), "--upload", "1M", "--attach", "pinned"];
    assert!(program(&made).output().unwrap().status.success());
    make_again(&pinned);
    let armed = program(&["rearm", "1"]).output().unwrap();
    let said = stderr(&armed);
    assert!(armed.status.success() && said.contains(&line), "{said}");
    assert!(!said.contains("has another limit already"), "{said}");
    assert!(program(&["rm", "1"]).output().unwrap().status.success());
}
