//! The sockets and devices of a cgroup's processes, on the real kernel.

extern crate cgroup_bpf as kernel;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;

use kernel::CgroupId;
use kernel::cgroup::Cgroup;
use kernel::sockets::{Device, Open, OpenFile, Socket, SocketKind, Sockets, Traffic};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use testkit::cgroup::{ScratchCgroup, enter, remove_tree};
use testkit::isolation::isolate;
use testkit::process::Mortal;
use testkit::tun::Holder;

fn look(cgroup: &std::path::Path) -> Vec<OpenFile> {
    Sockets::load(&Cgroup::open(cgroup).unwrap()).unwrap().look().unwrap()
}

fn id(cgroup: &std::path::Path) -> CgroupId {
    Cgroup::open(cgroup).unwrap().id()
}

/// What was told of a socket of this process.
fn told_of(files: &[OpenFile], it: impl AsFd) -> Option<Socket> {
    let path = format!("/proc/self/fd/{}", it.as_fd().as_raw_fd());
    let inode = fs::metadata(path).unwrap().ino();
    let mut of_it = files.iter().filter_map(|file| match &file.what {
        Open::Socket(socket) if socket.inode == inode => Some((file, socket)),
        _ => None,
    });
    let (file, socket) = of_it.next()?;
    assert!(of_it.next().is_none(), "told of once");
    assert_eq!(file.process.pid, std::process::id());
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(file.process.name, comm.trim_end());
    Some(socket.clone())
}

#[test]
fn root_a_socket_belongs_to_the_cgroup_that_it_was_made_in_and_an_accepted_one_to_its_listeners() {
    isolate();
    let (before, now) = (ScratchCgroup::new("before"), ScratchCgroup::new("now"));
    let (listener, early) = {
        let _inside = before.enter();
        let address = (Ipv6Addr::LOCALHOST, 0);
        (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
    };
    let _inside = enter(&now.child("below"));
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut &client, &[1; 5_000]).unwrap();
    std::io::Read::read_exact(&mut &accepted, &mut [0; 5_000]).unwrap();

    let files = look(now.path());
    let outside = |socket: Option<Socket>| {
        let socket = socket.unwrap();
        assert_eq!((socket.cgroup, socket.is_inside), (id(before.path()), false));
        socket
    };
    let listener = outside(told_of(&files, &listener));
    assert!(listener.listens && listener.kind == SocketKind::Tcp);
    let early = outside(told_of(&files, &early));
    assert_eq!((early.kind, early.traffic, early.listens), (SocketKind::Ip, None, false));
    let accepted = outside(told_of(&files, &accepted));
    assert_eq!(accepted.traffic, Some(Traffic { sent: 0, received: 5_000 }));
    let client = told_of(&files, &client).unwrap();
    assert_eq!((client.cgroup, client.is_inside), (id(&now.path().join("below")), true));
    assert_eq!(client.traffic, Some(Traffic { sent: 5_000, received: 0 }));
    assert_eq!(client.device.as_deref(), Some("lo"));
    assert!(!client.listens);
}

#[test]
fn root_what_processes_of_other_cgroups_have_open_is_not_told_of() {
    isolate();
    let (cgroup, other) = (ScratchCgroup::new("own"), ScratchCgroup::new("other"));
    let _inside = other.enter();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert_eq!(told_of(&look(cgroup.path()), &socket), None);
    assert!(told_of(&look(other.path()), &socket).is_some());
}

/// As after a fork: whichever of them a limit is about has it.
#[test]
fn root_a_socket_that_several_processes_share_is_told_of_for_each() {
    isolate();
    let cgroup = ScratchCgroup::new("shared");
    let _inside = cgroup.enter();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // What is a child's standard input is inherited.
    let given = std::process::Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()));
    let child = std::process::Command::new("sleep").arg("1000").stdin(given).spawn().unwrap();
    let child = Mortal::from(child);
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let shared = fs::metadata(path).unwrap().ino();
    let files = look(cgroup.path());
    let is_shared = |file: &&OpenFile| matches!(&file.what, Open::Socket(it) if it.inode == shared);
    let mut pids: Vec<_> = files.iter().filter(is_shared).map(|file| file.process.pid).collect();
    pids.sort_unstable();
    let mut both = [std::process::id(), child.id()];
    both.sort_unstable();
    assert_eq!(pids, both);
}

#[test]
fn root_a_socket_of_a_removed_cgroup_is_inside_of_what_was_above_it() {
    isolate();
    let cgroup = ScratchCgroup::new("parent");
    let gone = cgroup.child("gone");
    let socket = {
        let _inside = enter(&gone);
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    };
    let gone_id = id(&gone);
    let child = cgroup.child("child");
    let _inside = enter(&child);
    remove_tree(&gone).unwrap();
    let of = |cgroup| told_of(&look(cgroup), &socket).unwrap();
    assert_eq!((of(cgroup.path()).cgroup, of(cgroup.path()).is_inside), (gone_id, true));
    assert!(!of(&child).is_inside);
}

#[test]
fn root_other_network_namespaces_and_whole_frames_are_seen_and_unix_sockets_are_not() {
    isolate();
    let cgroup = ScratchCgroup::new("kinds");
    let _inside = cgroup.enter();
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let elsewhere = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()
    });
    let elsewhere = elsewhere.join().unwrap();
    let make = |family, kind| socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let packet = make(AddressFamily::Packet, SockType::Raw);
    let unix = make(AddressFamily::Unix, SockType::Stream);

    let files = look(cgroup.path());
    let network = |socket: &UdpSocket| told_of(&files, socket).unwrap().network;
    let own = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    assert_eq!(u64::from(network(&here)), own);
    assert_ne!(network(&elsewhere), network(&here));
    assert_eq!(told_of(&files, &packet).unwrap().kind, SocketKind::Packet);
    assert_eq!(told_of(&files, &unix), None);
}

#[test]
fn root_a_process_with_one_thread_in_a_threaded_cgroup_is_seen_and_its_neighbours_are_not() {
    isolate();
    let top = ScratchCgroup::new("threaded");
    let (one, two) = (top.child("one"), top.child("two"));
    for cgroup in [&one, &two] {
        fs::write(cgroup.join("cgroup.type"), "threaded").unwrap();
    }
    let _inside = top.enter();
    let socket = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            fs::write(one.join("cgroup.threads"), "0").unwrap();
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let files = look(&one);
            assert!(told_of(&files, &socket).unwrap().is_inside);
            assert!(look(&two).is_empty());
            socket
        });
        thread.join().unwrap()
    });
    assert!(look(&one).is_empty(), "the thread has ended");
    assert!(told_of(&look(top.path()), &socket).unwrap().is_inside);
}

#[test]
fn root_a_tun_or_tap_device_is_told_of_with_its_name_and_kind() {
    isolate();
    let cgroup = ScratchCgroup::new("tun");
    let network = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    for (name, kind, is_tap) in [("chadtest0", "tun", false), ("chadtest1", "tap", true)] {
        let holder = Holder::start(cgroup.path(), name, kind, true);
        let files = look(cgroup.path());
        let device = Device { name: name.to_owned(), is_tap: Some(is_tap), network: Some(network) };
        let found = files.iter().find(|file| file.what == Open::Device(device.clone()));
        assert_eq!(found.map(|file| file.process.pid), Some(holder.pid()), "{files:?}");
        assert!(files.iter().any(|file| matches!(file.what, Open::Socket(_))));
    }
}

#[test]
fn root_nothing_of_the_look_stays_and_a_process_in_another_pid_namespace_is_named_in_ours() {
    isolate();
    let cgroup = ScratchCgroup::new("pids");
    let mut child = {
        let _inside = cgroup.enter();
        std::process::Command::new("unshare")
            .args(["--pid", "--fork", "python3", "-S", "-c"])
            .arg(
                "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(flush=True); input()",
            )
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let sockets = Sockets::load(&Cgroup::open(cgroup.path()).unwrap()).unwrap();
    let files = sockets.look().unwrap();
    let is_blind = sockets.is_blind().unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    let [file] = &files[..] else { panic!("one socket: {files:?}") };
    let children = kernel::cgroup::processes(cgroup.path());
    assert_ne!(file.process.pid, 1, "{children:?}");
    assert!(file.process.pid > child.id());
    assert!(!is_blind);
}

/// The kernel pauses after a million files of which there is nothing to tell, and means to be asked on.
#[test]
fn root_a_million_files_that_are_no_sockets_do_not_end_the_look() {
    const FILES: u64 = 1_040_000;
    isolate();
    let (own, other) = (ScratchCgroup::new("own"), ScratchCgroup::new("other"));
    let _inside = other.enter();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // As many as one table may have, and as many threads as that takes, each with a table of its own.
    let each = hard.min(1 << 20) - 1_000;
    let null = fs::File::open("/dev/null").unwrap();
    let threads = FILES.div_ceil(each);
    let [made, looked] = [(); 2].map(|()| Barrier::new(usize::try_from(threads).unwrap() + 1));
    let (none, socket, one) = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_FILES).unwrap();
                let copies: Vec<_> = (0..each).map(|_| null.try_clone().unwrap()).collect();
                made.wait();
                looked.wait();
                drop(copies);
            });
        }
        made.wait();
        let look = |cgroup| Sockets::load(&Cgroup::open(cgroup).unwrap()).and_then(|it| it.look());
        let none = look(own.path());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let one = look(other.path());
        looked.wait();
        (none, socket, one)
    });
    assert!(none.unwrap().is_empty());
    assert!(told_of(&one.unwrap(), socket.unwrap()).unwrap().is_inside);
}
