//! The sockops program's windows, compiled for this machine (`programs/native_packets.c`).

use crate::throttle::types;

unsafe extern "C" {
    fn chad_acknowledge(
        it: *mut RawAcknowledgement,
        cgroup: *mut types::throttle_cgroup,
        socket: *mut types::throttle_socket,
    );
    fn chad_first_window(cgroup: *mut types::throttle_cgroup) -> u32;
}

/// `struct native_acknowledgement`.
#[repr(C)]
struct RawAcknowledgement {
    now: u64,
    received: u64,
    rcv_rtt_us: u32,
    srtt_us: u32,
    mss: u32,
    random: u32,
    clamp: u32,
    offered: u32,
    left: u32,
}

/// The clamp of a socket whose window nobody limits.
const UNCLAMPED: u32 = i32::MAX.unsigned_abs();

/// A socket that is about to acknowledge what it has received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledgement {
    pub(crate) received: u64,
    /// The receiver's estimate of the round trip time and the sender's, as the kernel keeps them: in eighths of
    /// microseconds; 0 for none.
    pub(crate) rcv_rtt: u32,
    pub(crate) srtt: u32,
    pub(crate) mss: u32,
    pub(crate) random: u32,
}

impl Acknowledgement {
    /// The window that the programs let it offer, `None` for any. They leave the socket as it was.
    pub(crate) fn window(
        self,
        cgroup: &mut types::throttle_cgroup,
        socket: &mut types::throttle_socket,
        now: u64,
    ) -> Option<u32> {
        let mut raw = RawAcknowledgement {
            now,
            received: self.received,
            rcv_rtt_us: self.rcv_rtt,
            srtt_us: self.srtt,
            mss: self.mss,
            random: self.random,
            clamp: UNCLAMPED,
            offered: 0,
            left: 0,
        };
        // SAFETY: all three live across the call, and nobody else has them.
        unsafe { chad_acknowledge(&raw mut raw, &raw mut *cgroup, &raw mut *socket) };
        assert_eq!(raw.left, UNCLAMPED);
        (raw.offered != UNCLAMPED).then_some(raw.offered)
    }
}

/// The window that a connection begins with, in segments.
pub(crate) fn first_window(cgroup: &mut types::throttle_cgroup) -> u32 {
    // SAFETY: `cgroup` lives across the call, and nobody else has it.
    unsafe { chad_first_window(&raw mut *cgroup) }
}
