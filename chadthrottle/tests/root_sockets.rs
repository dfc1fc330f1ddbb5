//! What a limit does not hold, or holds twice, is said: on the real kernel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use kernel::AttachType;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::Pid;
use testkit::cgroup::{ScratchCgroup, enter};
use testkit::isolation::isolate;
use testkit::process::Mortal;
use testkit::traffic::{flood, socket as udp};
use testkit::tun::Holder;

/// `chadthrottle limit`, armed, and what it has said so far.
struct Limit {
    child: Mortal,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Limit {
    fn start(args: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_chadthrottle")).arg("limit").args(args))
    }

    fn of(command: &mut Command) -> Self {
        // It ends by itself where what a test waits for is never said.
        let mut child: Mortal = command
            .args(["--duration", "4m"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .into();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut armed = String::new();
        stdout.read_line(&mut armed).unwrap();
        let mut limit = Self { child, stdout, stderr, said: String::new() };
        if !armed.starts_with("limiting ") {
            limit.stderr.read_to_string(&mut limit.said).unwrap();
            panic!("{armed}{}", limit.said);
        }
        limit
    }

    /// Reads on until something is said that has this in it.
    fn wait_for(&mut self, what: &str) {
        while !self.said.contains(what) {
            assert_ne!(self.stderr.read_line(&mut self.said).unwrap(), 0, "{}", self.said);
        }
    }

    /// All that it said, and its summary.
    fn end(self) -> (String, String) {
        self.end_with(0)
    }

    /// The same of one that ends with another status.
    fn end_with(mut self, status: i32) -> (String, String) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        let mut summary = String::new();
        self.stdout.read_to_string(&mut summary).unwrap();
        self.stderr.read_to_string(&mut self.said).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(status), "{}", self.said);
        (self.said, summary)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn relative(cgroup: &ScratchCgroup) -> String {
    text(&cgroup.relative()).to_owned()
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Sends so much on one end, and receives it at the other.
fn carry(mut sender: &TcpStream, mut receiver: &TcpStream, bytes: usize) {
    std::thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&vec![7; bytes]).unwrap());
        receiver.read_exact(&mut vec![0; bytes]).unwrap();
    });
}

#[test]
fn root_a_service_whose_listener_its_manager_made_is_told_to_be_unlimited_and_again_when_it_sends()
{
    isolate();
    let (manager, service) = (ScratchCgroup::new("manager"), ScratchCgroup::new("service"));
    let clients = ScratchCgroup::new("clients");
    let listener = {
        let _inside = manager.enter();
        listener()
    };
    // This process is the service, and before that its own client.
    let client = {
        let _inside = clients.enter();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    };
    let _inside = service.enter();
    let pid = std::process::id().to_string();
    let mut limit = Limit::start(&["--pid", &pid, "--upload", "200K"]);
    let accepted = listener.accept().unwrap().0;
    let begin = Instant::now();
    carry(&accepted, &client, 5_000_000);
    assert!(begin.elapsed() < Duration::from_secs(20), "not limited");
    let belong = format!("belongs to cgroup {}; 1 accepts connections", relative(&manager));
    limit.wait_for(&belong);
    limit.wait_for(&format!("(--cgroup {})", relative(&manager)));
    limit.wait_for("nothing went through this limit, but process");
    carry(&accepted, &client, 1_000_000);
    // Another look or two: it is not said again.
    std::thread::sleep(Duration::from_secs(2));
    let (said, summary) = limit.end_with(1);
    assert_eq!(said.matches("nothing went through this limit").count(), 1, "{said}");
    assert!(said.contains("error: the limit has held nothing"), "{said}");
    assert!(said.contains(&format!("process {pid} (")), "{said}");
    let outside = summary.lines().find(|line| line.starts_with("outside   sent at least "));
    let outside = outside.unwrap_or_else(|| panic!("{summary}"));
    assert!(outside.contains(&format!("cgroup {}", relative(&manager))), "{outside}");
    let amount = outside.split_whitespace().nth(4).unwrap().parse::<f64>().unwrap();
    assert!((5.0..=20.0).contains(&amount) && outside.contains(" MB"), "{outside}");
}

#[test]
fn root_a_named_process_that_leaves_the_limited_cgroup_is_told_of_and_so_is_its_return() {
    isolate();
    let (cgroup, other) = (ScratchCgroup::new("left"), ScratchCgroup::new("other"));
    let mut process = Mortal::from({
        let _inside = cgroup.enter();
        Command::new("sleep").arg("infinity").spawn().unwrap()
    });
    let pid = process.id().to_string();
    let moves_to = |to: &Path| std::fs::write(to.join("cgroup.procs"), &pid).unwrap();
    let mut limit = Limit::start(&["--pid", &pid, "--upload", "1M"]);
    moves_to(&cgroup.child("below"));
    std::thread::sleep(Duration::from_secs(2));
    moves_to(other.path());
    let left = format!("process {pid} (sleep) has left the limited cgroup for ");
    limit.wait_for(&left);
    limit.wait_for(&format!("(--cgroup {})", text(other.path())));
    moves_to(cgroup.path());
    limit.wait_for("is back in the limited cgroup");
    let (said, _) = limit.end();
    assert_eq!(said.matches(&left).count(), 1, "{said}");

    let mut limit = Limit::start(&["--pid", &pid, "--upload", "1M"]);
    moves_to(other.path());
    limit.wait_for(&left);
    let (said, _) = limit.end_with(1);
    assert!(said.contains("did not hold it to the end"), "{said}");
    // It is where it was, whatever is mounted over that meanwhile.
    moves_to(cgroup.path());
    let limit = Limit::start(&["--pid", &pid, "--upload", "1M"]);
    let top = kernel::cgroup::cgroup2_mount().unwrap();
    let none = None::<&str>;
    mount(Some(other.path()), &top, none, MsFlags::MS_BIND, none).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    umount2(&top, MntFlags::MNT_DETACH).unwrap();
    let (said, _) = limit.end();
    assert!(!said.contains("left the limited"), "{said}");
    // Who has ended is nowhere.
    moves_to(cgroup.path());
    let limit = Limit::start(&["--pid", &pid, "--upload", "1M"]);
    process.kill().unwrap();
    process.wait().unwrap();
    let (said, _) = limit.end();
    assert!(!said.contains("left"), "{said}");
}

#[test]
fn root_what_went_past_a_limit_before_its_cgroup_was_made_again_counts_on() {
    isolate();
    let (manager, services) = (ScratchCgroup::new("manager"), ScratchCgroup::new("services"));
    let service = services.child("service");
    // Both ends are of another cgroup, and this process has them.
    let (client, accepted) = {
        let _inside = manager.enter();
        let listener = listener();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let mut limit = Limit::start(&["--cgroup", text(&service), "--upload", "200K"]);
    let inside = enter(&service);
    // What its sockets carry counts from the first look at them on.
    limit.wait_for("not limited");
    carry(&accepted, &client, 1_000_000);
    limit.wait_for("nothing went through this limit, but process");
    drop(inside);
    std::fs::remove_dir(&service).unwrap();
    std::fs::create_dir(&service).unwrap();
    // Who is slow sees the one go and the other come.
    limit.wait_for(": limiting ");
    let _inside = enter(&service);
    carry(&accepted, &client, 1_000_000);
    let (_, summary) = limit.end_with(1);
    let outside = summary.lines().find(|line| line.starts_with("outside   sent at least "));
    let outside = outside.unwrap_or_else(|| panic!("{summary}"));
    let amount = outside.split_whitespace().nth(4).unwrap().parse::<f64>().unwrap();
    assert!((1.9..=4.0).contains(&amount) && outside.contains(" MB"), "{outside}");
}

#[test]
fn root_where_every_socket_is_the_cgroups_nothing_of_the_kind_is_said() {
    isolate();
    let cgroup = ScratchCgroup::new("all");
    let _inside = enter(&cgroup.child("below"));
    let listener = listener();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0;
    let limit = Limit::start(&["--cgroup", text(cgroup.path()), "--upload", "100M"]);
    carry(&client, &accepted, 100_000);
    let (said, summary) = limit.end();
    for word in ["belong", "past it", "unknown"] {
        assert!(!said.contains(word), "{said}");
    }
    assert!(!summary.contains("outside"), "{summary}");
}

#[test]
fn root_whole_frames_are_said_not_to_be_limited_when_armed_and_in_the_end() {
    isolate();
    let cgroup = ScratchCgroup::new("frames");
    let _inside = cgroup.enter();
    let _packet =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let limit = Limit::start(&["--cgroup", text(cgroup.path()), "--upload", "1M"]);
    let (said, summary) = limit.end();
    let pid = std::process::id();
    assert!(said.contains(&format!("1 AF_PACKET socket of process {pid} (")), "{said}");
    assert!(summary.contains("outside   unknown") && summary.contains("AF_PACKET"), "{summary}");
}

#[test]
fn root_a_socket_of_another_cgroup_that_counts_nothing_is_unknown_in_the_end() {
    isolate();
    let (cgroup, before) = (ScratchCgroup::new("now"), ScratchCgroup::new("before"));
    let socket = {
        let _inside = before.enter();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    };
    let _inside = cgroup.enter();
    let limit = Limit::start(&["--cgroup", text(cgroup.path()), "--upload", "1M"]);
    socket.send_to(&[0; 100], socket.local_addr().unwrap()).unwrap();
    let (said, summary) = limit.end();
    assert!(said.contains(&format!("belongs to cgroup {}", relative(&before))), "{said}");
    assert!(!said.contains("accept"), "{said}");
    assert!(summary.contains("unknown") && summary.contains("1 socket of other"), "{summary}");
}

#[test]
fn root_a_vpn_client_beside_its_users_is_said_to_be_charged_twice_also_if_it_comes_later() {
    isolate();
    let user = ScratchCgroup::new("user");
    let (app, vpn) = (user.child("app"), user.child("vpn"));
    let _inside = enter(&app);
    let _socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let first = Holder::start(&vpn, "chadtest0", "tun", true);
    let mut limit = Limit::start(&["--cgroup", text(user.path()), "--upload", "400K"]);
    let holds = |holder: &Holder, device| {
        format!("process {} (python3) holds the tun device {device}: ", holder.pid())
    };
    limit.wait_for(&holds(&first, "chadtest0"));
    limit.wait_for("counts twice");
    limit.wait_for(&format!("limit {}/vpn alone", relative(&user)));
    let second = Holder::start(&vpn, "chadtest1", "tun", true);
    limit.wait_for(&holds(&second, "chadtest1"));
    let (said, _) = limit.end();
    assert!(!said.contains("not limited"), "{said}");
    assert_eq!(said.matches("chadtest0").count(), 1, "{said}");
}

#[test]
fn root_a_virtual_machines_tap_is_said_not_to_be_limited_and_a_vpn_client_by_itself_is() {
    isolate();
    let cgroup = ScratchCgroup::new("tap");
    let args = ["--cgroup", text(cgroup.path()), "--upload", "1M"];
    let machine = Holder::start(cgroup.path(), "chadtest0", "tap", false);
    let (said, summary) = Limit::start(&args).end();
    assert!(said.contains("holds the tap device chadtest0"), "{said}");
    assert!(said.contains("not limited") && !said.contains("twice"), "{said}");
    assert!(summary.contains("unknown") && summary.contains("chadtest0"), "{summary}");
    drop(machine);
    let _client = Holder::start(cgroup.path(), "chadtest1", "tun", true);
    let (said, summary) = Limit::start(&args).end();
    assert!(!said.contains("chadtest1") && !summary.contains("outside"), "{said}{summary}");
}

#[test]
fn root_where_it_cannot_be_seen_it_is_said_to_be_unknown() {
    isolate();
    let cgroup = ScratchCgroup::new("unseen");
    // A file that is there, and that nobody can read.
    let kind = cgroup.path().join("cgroup.type");
    let none = None::<&str>;
    mount(Some("/proc/self/mem"), &kind, none, MsFlags::MS_BIND, none).unwrap();
    let (said, summary) = Limit::start(&["--cgroup", text(cgroup.path()), "--upload", "1M"]).end();
    nix::mount::umount(&kind).unwrap();
    assert!(said.contains("belong to this cgroup is unknown"), "{said}");
    assert!(!summary.contains("outside"), "{summary}");
}

#[test]
fn root_in_a_pid_namespace_the_sockets_of_processes_outside_of_it_are_said_to_be_unknown() {
    isolate();
    let cgroup = ScratchCgroup::new("pidns");
    let told = |cgroup: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args([env!("CARGO_BIN_EXE_chadthrottle"), "limit", "--upload", "1M"]);
        let args = ["--duration", "1ms", "--cgroup", text(cgroup)];
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said.contains("outside of this pid namespace: whether all of their sockets")
    };
    assert!(!told(cgroup.path()), "nobody is in the cgroup");
    let _inside = enter(&cgroup.child("below"));
    assert!(told(cgroup.path()));
}

#[test]
fn root_where_programs_redirect_connections_a_limit_on_some_traffic_says_what_that_means() {
    isolate();
    let top = ScratchCgroup::new("mesh");
    let (app, other) = (top.child("app"), top.child("other"));
    let connect4: AttachType = "cgroup_inet4_connect".parse().unwrap();
    let open = kernel::cgroup::Cgroup::open(&app).unwrap();
    let program = kernel::program::Program::load_pass("chadtest_mesh", connect4).unwrap();
    let _link = kernel::link::Link::create(program.as_fd(), &open, connect4).unwrap();
    let said = |cgroup: &Path, traffic| {
        let args = ["--cgroup", text(cgroup), "--upload", "1M", "--traffic", traffic];
        Limit::start(&args).end().0
    };
    for cgroup in [&app, top.path(), &app.join("below")] {
        std::fs::create_dir_all(cgroup).unwrap();
        let said = said(cgroup, "internet");
        assert!(said.contains("(chadtest_mesh, on cgroup_inet4_connect)"), "{said}");
        assert!(said.contains("local proxy is not limited"), "{said}");
    }
    assert!(!said(&app, "all").contains("chadtest_mesh"));
    assert!(!said(&other, "internet").contains("chadtest_mesh"));
}

#[test]
fn root_the_summary_says_what_not_limited_means() {
    isolate();
    let cgroup = ScratchCgroup::new("local");
    let receiver = udp(Ipv4Addr::LOCALHOST.into());
    let sender = {
        let _inside = cgroup.enter();
        udp(Ipv4Addr::LOCALHOST.into())
    };
    let summary = |traffic| {
        let args = ["--cgroup", text(cgroup.path()), "--upload", "1M", "--traffic", traffic];
        let limit = Limit::start(&args);
        let flood = flood(&sender, &receiver, 100_000, Duration::from_millis(50));
        assert!(flood.received > 0);
        limit.end().1
    };
    let internet = summary("internet");
    assert!(
        internet.contains("not limited: what went to or came from local addresses"),
        "{internet}"
    );
    let local = summary("local");
    assert!(!local.contains("not limited"), "{local}");
}
