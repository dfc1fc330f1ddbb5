//! Real packets over loopback.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The length of a datagram's payload.
pub const PAYLOAD: usize = 1_000;

/// The length of its packet, from the IP header on.
#[must_use]
pub fn packet_len(address: IpAddr) -> u64 {
    let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    (PAYLOAD + headers) as u64
}

/// A bound socket with room for everything that a test sends, so that what is lost is lost in the
/// throttle.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn socket(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0)).expect("a socket");
    socket.set_nonblocking(true).expect("a non-blocking socket");
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))
        .expect("a large receive buffer");
    socket
}

/// What came of a flood.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// Datagrams sent.
    pub sent: u64,
    /// Sends that the kernel refused.
    pub refused: u64,
    /// Datagrams received.
    pub received: u64,
    /// From the first send to the last.
    pub time: Duration,
}

impl Flood {
    /// Bytes per second that arrived, from the IP header on.
    #[must_use]
    pub fn rate(&self, address: IpAddr) -> f64 {
        (self.received * packet_len(address)) as f64 / self.time.as_secs_f64()
    }
}

/// Sends datagrams at about `rate` bytes per second (packets, from the IP header on) for that time,
/// receiving as they come.
///
/// # Panics
/// When a socket fails in another way than by a full queue or a refused packet.
#[must_use]
pub fn flood(sender: &UdpSocket, receiver: &UdpSocket, rate: u64, time: Duration) -> Flood {
    let to = receiver.local_addr().expect("an address");
    let gap = Duration::from_secs_f64(packet_len(to.ip()) as f64 / rate as f64);
    let payload = [0; PAYLOAD];
    let mut flood = Flood { sent: 0, refused: 0, received: 0, time };
    let start = Instant::now();
    let mut next = start;
    while next < start + time {
        while Instant::now() < next {
            flood.received += drain(receiver);
        }
        match sender.send_to(&payload, to) {
            Ok(_) => flood.sent += 1,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => flood.refused += 1,
            Err(error) => panic!("{error}"),
        }
        next += gap;
    }
    flood.time = start.elapsed();
    // The loopback device hands packets over in a softirq: the last ones are there in a moment.
    std::thread::sleep(Duration::from_millis(20));
    flood.received += drain(receiver);
    flood
}

/// Receives what is there.
fn drain(receiver: &UdpSocket) -> u64 {
    let mut buffer = [0; 2 * PAYLOAD];
    let mut count = 0;
    loop {
        match receiver.recv(&mut buffer) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}
