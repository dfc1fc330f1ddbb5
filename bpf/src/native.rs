//! The packet programs' own arithmetic, from the same C headers, for the tests.

use std::ffi::c_int;

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
    fn chad_ipv4_is_local(address: *const u8) -> c_int;
    fn chad_ipv6_is_local(address: *const u8) -> c_int;
}

/// `gcra_cost`: what a packet costs, in ticks.
pub(crate) fn gcra_cost(cost: u64, tick_shift: u32, bytes: u32) -> u64 {
    // SAFETY: a function of numbers.
    unsafe { chad_gcra_cost(cost, tick_shift, bytes) }
}

/// `gcra_admit`: the next TAT, if the packet conforms.
pub(crate) fn gcra_admit(
    tat: u64,
    now: u64,
    cost: u64,
    tolerance: u64,
    horizon: u64,
) -> Option<u64> {
    let mut next = 0;
    // SAFETY: `next` lives across the call.
    let conforms =
        unsafe { chad_gcra_admit(tat, now, cost, tolerance, horizon, &raw mut next) } != 0;
    conforms.then_some(next)
}

/// `ipv4_is_local`.
pub(crate) fn ipv4_is_local(address: [u8; 4]) -> bool {
    // SAFETY: the function reads four bytes.
    unsafe { chad_ipv4_is_local(address.as_ptr()) != 0 }
}

/// `ipv6_is_local`.
pub(crate) fn ipv6_is_local(address: [u8; 16]) -> bool {
    // SAFETY: the function reads sixteen bytes.
    unsafe { chad_ipv6_is_local(address.as_ptr()) != 0 }
}
