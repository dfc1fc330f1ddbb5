//! The exact limit, without rounding, to compare the packet programs with.
//!
//! A nanosecond has `rate * 2^25` units of time. So the cost of a packet is a whole number of units (`bytes * 10^9 *
//! 2^25`). The tolerances and the programs' largest error are whole numbers too. 128 bits hold centuries at 100 GB/s.
//!
//! The programs round twice for each packet. They round the cost of a byte to the nearest 2^-24 ns, and the packet's
//! cost to the nearest tick of 2^-shift ns. So a packet adds an error of at most `bytes * 2^-25 + 2^-(shift + 1)` ns.
//! There is no other error, and an idle bucket starts without any.

use std::ops::RangeInclusive;

/// A nanosecond has `rate * 2^FRACTION` units.
const FRACTION: u32 = 25;
const NANOS: u128 = 1_000_000_000;
const MILLI: u64 = 1_000_000;

/// The properties of a packet that matter to the limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// The bytes on the wire.
    pub(crate) bytes: u32,
    /// A TCP segment, sent while nothing of its socket is in flight.
    pub(crate) is_lone: bool,
    /// A datagram from or to a port of DNS.
    pub(crate) is_dns: bool,
}

/// The bucket that admitted a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Bucket,
    Reserve,
    Dns,
    Refused,
}

/// A theoretical arrival time, and the largest error of the programs' time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    tat: u128,
    error: u128,
}

impl Bucket {
    /// Returns how far the TAT is ahead of `now`.
    pub(crate) fn ahead(&self, now: u128) -> u128 {
        self.tat.saturating_sub(now)
    }

    /// Tells whether a packet conforms; `None` if rounding decides.
    fn conforms(&self, now: u128, tolerance: u128) -> Option<bool> {
        let ahead = self.ahead(now);
        if ahead + self.error <= tolerance {
            Some(true)
        } else if ahead > tolerance + self.error {
            Some(false)
        } else {
            None
        }
    }

    fn charge(&mut self, now: u128, cost: u128, error: u128) {
        if self.tat + self.error < now {
            self.error = 0;
        }
        self.tat = self.tat.max(now) + cost;
        self.error += error;
    }
}

/// A throttle in one direction.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    rate: u64,
    tick_shift: u32,
    burst_ns: u64,
    pub(crate) bucket: Bucket,
    pub(crate) reserve: Bucket,
    pub(crate) dns: Bucket,
}

impl Throttle {
    /// Creates a throttle with a full burst. `tick_shift` is only the resolution of the programs' clock.
    pub(crate) fn new(rate: u64, burst_ns: u64, tick_shift: u32) -> Self {
        let empty = Bucket::default();
        Self { rate, tick_shift, burst_ns, bucket: empty, reserve: empty, dns: empty }
    }

    /// Returns a time in units.
    pub(crate) fn units(&self, ns: u64) -> u128 {
        (u128::from(ns) * u128::from(self.rate)) << FRACTION
    }

    /// Converts a time from ticks to units.
    fn of_ticks(&self, ticks: u64) -> u128 {
        (u128::from(ticks) * u128::from(self.rate)) << (FRACTION - self.tick_shift)
    }

    fn cost(bytes: u32) -> u128 {
        (u128::from(bytes) * NANOS) << FRACTION
    }

    fn error(&self, bytes: u32) -> u128 {
        let half_a_tick = u128::from(self.rate) << (FRACTION - 1 - self.tick_shift);
        u128::from(bytes) * u128::from(self.rate) + half_a_tick
    }

    fn tolerance(&self, way: Way, bytes: u32) -> u128 {
        self.units(match way {
            Way::Bucket => self.burst_ns,
            // A lone segment may use the first half, and a small packet all of it.
            Way::Reserve if bytes <= 256 => 50 * MILLI,
            Way::Reserve => 25 * MILLI,
            Way::Dns => 400 * MILLI,
            Way::Refused => unreachable!("that is no bucket"),
        })
    }

    /// Returns the possible results for a packet. There are several only if rounding decides.
    pub(crate) fn ways(&self, now_ns: u64, offer: Offer) -> Vec<Way> {
        let now = self.units(now_ns);
        let buckets = [
            (Way::Bucket, &self.bucket, true),
            (Way::Reserve, &self.reserve, offer.bytes <= 256 || offer.is_lone),
            (Way::Dns, &self.dns, offer.bytes <= 1_280 && offer.is_dns),
        ];
        let mut ways = Vec::new();
        for (way, bucket, is_for_it) in buckets {
            if !is_for_it {
                continue;
            }
            match bucket.conforms(now, self.tolerance(way, offer.bytes)) {
                Some(true) => {
                    ways.push(way);
                    return ways;
                }
                Some(false) => {}
                None => ways.push(way),
            }
        }
        ways.push(Way::Refused);
        ways
    }

    /// Returns the cost of a packet in a bucket, and the largest error of that cost.
    fn there(&self, way: Way, bytes: u32) -> (u128, u128) {
        let (cost, error) = (Self::cost(bytes), self.error(bytes));
        match way {
            Way::Bucket | Way::Refused => (cost, error),
            // The reserve has half of the rate.
            Way::Reserve => (2 * cost, 2 * error),
            // The bucket for DNS has an eighth of the rate, and at most 200 packets a second.
            Way::Dns => ((8 * cost).max(self.units(5 * MILLI)), 8 * error),
        }
    }

    /// Charges a packet to the bucket that admitted it.
    pub(crate) fn charge(&mut self, now_ns: u64, offer: Offer, way: Way) {
        let now = self.units(now_ns);
        let (cost, error) = self.there(way, offer.bytes);
        match way {
            Way::Refused => return,
            Way::Bucket => {}
            Way::Reserve => self.reserve.charge(now, cost, error),
            Way::Dns => self.dns.charge(now, cost, error),
        }
        let (cost, error) = self.there(Way::Bucket, offer.bytes);
        self.bucket.charge(now, cost, error);
    }

    /// Tells whether the programs' TAT, in ticks ahead, is within the rounding error.
    pub(crate) fn agrees(&self, bucket: &Bucket, now_ns: u64, ticks_ahead: u64) -> bool {
        let ahead = bucket.ahead(self.units(now_ns));
        self.of_ticks(ticks_ahead).abs_diff(ahead) <= bucket.error
    }

    /// Returns how many packets of this size a bucket admits at one moment.
    pub(crate) fn at_once(&self, way: Way, bytes: u32) -> RangeInclusive<u128> {
        let (cost, error) = self.there(way, bytes);
        let tolerance = self.tolerance(way, bytes);
        tolerance / (cost + error) + 1..=tolerance / (cost - error) + 1
    }

    /// Returns the most bytes that the bucket alone passes in a time. The second value is the most that rounding adds
    /// for this number of packets of this size.
    pub(crate) fn most(&self, ns: u64, packets: u64, bytes: u32) -> (u128, u128) {
        let budget = self.units(ns) + self.units(self.burst_ns);
        let unit = NANOS << FRACTION;
        let error = u128::from(packets) * self.error(bytes);
        (budget / unit + u128::from(bytes), error.div_ceil(unit))
    }
}
