//! The packet programs and their arithmetic, compiled from the same C for this machine, so that tests can call them.
//!
//! Only tests use this crate. What lies in the kernel's maps goes in and out as bytes, of the length that C gives it.

mod packets;

use std::ffi::c_int;

pub use packets::{Call, Packet, packet, sockops, wire_bytes};

unsafe extern "C" {
    fn chad_gcra_cost(cost: u64, tick_shift: u32, bytes: u32) -> u64;
    fn chad_gcra_admit(
        tat: u64,
        now: u64,
        cost: u64,
        tolerance: u64,
        horizon: u64,
        next: *mut u64,
    ) -> c_int;
    fn chad_gcra_is_small(bytes: u32) -> c_int;
    fn chad_gcra_reserve_cost(cost: u64) -> u64;
    fn chad_gcra_reserve_tolerance(tick_shift: u32, is_small: c_int) -> u64;
    fn chad_gcra_is_dns_sized(bytes: u32) -> c_int;
    fn chad_gcra_dns_cost(cost: u64, tick_shift: u32) -> u64;
    fn chad_gcra_dns_tolerance(tick_shift: u32) -> u64;
    fn chad_is_dns_port(port: u16) -> c_int;
    fn chad_flow_pace(
        ahead_ns: u64,
        later_ns: u64,
        tolerance_ns: u64,
        payload: u32,
        mss: u32,
    ) -> u64;
    fn chad_flow_with_another(fair_rate: u64, limit: u64) -> u64;
    fn chad_flow_interval(rtt: u64) -> u64;
    fn chad_flow_is_flooded(limit: u64, arrived: u64, elapsed: u64) -> c_int;
    fn chad_flow_next(
        fair_rate: u64,
        limit: u64,
        arrived: u64,
        elapsed: u64,
        ahead_ns: u64,
        tolerance_ns: u64,
        is_bound: c_int,
        may_cut: c_int,
    ) -> u64;
    fn chad_flow_share(fair_rate: u64, rtt: u64) -> u64;
    fn chad_flow_most(used: u64, ahead_ns: u64, tolerance_ns: u64) -> u64;
    fn chad_flow_first(limit: u64, tolerance_ns: u64) -> u32;
    fn chad_flow_counts(received: u64, mss: u32) -> c_int;
    fn chad_flow_rest(received: u64, mss: u32) -> u64;
    fn chad_flow_window(
        share: u64,
        most: u64,
        ahead_ns: u64,
        tolerance_ns: u64,
        mss: u32,
        random: u32,
    ) -> u64;
    fn chad_ipv4_is_local(address: *const u8) -> c_int;
    fn chad_ipv6_is_local(address: *const u8) -> c_int;
}

/// `gcra_cost`: what a packet costs, in ticks.
pub fn gcra_cost(cost: u64, tick_shift: u32, bytes: u32) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_gcra_cost(cost, tick_shift, bytes) }
}

/// `gcra_admit`: the next TAT, if the packet conforms.
pub fn gcra_admit(tat: u64, now: u64, cost: u64, tolerance: u64, horizon: u64) -> Option<u64> {
    let mut next = 0;
    // SAFETY: `next` lives across the call.
    let conforms =
        unsafe { chad_gcra_admit(tat, now, cost, tolerance, horizon, &raw mut next) } != 0;
    conforms.then_some(next)
}

/// `gcra_is_small`: whether there is a reserve for a packet of that size.
pub fn gcra_is_small(bytes: u32) -> bool {
    // SAFETY: a function of a number.
    unsafe { chad_gcra_is_small(bytes) != 0 }
}

/// `gcra_reserve_cost`: what a packet costs in the reserve.
pub fn gcra_reserve_cost(cost: u64) -> u64 {
    // SAFETY: a function of a number.
    unsafe { chad_gcra_reserve_cost(cost) }
}

/// `gcra_reserve_tolerance`: how far the reserve's TAT may be ahead.
pub fn gcra_reserve_tolerance(tick_shift: u32, is_small: bool) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_gcra_reserve_tolerance(tick_shift, is_small.into()) }
}

/// `gcra_is_dns_sized`: whether a packet may be a message of DNS.
pub fn gcra_is_dns_sized(bytes: u32) -> bool {
    // SAFETY: a function of a number.
    unsafe { chad_gcra_is_dns_sized(bytes) != 0 }
}

/// `gcra_dns_cost`: what a packet costs in the bucket for DNS.
pub fn gcra_dns_cost(cost: u64, tick_shift: u32) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_gcra_dns_cost(cost, tick_shift) }
}

/// `gcra_dns_tolerance`: how far its TAT may be ahead.
pub fn gcra_dns_tolerance(tick_shift: u32) -> u64 {
    // SAFETY: a function of a number.
    unsafe { chad_gcra_dns_tolerance(tick_shift) }
}

/// `is_dns_port`.
pub fn is_dns_port(port: u16) -> bool {
    // SAFETY: a function of a number.
    unsafe { chad_is_dns_port(port) != 0 }
}

/// `flow_pace`: the pacing rate for a segment, 0 for none.
pub fn flow_pace(ahead_ns: u64, later_ns: u64, tolerance_ns: u64, payload: u32, mss: u32) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_pace(ahead_ns, later_ns, tolerance_ns, payload, mss) }
}

/// `flow_with_another`: the fair rate with one sender more.
pub fn flow_with_another(fair_rate: u64, limit: u64) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_with_another(fair_rate, limit) }
}

/// `flow_interval`: how long to wait between updates.
pub fn flow_interval(rtt: u64) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_interval(rtt) }
}

/// `flow_is_flooded`.
pub fn flow_is_flooded(limit: u64, arrived: u64, elapsed: u64) -> bool {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_is_flooded(limit, arrived, elapsed) != 0 }
}

/// What `flow_next` goes by beside the limit.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // Each is named as in C.
pub struct Seen {
    pub arrived: u64,
    pub elapsed: u64,
    pub ahead_ns: u64,
    pub is_bound: bool,
    pub may_cut: bool,
}

/// `flow_next`: the next fair rate.
pub fn flow_next(fair_rate: u64, limit: u64, seen: Seen, tolerance_ns: u64) -> u64 {
    let Seen { arrived, elapsed, ahead_ns, is_bound, may_cut } = seen;
    let (is_bound, may_cut) = (is_bound.into(), may_cut.into());
    // SAFETY: a function of numbers.
    unsafe {
        chad_flow_next(
            fair_rate,
            limit,
            arrived,
            elapsed,
            ahead_ns,
            tolerance_ns,
            is_bound,
            may_cut,
        )
    }
}

/// `flow_share`: what the fair rate sends in a round trip.
pub fn flow_share(fair_rate: u64, rtt: u64) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_share(fair_rate, rtt) }
}

/// `flow_most`: the most that a sender is offered.
pub fn flow_most(used: u64, ahead_ns: u64, tolerance_ns: u64) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_most(used, ahead_ns, tolerance_ns) }
}

/// `flow_first`: the first window, in segments.
pub fn flow_first(limit: u64, tolerance_ns: u64) -> u32 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_first(limit, tolerance_ns) }
}

/// `flow_counts`: whether a connection takes part in the sharing.
pub fn flow_counts(received: u64, mss: u32) -> bool {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_counts(received, mss) != 0 }
}

/// `flow_rest`: the most that a connection is offered that does not.
pub fn flow_rest(received: u64, mss: u32) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_rest(received, mss) }
}

/// The virtual queue, and how long it may be.
#[derive(Clone, Copy)]
#[allow(missing_docs)] // Each is named as in C.
pub struct Queue {
    pub ahead_ns: u64,
    pub tolerance_ns: u64,
}

/// `flow_window`: what to offer to a sender.
pub fn flow_window(share: u64, most: u64, queue: Queue, mss: u32, random: u32) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_flow_window(share, most, queue.ahead_ns, queue.tolerance_ns, mss, random) }
}

/// `ipv4_is_local`.
pub fn ipv4_is_local(address: [u8; 4]) -> bool {
    // SAFETY: the function reads four bytes.
    unsafe { chad_ipv4_is_local(address.as_ptr()) != 0 }
}

/// `ipv6_is_local`.
pub fn ipv6_is_local(address: [u8; 16]) -> bool {
    // SAFETY: the function reads sixteen bytes.
    unsafe { chad_ipv6_is_local(address.as_ptr()) != 0 }
}
