//! Starts a process that holds a tun or tap device, like a VPN client or a virtual machine.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Moves to a cgroup and opens a device of the given name and kind, and a UDP socket on request. It ends with its
/// standard input.
const HOLDER: &str = r#"
import fcntl, os, socket, struct, sys
cgroup, name, kind, transport = sys.argv[1:]
open(cgroup + "/cgroup.procs", "w").write("0")
device = os.open("/dev/net/tun", os.O_RDWR)
IFF_NO_PI, TUNSETIFF = 0x1000, 0x400454CA
fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), {"tun": 1, "tap": 2}[kind] | IFF_NO_PI))
if transport == "yes":
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
sys.stdin.read()
"#;

/// A process with a tun or tap device. Dropping it ends the process, and the device disappears.
#[derive(Debug)]
pub struct Holder {
    child: Child,
}

impl Holder {
    /// Starts the process in a cgroup. With `transport` it also opens a UDP socket, like a VPN client.
    ///
    /// # Panics
    /// Panics if it does not start: without root, python3 or the kernel's `tun`.
    #[must_use]
    pub fn start(cgroup: &std::path::Path, name: &str, kind: &str, transport: bool) -> Self {
        // Loading the module creates /dev/net/tun. A built-in tun needs no loading.
        let _ = Command::new("modprobe").arg("tun").stderr(Stdio::null()).status();
        let mut child = Command::new("python3")
            .args(["-S", "-c", HOLDER])
            .arg(cgroup)
            .args([name, kind, if transport { "yes" } else { "no" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut said = String::new();
        let stdout: ChildStdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut said).expect("it says something");
        assert_eq!(said, "ready\n", "python3 has a tun device");
        Self { child }
    }

    /// Returns its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            // A process that has ended already needs no notice.
            let _ = stdin.flush();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
