//! Real packets over loopback.

mod at_limit;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use at_limit::{
    Interval, Measured, TRIES, assert_at_limit, assert_held, iperf3_intervals, is_at_limit,
};

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
#[derive(Debug)]
pub struct Flood {
    /// When each datagram was about to be sent, and when it had been, after the first one.
    times: Vec<(Duration, Duration)>,
    /// The length of a packet, from the IP header on.
    packet: u64,
    /// Sends that the kernel refused.
    pub refused: u64,
    /// Datagrams received.
    pub received: u64,
}

impl Flood {
    /// Datagrams sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.times.len() as u64
    }

    /// For how long it was sent.
    fn lasted(&self) -> Duration {
        self.times.last().map_or(Duration::ZERO, |it| it.1)
    }

    /// Whether so much was sent that a limit (bytes per second) with this burst is sure to let less through.
    fn shows(&self, rate: u64, burst: Duration) -> bool {
        *self.ideal(rate, burst).end() < self.sent()
    }

    /// Bytes received, from the IP header on.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.received * self.packet
    }

    /// How many datagrams an ideal limit (bytes per second) lets through, to one percent (three at the most where the machine
    /// stands still often), at the times at which they were
    /// really sent: a machine that is busy with other things, and sends late and in heaps, is no error of the limit's.
    /// Where it does something else in the middle of a send, nobody knows whether the limit was asked before or after.
    #[must_use]
    pub fn ideal(&self, rate: u64, burst: Duration) -> RangeInclusive<u64> {
        self.ideal_in_turn(&[rate], burst)
    }

    /// The same of several limits: each is asked for what those before it have let through.
    #[must_use]
    pub fn ideal_in_turn(&self, rates: &[u64], burst: Duration) -> RangeInclusive<u64> {
        let costs = rates.iter().map(|&rate| self.packet as f64 / rate as f64);
        let costs: Vec<_> = costs.map(Duration::from_secs_f64).collect();
        let passed = |time: fn(&(Duration, Duration)) -> Duration| {
            let sent = self.times.iter().map(time).collect();
            costs.iter().fold(sent, |came, &cost| let_through(came, cost, burst)).len() as u64
        };
        // Of each of these either may be true.
        let (early, late) = (passed(|it| it.0), passed(|it| it.1));
        let cost = costs.iter().min().copied().unwrap_or_default();
        let torn =
            self.times.iter().filter(|(from, to)| to.saturating_sub(*from) >= cost).count() as u64;
        let error = |of: u64| of / 100 + costs.len() as u64 + torn.min(of / 50);
        let (least, most) = (early.min(late), early.max(late));
        least.saturating_sub(error(least))..=most + error(most)
    }

    /// Fails unless what arrived is what that limit lets through.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_limited(&self, rate: u64, burst: Duration) {
        self.assert_limited_with_reserve(rate, burst, Duration::ZERO);
    }

    /// The same where a reserve may let through as much more, once, as the rate has in that time.
    ///
    /// # Panics
    /// When it is not.
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

/// Of what comes at these times, what a limit lets through at which a datagram costs that much time.
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

/// Sends datagrams at about `rate` bytes per second (packets, from the IP header on) for that time,
/// receiving as they come.
///
/// # Panics
/// When a socket fails in another way than by a refused packet.
#[must_use]
pub fn flood(sender: &UdpSocket, receiver: &UdpSocket, rate: u64, time: Duration) -> Flood {
    flood_until(&[0; PAYLOAD], sender, receiver, rate, |_, due| due >= time)
}

/// For so long a slow machine may take to send more than a limit lets through.
const LONGEST: Duration = Duration::from_secs(40);

/// Sends three times what a limit (bytes per second) lets through in that time; and on, where the machine is so slow that
/// a limit with this burst might let all of that through.
///
/// # Panics
/// As [`flood`].
#[must_use]
pub fn flood_above(
    sender: &UdpSocket,
    receiver: &UdpSocket,
    (limit, burst): (u64, Duration),
    time: Duration,
) -> Flood {
    flood_above_with(&[0; PAYLOAD], sender, receiver, (limit, burst), time)
}

/// The same with that in each datagram, which is at most [`PAYLOAD`] long.
///
/// # Panics
/// As [`flood`].
#[must_use]
pub fn flood_above_with(
    payload: &[u8],
    sender: &UdpSocket,
    receiver: &UdpSocket,
    (limit, burst): (u64, Duration),
    time: Duration,
) -> Flood {
    flood_until(payload, sender, receiver, 3 * limit, |flood, due| {
        // It takes a while to find out, and that is time to send.
        let is_time = due >= time && flood.sent().is_multiple_of(50);
        is_time && (flood.shows(limit, burst) || flood.lasted() >= LONGEST)
    })
}

/// The same at about `rate` bytes per second until that is enough, told what came of it so far, and how long sending
/// that much takes at this rate.
///
/// # Panics
/// As [`flood`].
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
    // The loopback device hands packets over in a softirq: the last ones are there in a moment, or on a busy processor
    // in some.
    loop {
        std::thread::sleep(Duration::from_millis(100));
        match drain(receiver) {
            0 => return flood,
            more => flood.received += more,
        }
    }
}

/// Something goes on until something else is done, however long that takes; but where that fails, for a minute.
#[derive(Debug)]
pub struct Until {
    start: Instant,
    is_over: AtomicBool,
}

impl Until {
    /// From now on.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it begins when it is made")]
    pub fn new() -> Self {
        Self { start: Instant::now(), is_over: AtomicBool::new(false) }
    }

    /// Whether it goes on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed) && self.start.elapsed() < Duration::from_secs(60)
    }

    /// Ends it.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Waits until somebody listens on a TCP port, in the network namespace of a process.
///
/// # Panics
/// When nobody does for half a minute.
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

/// Whether somebody listens on that port, by a table as in `/proc/net/tcp` (proc(5)).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ideal_limit_lets_its_rate_and_its_burst_through() {
        let flood = |times| Flood { times, packet: 1_000, refused: 0, received: 0 };
        let ms = Duration::from_millis;
        let calm = flood((0..1_000).map(|it| (ms(it), ms(it))).collect());
        // 0.5 MB/s: every other one, and 100 ms more at the start.
        assert_eq!(calm.ideal(500_000, Duration::ZERO), 494..=506);
        assert_eq!(calm.ideal(500_000, ms(100)), 544..=556);
        assert_eq!(calm.ideal(2_000_000, Duration::ZERO), 989..=1_011);
        // Of each second one, or none, by when it is looked at.
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
        // Alone each takes two of three: the wide one the first two, the narrow one the first and the last.
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
