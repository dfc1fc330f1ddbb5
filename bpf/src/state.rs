//! A throttle's state in the kernel: encodes limits for the packet programs, and decodes state and counters.
//!
//! `programs/gcra.h` has the arithmetic. This module computes the numbers for it.

use kernel::AttachType;
use zerocopy::IntoBytes;

use crate::limits::{Departures, FqDevices, Limits, Traffic};
use crate::throttle::types;

/// Fractional bits of the cost of a byte (`GCRA_COST_SHIFT`).
const COST_SHIFT: u32 = 24;
/// The longest packet in bytes (`GCRA_MAX_BYTES`).
const MAX_BYTES: u64 = 1 << 20;
/// The shortest packet in bytes: a bare IPv4 header. Rounding distorts the cost of this packet most.
const MIN_BYTES: u64 = 20;
const NANOS: u64 = 1_000_000_000;
/// The part of the reserve that may be used at once (`GCRA_RESERVE_NS`).
const RESERVE_NS: u64 = 50_000_000;
/// The part of the DNS bucket that may be used at once (`GCRA_DNS_NS`).
const DNS_NS: u64 = 400_000_000;
/// The longest wait in `fq`. `fq` drops a packet that is to leave more than 10 s ahead (its horizon).
const MOST_AHEAD: u64 = 5 * NANOS;

/// The state of a throttle at one cgroup and attach type (`struct throttle_state`).
#[derive(Debug, Clone, Copy, Default)]
pub struct ThrottleState(pub(crate) types::throttle_state);

impl PartialEq for ThrottleState {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl Eq for ThrottleState {}

/// Converts a time from the ticks of one state to those of another. A time that wrapped in finer ticks comes out in the
/// past.
fn in_other_ticks(time: u64, from: &types::throttle_state, to: &types::throttle_state) -> u64 {
    time >> from.tick_shift << to.tick_shift
}

impl ThrottleState {
    /// Returns the state that limits nothing. The kernel creates this state when a program is attached.
    pub fn disarmed() -> Self {
        Self::default()
    }

    /// Returns the state for these limits, with a full burst to spend. `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub fn armed(limits: &Limits, now: u64) -> Self {
        let rate = limits.rate.bytes_per_second();
        let tick_shift = tick_shift(rate);
        // Rounded to the nearest. At most 2^44, at 1 kB/s, so MAX_BYTES times the cost still fits into 64 bits.
        let cost = ((NANOS << COST_SHIFT) + rate / 2) / rate;
        let ticks = |ns: u64| ns << tick_shift;
        let most = if limits.departures.wait() { MOST_AHEAD } else { u64::MAX };
        let tolerance = ticks(limits.burst.as_nanos().min(most));
        let longest_packet = (MAX_BYTES * cost) >> (COST_SHIFT - tick_shift);
        Self(types::throttle_state {
            rate,
            burst_ns: limits.burst.as_nanos(),
            cost,
            tolerance,
            // The extra second is for a CPU that read its clock long before it read the TAT. No packet is longer than
            // half of the longest, so packets that passed by the reserve or as DNS fit too.
            horizon: tolerance + longest_packet + ticks(NANOS),
            tat: ticks(now),
            reserve: ticks(now),
            tick_shift,
            flow: types::throttle_flow::default(),
            dns: ticks(now),
            traffic: match limits.traffic {
                Traffic::All => types::throttle_traffic::TRAFFIC_ALL,
                Traffic::Internet => types::throttle_traffic::TRAFFIC_INTERNET,
                Traffic::Local => types::throttle_traffic::TRAFFIC_LOCAL,
            },
            departures: limits.departures.wait().into(),
            fq: limits.departures.devices().unwrap_or_default().for_state(),
        })
    }

    /// Returns the state for new limits of a running throttle. The used part of the burst stays used, as time, as far
    /// as the new limits allow.
    ///
    /// So changing a limit again and again gives nobody a new burst.
    #[must_use]
    pub fn changed_to(&self, limits: &Limits, now: u64) -> Self {
        let mut next = Self::armed(limits, now);
        if self.is_armed() {
            let (old, new) = (&self.0, &mut next.0);
            let furthest_ns = (new.horizon >> new.tick_shift) - NANOS;
            let carry = |from: u64, to: &mut u64, furthest_ns: u64| {
                let ahead = from.wrapping_sub(now << old.tick_shift);
                let ahead_ns = if ahead > old.horizon { 0 } else { ahead >> old.tick_shift };
                *to = to.wrapping_add(ahead_ns.min(furthest_ns) << new.tick_shift);
            };
            carry(old.tat, &mut new.tat, furthest_ns);
            carry(old.reserve, &mut new.reserve, furthest_ns + RESERVE_NS);
            carry(old.dns, &mut new.dns, furthest_ns + DNS_NS);
            // The estimate of the number of senders stays valid. Each sender gets the same share as before.
            let part =
                u128::from(old.flow.fair_rate) * u128::from(new.rate) / u128::from(old.rate.max(1));
            new.flow =
                types::throttle_flow { fair_rate: u64::try_from(part).unwrap_or(0), ..old.flow };
        }
        next
    }

    /// Returns the state of one direction. For `SOCK_OPS`, that is the limited direction, upload first.
    pub(crate) fn of(both: &types::throttle_cgroup, attach_type: AttachType) -> Self {
        match attach_type {
            AttachType::INET_INGRESS => Self(both.download),
            AttachType::SOCK_OPS if both.upload.cost == 0 => Self(both.download),
            _ => Self(both.upload),
        }
    }

    /// Stores the state in its direction's half, and leaves the other half alone. `None` for an attach type without a
    /// state of its own.
    ///
    /// `has_queue`: packets above the download limit wait in a queue.
    pub(crate) fn put(
        &self,
        both: &mut types::throttle_cgroup,
        at: AttachType,
        has_queue: bool,
    ) -> Option<()> {
        match at {
            AttachType::INET_INGRESS => {
                let before = std::mem::replace(&mut both.download, self.0);
                if has_queue && self.is_armed() && before.tat != 0 {
                    // Packets in the queue have not reached the cgroup yet, and are not charged there.
                    both.download.tat = in_other_ticks(before.tat, &before, &self.0);
                    both.download.reserve = in_other_ticks(before.reserve, &before, &self.0);
                    both.download.dns = in_other_ticks(before.dns, &before, &self.0);
                }
            }
            AttachType::INET_EGRESS => both.upload = self.0,
            _ => return None,
        }
        Some(())
    }

    /// Returns the bytes as the kernel stores them. The benches use it to run the packet programs themselves.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Tells whether the state limits anything.
    pub fn is_armed(&self) -> bool {
        self.0.cost != 0
    }

    /// Returns the rate in bytes per second; 0 when disarmed.
    pub fn rate(&self) -> u64 {
        self.0.rate
    }

    /// Returns the burst in nanoseconds at the rate.
    pub fn burst_ns(&self) -> u64 {
        self.0.burst_ns
    }

    /// Returns where packets above the limit wait.
    pub fn departures(&self) -> Departures {
        let devices = FqDevices::from_state(self.0.fq);
        match self.0.departures {
            0 => Departures::Never,
            _ if devices.is_empty() => Departures::Queue,
            _ => Departures::Fq(devices),
        }
    }

    /// Returns the limited class of traffic. `None` for a class that this build does not know.
    pub fn traffic(&self) -> Option<Traffic> {
        match self.0.traffic {
            types::throttle_traffic::TRAFFIC_ALL => Some(Traffic::All),
            types::throttle_traffic::TRAFFIC_INTERNET => Some(Traffic::Internet),
            types::throttle_traffic::TRAFFIC_LOCAL => Some(Traffic::Local),
            _ => None,
        }
    }
}

/// Returns the shift from nanoseconds to ticks. Ticks are fine enough that the shortest packet's cost is off by at most
/// one part in 2,000: half a tick over `MIN_BYTES / rate`.
fn tick_shift(rate: u64) -> u32 {
    let ticks_per_nano = (rate * 1_000).div_ceil(MIN_BYTES * NANOS);
    ticks_per_nano.max(1).next_power_of_two().trailing_zeros()
}

/// A number of packets and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets, one for each segment that GSO or GRO has merged.
    pub packets: u64,
    /// Bytes, counted from the IP header on.
    pub bytes: u64,
}

impl std::ops::Add for Count {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), std::ops::Add::add)
    }
}

/// Counts of the packets that a throttle's program saw, since the program was first attached there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets without a limit: of the other class of traffic, or seen while the throttle was disarmed.
    pub exempt: Count,
    /// Packets within the limit.
    pub passed: Count,
    /// Packets above the limit, which the program dropped.
    pub dropped: Count,
    /// Packets above the limit that stay in their TCP socket's queue, and are sent later. Every attempt counts, so one
    /// segment may count many times before it passes.
    pub held_back: Count,
}

impl Counters {
    /// Returns the sum of all packets seen.
    pub fn seen(&self) -> Count {
        self.exempt + self.passed + self.dropped + self.held_back
    }

    /// Returns the counts since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: Count, then: Count| Count {
            packets: now.packets.saturating_sub(then.packets),
            bytes: now.bytes.saturating_sub(then.bytes),
        };
        Self {
            exempt: since(self.exempt, earlier.exempt),
            passed: since(self.passed, earlier.passed),
            dropped: since(self.dropped, earlier.dropped),
            held_back: since(self.held_back, earlier.held_back),
        }
    }
}

impl From<types::throttle_counters> for Counters {
    fn from(raw: types::throttle_counters) -> Self {
        Self {
            exempt: Count { packets: raw.exempt_packets, bytes: raw.exempt_bytes },
            passed: Count { packets: raw.passed_packets, bytes: raw.passed_bytes },
            dropped: Count { packets: raw.dropped_packets, bytes: raw.dropped_bytes },
            held_back: Count { packets: raw.held_back_packets, bytes: raw.held_back_bytes },
        }
    }
}

impl std::ops::Add for Counters {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            exempt: self.exempt + other.exempt,
            passed: self.passed + other.passed,
            dropped: self.dropped + other.dropped,
            held_back: self.held_back + other.held_back,
        }
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), std::ops::Add::add)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
