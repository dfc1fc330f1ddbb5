//! A throttle's state, as it lies in the kernel: encoding limits for the packet program, and reading
//! back what it did.
//!
//! The arithmetic belongs to `programs/gcra.h`; here are the numbers that it works with.

use kernel::AttachType;
use zerocopy::IntoBytes;

use crate::limits::{Departures, FqDevices, Limits, Traffic};
use crate::throttle::types;

/// Fractional bits of a byte's cost: `GCRA_COST_SHIFT`.
const COST_SHIFT: u32 = 24;
/// The longest packet: `GCRA_MAX_BYTES`.
const MAX_BYTES: u64 = 1 << 20;
/// A shorter packet than a bare IPv4 header does not exist; its cost is the one that rounding hurts most.
const MIN_BYTES: u64 = 20;
const NANOS: u64 = 1_000_000_000;
/// How much of the reserve may be used at once: `GCRA_RESERVE_NS`.
const RESERVE_NS: u64 = 50_000_000;
/// The same of the bucket for DNS: `GCRA_DNS_NS`.
const DNS_NS: u64 = 400_000_000;
/// What waits in `fq` waits no longer than this: `fq` throws away what is to leave more than 10 s ahead (its horizon).
const MOST_AHEAD: u64 = 5 * NANOS;

/// The state of a throttle at one (cgroup, attach type): `struct throttle_state`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThrottleState(pub(crate) types::throttle_state);

impl PartialEq for ThrottleState {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl Eq for ThrottleState {}

/// A time in the ticks of one state, in those of another. Where the finer ones have wrapped it comes out in the past.
fn in_other_ticks(time: u64, from: &types::throttle_state, to: &types::throttle_state) -> u64 {
    time >> from.tick_shift << to.tick_shift
}

impl ThrottleState {
    /// Nothing is limited; what the kernel makes when a program is attached.
    pub fn disarmed() -> Self {
        Self::default()
    }

    /// These limits, with a full burst to spend. `now` is `CLOCK_MONOTONIC` in nanoseconds.
    pub fn armed(limits: &Limits, now: u64) -> Self {
        let rate = limits.rate.bytes_per_second();
        let tick_shift = tick_shift(rate);
        // To the nearest; at most 2^44 at 1 kB/s, so that MAX_BYTES of it still fit into 64 bits.
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
            // A second more, for a CPU that read its clock long before it looked at the TAT. No packet is longer than
            // half of the longest, so there is room for those that have passed by the reserve or as DNS.
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

    /// Other limits for a throttle that is running: what it has used up already stays used up, as time,
    /// as far as the new limits allow. (So changing a limit over and over gives nobody a new burst.)
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
            // What is known of the senders' number stays true: each gets as large a part as before.
            let part =
                u128::from(old.flow.fair_rate) * u128::from(new.rate) / u128::from(old.rate.max(1));
            new.flow =
                types::throttle_flow { fair_rate: u64::try_from(part).unwrap_or(0), ..old.flow };
        }
        next
    }

    /// The state of one direction; for TCP's place that of whichever is limited, the upload first.
    pub(crate) fn of(both: &types::throttle_cgroup, attach_type: AttachType) -> Self {
        match attach_type {
            AttachType::INET_INGRESS => Self(both.download),
            AttachType::SOCK_OPS if both.upload.cost == 0 => Self(both.download),
            _ => Self(both.upload),
        }
    }

    /// Puts it where it belongs, and leaves the other direction as it is. `None` for a place that has no state of its own.
    /// `has_queue`: what is above the download's limit waits in a queue.
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
                    // What waits in the queue has not come to the cgroup yet, and is not charged there.
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

    /// The bytes as they lie in the kernel, for who runs the packet programs by himself: the benches.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// It limits.
    pub fn is_armed(&self) -> bool {
        self.0.cost != 0
    }

    /// Bytes per second; 0 when disarmed.
    pub fn rate(&self) -> u64 {
        self.0.rate
    }

    /// The burst in nanoseconds at that rate.
    pub fn burst_ns(&self) -> u64 {
        self.0.burst_ns
    }

    /// Where packets above the limit wait.
    pub fn departures(&self) -> Departures {
        let devices = FqDevices::from_state(self.0.fq);
        match self.0.departures {
            0 => Departures::Never,
            _ if devices.is_empty() => Departures::Queue,
            _ => Departures::Fq(devices),
        }
    }

    /// Whose packets. `None` for a class that this build does not know.
    pub fn traffic(&self) -> Option<Traffic> {
        match self.0.traffic {
            types::throttle_traffic::TRAFFIC_ALL => Some(Traffic::All),
            types::throttle_traffic::TRAFFIC_INTERNET => Some(Traffic::Internet),
            types::throttle_traffic::TRAFFIC_LOCAL => Some(Traffic::Local),
            _ => None,
        }
    }
}

/// Ticks fine enough that the cost of the shortest packet is off by at most one part in 2,000:
/// half a tick over `MIN_BYTES / rate`.
fn tick_shift(rate: u64) -> u32 {
    let ticks_per_nano = (rate * 1_000).div_ceil(MIN_BYTES * NANOS);
    ticks_per_nano.max(1).next_power_of_two().trailing_zeros()
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets (one for each segment that GSO or GRO has put together).
    pub packets: u64,
    /// Bytes, from the IP header on.
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

/// What a throttle did with the packets that it saw, since its program was attached there first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Not limited: of the other class of traffic, or the throttle was not armed.
    pub exempt: Count,
    /// Within the limit.
    pub passed: Count,
    /// Above it, and lost.
    pub dropped: Count,
    /// Above it, and not lost: TCP's segments that stay in their socket's queue and are sent later. Each attempt counts,
    /// so a segment may be counted many times before it passes.
    pub held_back: Count,
}

impl Counters {
    /// Everything that came by.
    pub fn seen(&self) -> Count {
        self.exempt + self.passed + self.dropped + self.held_back
    }

    /// What came by after `earlier`.
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
