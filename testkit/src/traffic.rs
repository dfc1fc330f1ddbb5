//! Sends real packets over loopback.

mod at_limit;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use at_limit::{
    Interval, Measured, TRIES, assert_at_limit, assert_held, iperf3_intervals, is_at_limit,
};

/// The payload of a datagram, in bytes.
pub const PAYLOAD: usize = 1_000;

/// Returns the length of its packet from the IP header on, in bytes.
#[must_use]
pub fn packet_len(address: IpAddr) -> u64 {
    let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    (PAYLOAD + headers) as u64
}

/// Binds a socket with room for everything that a test sends. So only the throttle can lose packets.
///
/// # Panics
/// Panics if the socket cannot be created.
#[must_use]
pub fn socket(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0)).expect("a socket");
    socket.set_nonblocking(true).expect("a non-blocking socket");
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))
        .expect("a large receive buffer");
    socket
}

/// The result of a flood.
#[derive(Debug)]
pub struct Flood {
    /// The times before and after each send, since the start of the flood.
    times: Vec<(Duration, Duration)>,
    /// The length of a packet from the IP header on, in bytes.
    packet: u64,
    /// The number of sends that the kernel refused.
    pub refused: u64,
    /// The number of received datagrams.
    pub received: u64,
}

impl Flood {
    /// Returns the number of sent datagrams.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.times.len() as u64
    }

    /// Returns how long the flood lasted.
    fn lasted(&self) -> Duration {
        self.times.last().map_or(Duration::ZERO, |it| it.1)
    }

    /// Tells whether the flood was large enough that a limit with this burst must drop some of it. `rate` is in bytes
    /// per second.
    fn shows(&self, rate: u64, burst: Duration) -> bool {
        *self.ideal(rate, burst).end() < self.sent()
    }

    /// Returns the received bytes, from the IP header on.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.received * self.packet
    }

    /// Returns how many datagrams an ideal limit passes, given the actual send times. `rate` is in bytes per second.
    ///
    /// A busy machine sends late and in bursts, which is no error of the limit. If a send took long, the limit may have
    /// seen the packet before or after the pause. The range allows one percent, or three if many sends took long.
    #[must_use]
    pub fn ideal(&self, rate: u64, burst: Duration) -> RangeInclusive<u64> {
        self.ideal_in_turn(&[rate], burst)
    }

    /// Returns the same for several limits in a row. Each sees what the ones before it have passed.
    #[must_use]
    pub fn ideal_in_turn(&self, rates: &[u64], burst: Duration) -> RangeInclusive<u64> {
        let costs = rates.iter().map(|&rate| self.packet as f64 / rate as f64);
        let costs: Vec<_> = costs.map(Duration::from_secs_f64).collect();
        let passed = |time: fn(&(Duration, Duration)) -> Duration| {
            let sent = self.times.iter().map(time).collect();
            costs.iter().fold(sent, |came, &cost| let_through(came, cost, burst)).len() as u64
        };
        // The limit sees a packet at some time between these two.
        let (early, late) = (passed(|it| it.0), passed(|it| it.1));
        let cost = costs.iter().min().copied().unwrap_or_default();
        let torn =
            self.times.iter().filter(|(from, to)| to.saturating_sub(*from) >= cost).count() as u64;
        let error = |of: u64| of / 100 + costs.len() as u64 + torn.min(of / 50);
        let (least, most) = (early.min(late), early.max(late));
        least.saturating_sub(error(least))..=most + error(most)
    }

    /// Checks that the received datagrams are what this limit passes.
    ///
    /// # Panics
    /// Panics if they are not.
    #[track_caller]
    pub fn assert_limited(&self, rate: u64, burst: Duration) {
        self.assert_limited_with_reserve(rate, burst, Duration::ZERO);
    }

    /// Checks the same for a limit with a reserve. The reserve passes extra datagrams once, as many as the rate allows
    /// in the time `reserve`.
    ///
    /// # Panics
    /// Panics if the received datagrams differ.
    #[track_caller]
    pub fn assert_limited_with_reserve(&self, rate: u64, burst: Duration, reserve: Duration) {
        let least = *self.ideal(rate, burst).start();
        let most = *self.ideal(rate, burst + reserve).end();
        let (received, sent) = (self.received, self.sent());
        let is_seen = self.shows(rate, burst + reserve);
        assert!(is_seen, "too little was sent for a limit of {rate} B/s to be seen");
        assert!(
            (least..=most).contains(&received),
            "{received} of {sent} datagrams arrived, {least} to {most} are right at {rate} B/s"
        );
    }
}

/// Returns which of these datagrams a limit passes. Each datagram costs the time `cost` at the limit's rate.
fn let_through(came: Vec<Duration>, cost: Duration, burst: Duration) -> Vec<Duration> {
    let mut busy_until = Duration::ZERO;
    let is_passed = |&now: &Duration| {
        busy_until = busy_until.max(now);
        let passes = busy_until <= now + burst;
        if passes {
            busy_until += cost;
        }
        passes
    };
    came.into_iter().filter(is_passed).collect()
}

/// Sends datagrams for the given time and receives them as they come. `rate` is about the bytes per second, from the IP
/// header on.
///
/// # Panics
/// Panics if a socket fails, except for refused packets.
#[must_use]
pub fn flood(sender: &UdpSocket, receiver: &UdpSocket, rate: u64, time: Duration) -> Flood {
    flood_until(&[0; PAYLOAD], sender, receiver, rate, |_, due| due >= time)
}

/// The longest time in which a slow machine tries to exceed a limit.
const LONGEST: Duration = Duration::from_secs(40);

/// Sends at three times the limit (bytes per second) for the given time. It continues while a limit with this burst
/// might pass everything that the slow machine has sent.
///
/// # Panics
/// Panics like [`flood`].
#[must_use]
pub fn flood_above(
    sender: &UdpSocket,
    receiver: &UdpSocket,
    (limit, burst): (u64, Duration),
    time: Duration,
) -> Flood {
    flood_above_with(&[0; PAYLOAD], sender, receiver, (limit, burst), time)
}

/// Does the same with this payload in each datagram. The payload has at most [`PAYLOAD`] bytes.
///
/// # Panics
/// Panics like [`flood`].
#[must_use]
pub fn flood_above_with(
    payload: &[u8],
    sender: &UdpSocket,
    receiver: &UdpSocket,
    (limit, burst): (u64, Duration),
    time: Duration,
) -> Flood {
    flood_until(payload, sender, receiver, 3 * limit, |flood, due| {
        // This check takes a while, and that time is missing for sending.
        let is_time = due >= time && flood.sent().is_multiple_of(50);
        is_time && (flood.shows(limit, burst) || flood.lasted() >= LONGEST)
    })
}

/// Sends at about `rate` bytes per second until `is_enough` returns true. The closure gets the flood so far and the
/// time that it takes at this rate.
///
/// # Panics
/// Panics like [`flood`].
#[must_use]
pub fn flood_until(
    payload: &[u8],
    sender: &UdpSocket,
    receiver: &UdpSocket,
    rate: u64,
    mut is_enough: impl FnMut(&Flood, Duration) -> bool,
) -> Flood {
    let to = receiver.local_addr().expect("an address");
    let packet = packet_len(to.ip()) - (PAYLOAD - payload.len()) as u64;
    let gap = Duration::from_secs_f64(packet as f64 / rate as f64);
    let mut flood = Flood { times: Vec::new(), packet, refused: 0, received: 0 };
    let start = Instant::now();
    let mut next = start;
    while !is_enough(&flood, next - start) {
        while Instant::now() < next {
            flood.received += drain(receiver);
        }
        let before = start.elapsed();
        match sender.send_to(payload, to) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => flood.refused += 1,
            Err(error) => panic!("{error}"),
        }
        flood.times.push((before, start.elapsed()));
        next += gap;
    }
    // The loopback device delivers packets in a softirq. The last ones arrive a moment later, or somewhat later on a
    // busy processor.
    loop {
        std::thread::sleep(Duration::from_millis(100));
        match drain(receiver) {
            0 => return flood,
            more => flood.received += more,
        }
    }
}

/// Lets one activity run until another one ends it. If that fails, the activity stops after a minute.
#[derive(Debug)]
pub struct Until {
    start: Instant,
    is_over: AtomicBool,
}

impl Until {
    /// Starts now.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it begins when it is made")]
    pub fn new() -> Self {
        Self { start: Instant::now(), is_over: AtomicBool::new(false) }
    }

    /// Tells whether the activity should continue.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed) && self.start.elapsed() < Duration::from_secs(60)
    }

    /// Ends the activity.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Waits until a process listens on a TCP port, in the network namespace of process `pid`.
///
/// # Panics
/// Panics if nobody listens within half a minute.
pub fn wait_for_listener(pid: u32, port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_there = |table: &str| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        table.is_ok_and(|table| is_listened_to(&table, port))
    };
    while !is_there("tcp") && !is_there("tcp6") {
        assert!(Instant::now() < deadline, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tells whether somebody listens on this port, given a table such as `/proc/net/tcp` (proc(5)).
#[must_use]
pub fn is_listened_to(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next(), words.next(), words.next());
        state == Some(LISTEN)
            && local
                .and_then(|local| local.rsplit_once(':'))
                .is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port))
    })
}

/// Receives all waiting datagrams and returns their number.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ideal_limit_lets_its_rate_and_its_burst_through() {
        let flood = |times| Flood { times, packet: 1_000, refused: 0, received: 0 };
        let ms = Duration::from_millis;
        let calm = flood((0..1_000).map(|it| (ms(it), ms(it))).collect());
        // 0.5 MB/s passes every second datagram, and the burst adds 100 ms at the start.
        assert_eq!(calm.ideal(500_000, Duration::ZERO), 494..=506);
        assert_eq!(calm.ideal(500_000, ms(100)), 544..=556);
        assert_eq!(calm.ideal(2_000_000, Duration::ZERO), 989..=1_011);
        // Each second datagram passes or not, depending on when in the send the limit sees it.
        let second = |it: u64| [(0, 0), (0, 500)].map(|(from, to)| (ms(it + from), ms(it + to)));
        let torn = flood((0..100_000).step_by(1_000).flat_map(second).collect());
        assert_eq!(torn.ideal(1_000, Duration::ZERO), 98..=102, "no send takes as long");
        assert_eq!(torn.ideal(2_000, Duration::ZERO), 96..=207);
    }

    #[test]
    fn what_one_limit_has_dropped_is_nothing_to_the_next_one() {
        let us = Duration::from_micros;
        let round =
            |it: u64| [0, 1_400, 1_600].map(|at| (us(3_200 * it + at), us(3_200 * it + at)));
        let times = (0..100).flat_map(round).collect();
        let flood = Flood { times, packet: 1_000, refused: 0, received: 0 };
        // Alone, each limit passes two of three: the wide one the first two, the narrow one the first and the last.
        let (wide, narrow) = (1_000_000, 666_667);
        assert_eq!(flood.ideal(wide, Duration::ZERO), 197..=203);
        assert_eq!(flood.ideal(narrow, Duration::ZERO), 197..=203);
        assert_eq!(flood.ideal_in_turn(&[wide, narrow], Duration::ZERO), 97..=103);
    }

    #[test]
    fn who_listens_is_told_from_who_is_connected() {
        let head = "  sl  local_address rem_address   st tx_queue\n";
        let line = |port: &str, state: &str| {
            format!("{head}   0: 020012C6:{port} 00000000:0000 {state} 00000000:00000000\n")
        };
        assert!(is_listened_to(&line("1451", "0A"), 5201));
        assert!(!is_listened_to(&line("1451", "01"), 5201));
        assert!(!is_listened_to(&line("1452", "0A"), 5201));
        assert!(!is_listened_to(head, 5201));
    }
}
