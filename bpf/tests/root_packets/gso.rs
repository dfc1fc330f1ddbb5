//! What GSO or a virtual machine's device has put together is charged for what goes over the wire.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;

use bpf::limits::Traffic;
use kernel::AttachType;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use crate::{Lab, V4, V6};

/// The headers of IP and UDP.
const HEADERS: [(std::net::IpAddr, u64); 2] = [(V4, 28), (V6, 48)];

#[test]
fn root_each_segment_of_a_packet_that_is_sent_is_charged_with_headers() {
    for (address, headers) in HEADERS {
        let lab = Lab::new(AttachType::INET_EGRESS, Traffic::All);
        let (sender, receiver) = lab.sockets(address, address);
        setsockopt(&sender.as_fd(), UdpGsoSegment, &1_000).unwrap();
        // One that is alone; and five of 1,000 bytes and one of 500, after which the bucket is full.
        sender.send_to(&[7; 900], receiver.local_addr().unwrap()).unwrap();
        sender.send_to(&[7; 5_500], receiver.local_addr().unwrap()).unwrap();
        let passed = lab.counters().passed;
        assert_eq!((passed.packets, passed.bytes), (2, 6_400 + 7 * headers), "{address}");
    }
}

/// Makes a tun device, and has it hand over 3,000 bytes of TCP in segments of 1,300, put together, as a virtual machine's
/// device does: with the size of a segment and without their number.
const DEVICE: &str = r#"
import fcntl, os, struct, subprocess, sys
port = int(sys.argv[1])
tun = os.open("/dev/net/tun", os.O_RDWR)
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR, TUNSETIFF = 1, 0x1000, 0x4000, 0x400454CA
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"chadtest0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
for words in ["ip addr add 10.77.0.1/24 dev chadtest0", "ip link set chadtest0 up"]:
    subprocess.run(words.split(), check=True)
source, destination = bytes([10, 77, 0, 2]), bytes([10, 77, 0, 1])
def ip(checksum):
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 3040, 1, 0, 64, 6, checksum, source, destination)
def folded(data):
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)
pseudo = folded(source + destination + struct.pack(">HH", 6, 3020))
tcp = struct.pack(">HHIIBBHHH", 4000, port, 1, 1, 5 << 4, 0x10, 1000, pseudo, 0)
NEEDS_CHECKSUM, TCPV4 = 1, 1
header = struct.pack("<BBHHHH", NEEDS_CHECKSUM, TCPV4, 40, 1300, 20, 16)
os.write(tun, header + ip(~folded(ip(0)) & 0xFFFF) + tcp + bytes(3000))
"#;

#[test]
fn root_segments_that_nobody_has_counted_are_charged_with_headers_too() {
    let lab = Lab::new(AttachType::INET_INGRESS, Traffic::All);
    // It belongs to no connection, and is looked at for the listener.
    let listener = {
        let _inside = lab.cgroup.enter();
        TcpListener::bind(("0.0.0.0", 0)).unwrap()
    };
    // Where it is a module, /dev/net/tun comes with it. Where it is built in, there is nothing to load.
    let _ = Command::new("modprobe").arg("tun").output();
    let port = listener.local_addr().unwrap().port().to_string();
    let said = Command::new("python3").args(["-S", "-c", DEVICE, &port]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let seen = lab.counters().seen();
    assert_eq!((seen.packets, seen.bytes), (1, 3_000 + 3 * 40));
}
