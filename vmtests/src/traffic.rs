//! Real packets over loopback.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde_json::Value;

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
        let early = self.passed(rate, burst, |it| it.0);
        let late = self.passed(rate, burst, |it| it.1);
        // Of each of these either may be true.
        let cost = Duration::from_secs_f64(self.packet as f64 / rate as f64);
        let torn =
            self.times.iter().filter(|(from, to)| to.saturating_sub(*from) >= cost).count() as u64;
        let error = |of: u64| of / 100 + 1 + torn.min(of / 50);
        let (least, most) = (early.min(late), early.max(late));
        least.saturating_sub(error(least))..=most + error(most)
    }

    /// What would be let through if the limit was asked at these times.
    fn passed(
        &self,
        rate: u64,
        burst: Duration,
        time: impl Fn(&(Duration, Duration)) -> Duration,
    ) -> u64 {
        let cost = Duration::from_secs_f64(self.packet as f64 / rate as f64);
        let mut busy_until = Duration::ZERO;
        let mut passed = 0;
        for now in self.times.iter().map(time) {
            busy_until = busy_until.max(now);
            if busy_until <= now + burst {
                busy_until += cost;
                passed += 1;
            }
        }
        passed
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
        assert!(most < sent, "too little was sent for a limit of {rate} B/s to be seen");
        assert!(
            (least..=most).contains(&received),
            "{received} of {sent} datagrams arrived, {least} to {most} are right at {rate} B/s"
        );
    }
}

/// What came in about a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Bytes.
    pub bytes: f64,
    /// How long it was: a machine that is busy with other things is late.
    pub seconds: f64,
}

impl Interval {
    /// Bytes a second.
    #[must_use]
    pub fn rate(self) -> f64 {
        self.bytes / self.seconds
    }
}

/// The burst of a limit for which none is wished, in seconds.
const BURST: f64 = 0.25;

/// Whether what came is what a limit with the usual burst lets through (bytes per second): all together no more than that
/// much time and the burst, in the slowest interval at most 3 % above the limit, and in the fastest one at least 90 % of
/// it. A machine that did something else for half of a second made one interval slower, and the next one faster by at
/// most the burst: that is no error of the limit's.
#[must_use]
pub fn is_at_limit(came: &[Interval], limit: f64) -> bool {
    let sum = |of: fn(&Interval) -> f64| came.iter().map(of).sum::<f64>();
    let most = (1.02 * sum(|it| it.seconds) + BURST) * limit;
    let rates = || came.iter().map(|it| it.rate() / limit);
    let slowest = rates().fold(f64::INFINITY, f64::min);
    let fastest = rates().fold(0.0, f64::max);
    sum(|it| it.bytes) <= most && slowest <= 1.03 && fastest >= 0.9
}

/// How often a busy machine may be in the way of a measurement. A limit that is wrong is wrong every time.
pub const TRIES: usize = 12;

/// Measures until what came is at a limit, and fails where it never is. (How near it comes where the machine has time,
/// docs/benchmarks has.)
///
/// # Panics
/// When it is not, however often it is measured.
#[track_caller]
pub fn assert_at_limit(limit: f64, mut measure: impl FnMut() -> Vec<Interval>) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let came = measure();
        if is_at_limit(&came, limit) {
            return;
        }
        seen.push(came);
    }
    panic!("{limit:.0} bytes a second: {seen:.2?}");
}

/// A shorter interval is the rest after the last whole one: its rate means nothing.
const SHORTEST: f64 = 0.5;

/// What came in each second, as the side says that received: the client of `iperf3 --json`, or its server, where that
/// runs with `--json` too and the client with `--get-server-output`. Without what `--omit` leaves out, and without the
/// interval after that, in whose middle iperf3 begins to count anew.
///
/// # Panics
/// When that is not to be found there.
#[must_use]
pub fn iperf3_intervals(said: &Value) -> Vec<Interval> {
    let is_reverse = said["start"]["test_start"]["reverse"] == 1;
    let receiver = if is_reverse { said } else { &said["server_output_json"] };
    let intervals = receiver["intervals"].as_array().expect("intervals").iter();
    let number = |of: &Value| of.as_f64().expect("a number");
    intervals
        .map(|it| &it["sum"])
        .filter(|sum| sum["omitted"] == false)
        .skip(1)
        .map(|sum| Interval { bytes: number(&sum["bytes"]), seconds: number(&sum["seconds"]) })
        .filter(|it| it.seconds > SHORTEST)
        .collect()
}

/// Sends datagrams at about `rate` bytes per second (packets, from the IP header on) for that time,
/// receiving as they come.
///
/// # Panics
/// When a socket fails in another way than by a refused packet.
#[must_use]
pub fn flood(sender: &UdpSocket, receiver: &UdpSocket, rate: u64, time: Duration) -> Flood {
    flood_with(&[0; PAYLOAD], sender, receiver, rate, time)
}

/// The same with that in each datagram, which is at most [`PAYLOAD`] long.
///
/// # Panics
/// As [`flood`].
#[must_use]
pub fn flood_with(
    payload: &[u8],
    sender: &UdpSocket,
    receiver: &UdpSocket,
    rate: u64,
    time: Duration,
) -> Flood {
    let to = receiver.local_addr().expect("an address");
    let packet = packet_len(to.ip()) - (PAYLOAD - payload.len()) as u64;
    let gap = Duration::from_secs_f64(packet as f64 / rate as f64);
    let mut flood = Flood { times: Vec::new(), packet, refused: 0, received: 0 };
    let start = Instant::now();
    let mut next = start;
    while next < start + time {
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
    fn a_stall_is_no_error_of_a_limits_and_a_wrong_rate_is_one() {
        let holds = |rates: &[f64]| {
            let second = |bytes: &f64| Interval { bytes: *bytes, seconds: 1.0 };
            let came: Vec<_> = rates.iter().map(second).collect();
            is_at_limit(&came, 1_000.0)
        };
        assert!(holds(&[200.0, 910.0]) && holds(&[1_240.0, 1_030.0]));
        // Too slow, too fast, too much in all, nothing.
        assert!(!holds(&[890.0, 890.0]) && !holds(&[1_040.0, 1_040.0]));
        assert!(!holds(&[1_300.0, 1_020.0]) && !holds(&[]));
    }

    #[test]
    fn it_is_measured_again_and_not_for_ever() {
        let mut rates = [1_200.0, 700.0, 1_000.0].into_iter();
        let second = |bytes| vec![Interval { bytes, seconds: 1.0 }];
        assert_at_limit(1_000.0, || second(rates.next().unwrap()));
        let mut count = 0;
        let measure = || {
            count += 1;
            second(1_050.0)
        };
        let wrong = std::panic::AssertUnwindSafe(|| assert_at_limit(1_000.0, measure));
        assert!(std::panic::catch_unwind(wrong).is_err());
        assert_eq!(count, TRIES);
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

    #[test]
    fn of_iperf3_those_intervals_count_that_the_receiver_has_whole() {
        let interval = |bytes, seconds: f64, omitted| serde_json::json!({ "sum": { "bytes": bytes, "seconds": seconds, "omitted": omitted } });
        let intervals = [
            interval(9, 1.0, true),
            interval(8, 1.0, false),
            interval(7, 1.1, false),
            interval(6, 0.1, false),
        ];
        let one = [Interval { bytes: 7.0, seconds: 1.1 }];
        let start = |reverse| serde_json::json!({ "test_start": { "reverse": reverse } });
        let download = serde_json::json!({ "start": start(1), "intervals": intervals });
        assert_eq!(iperf3_intervals(&download), one);
        let server = serde_json::json!({ "intervals": intervals });
        let upload = serde_json::json!({
            "start": start(0), "intervals": [], "server_output_json": server
        });
        assert_eq!(iperf3_intervals(&upload), one);
    }
}
