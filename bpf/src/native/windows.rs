//! The sockops program, compiled for this machine (`programs/native_packets.c`).

use crate::state::ThrottleState;
use crate::throttle::types;

unsafe extern "C" {
    fn chad_sockops(
        call: *mut Call,
        cgroup: *mut types::throttle_cgroup,
        socket: *mut types::throttle_socket,
    ) -> i32;
}

/// `BPF_SOCK_OPS_RWND_INIT`.
pub(crate) const FIRST_WINDOW: u32 = 2;
/// `BPF_SOCK_OPS_HDR_OPT_LEN_CB`: a segment is about to be made.
pub(crate) const SEGMENT: u32 = 14;
/// `BPF_SOCK_OPS_WRITE_HDR_OPT_CB`: its window has been chosen.
pub(crate) const CHOSEN: u32 = 15;

pub(crate) const AF_INET: u32 = 2;
pub(crate) const AF_INET6: u32 = 10;

/// `struct native_call`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Call {
    pub(crate) now: u64,
    pub(crate) received: u64,
    pub(crate) most: u64,
    pub(crate) own: u64,
    pub(crate) leaves: u64,
    pub(crate) op: u32,
    pub(crate) family: u32,
    pub(crate) remote: [u32; 4],
    pub(crate) payload: u32,
    pub(crate) mss: u32,
    pub(crate) rcv_mss: u32,
    pub(crate) tcp_flags: u32,
    pub(crate) segments: u32,
    pub(crate) window: u32,
    pub(crate) rcv_rtt_us: u32,
    pub(crate) srtt_us: u32,
    pub(crate) random: u32,
    pub(crate) is_pacing: u32,
    pub(crate) is_full: u32,
    pub(crate) has_socket: u32,
    pub(crate) is_tcp: u32,
    pub(crate) is_authenticated: u32,
    pub(crate) is_crowded: u32,
    pub(crate) is_fixed: u32,
    pub(crate) queued: u32,
    pub(crate) is_early: u32,
    pub(crate) clamp: u32,
    pub(crate) callbacks: u32,
    pub(crate) reply: u32,
    pub(crate) made: u32,
    pub(crate) padding: u32,
    pub(crate) tried: u32,
    pub(crate) paced: u32,
    pub(crate) rates: [u32; 2],
}

/// The clamp of a socket whose window nobody limits.
pub(crate) const UNCLAMPED: u32 = i32::MAX.unsigned_abs();

impl Call {
    /// About a segment without data of a socket that nobody limits.
    pub(crate) fn acknowledgement(now: u64) -> Self {
        Self {
            now,
            received: 0,
            most: u64::MAX,
            own: u64::MAX,
            leaves: 0,
            op: SEGMENT,
            family: AF_INET,
            remote: [0; 4],
            payload: 0,
            mss: 1_448,
            rcv_mss: 0,
            // TCP_FLAG_ACK.
            tcp_flags: 0x10,
            segments: 1,
            window: UNCLAMPED,
            rcv_rtt_us: 0,
            srtt_us: 0,
            random: 0,
            is_pacing: 1,
            is_full: 1,
            has_socket: 1,
            is_tcp: 1,
            is_authenticated: 0,
            is_crowded: 0,
            is_fixed: 0,
            queued: 0,
            is_early: 0,
            clamp: UNCLAMPED,
            callbacks: 0,
            reply: 0,
            made: 0,
            padding: 0,
            tried: 0,
            paced: 0,
            rates: [0; 2],
        }
    }

    /// What becomes of it. Without `socket` there is no room for what is kept of one.
    pub(crate) fn answered(
        mut self,
        cgroup: &mut types::throttle_cgroup,
        socket: Option<&mut types::throttle_socket>,
    ) -> Self {
        let socket = socket.map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: both live across the call, and nobody else has them; `self` is what it is in C.
        let returned = unsafe { chad_sockops(&raw mut self, &raw mut *cgroup, socket) };
        // The kernel takes anything else for a refusal.
        assert_eq!(returned, 1);
        self
    }
}

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
        let Self { received, rcv_rtt: rcv_rtt_us, srtt: srtt_us, mss, random } = self;
        let call = Call::acknowledgement(now);
        let call = Call { received, mss, rcv_rtt_us, srtt_us, random, ..call };
        let offered = call.answered(cgroup, Some(socket));
        let chosen = Call { op: CHOSEN, ..offered }.answered(cgroup, Some(socket));
        assert_eq!(chosen.clamp, UNCLAMPED);
        (offered.clamp != UNCLAMPED).then_some(offered.clamp)
    }
}

/// The window that a connection begins with, in segments.
pub(crate) fn first_window(cgroup: &mut types::throttle_cgroup) -> u32 {
    Call { op: FIRST_WINDOW, ..Call::acknowledgement(0) }.answered(cgroup, None).reply
}

/// A segment that a socket is about to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) payload: u32,
    pub(crate) mss: u32,
    pub(crate) is_ipv6: bool,
    /// The rate at which the socket sends by itself.
    pub(crate) own: u64,
    /// When it leaves anyway.
    pub(crate) leaves: u64,
}

/// The rate that the socket of a segment is given for a moment; 0 for none.
pub(crate) fn pace(state: &ThrottleState, segment: Segment, now: u64) -> u32 {
    let Segment { payload, mss, is_ipv6, own, leaves } = segment;
    let family = if is_ipv6 { AF_INET6 } else { AF_INET };
    let call = Call { own, leaves, family, payload, mss, ..Call::acknowledgement(now) };
    let mut cgroup = types::throttle_cgroup { upload: state.0, ..Default::default() };
    let paced = call.answered(&mut cgroup, None);
    assert_eq!(paced.rates[1], if paced.tried == 0 { 0 } else { u32::MAX }, "and back");
    paced.rates[0]
}
