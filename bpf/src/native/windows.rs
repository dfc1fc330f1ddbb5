//! The sockops program, compiled for this machine.

use chadthrottle_native as native;
pub(crate) use native::Call;
use zerocopy::IntoBytes;

use crate::state::ThrottleState;
use crate::throttle::types;

/// `BPF_SOCK_OPS_RWND_INIT`.
pub(crate) const FIRST_WINDOW: u32 = 2;
/// `BPF_SOCK_OPS_HDR_OPT_LEN_CB`: the kernel is about to make a segment.
pub(crate) const SEGMENT: u32 = 14;
/// `BPF_SOCK_OPS_WRITE_HDR_OPT_CB`: the kernel has chosen the window.
pub(crate) const CHOSEN: u32 = 15;

pub(crate) const AF_INET: u32 = 2;
pub(crate) const AF_INET6: u32 = 10;

/// The clamp of a socket without a limited window.
pub(crate) const UNCLAMPED: u32 = i32::MAX.unsigned_abs();

/// Creates a call for a segment without data, of a socket without a limit.
pub(crate) fn about_nothing(now: u64) -> Call {
    Call {
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

/// Runs the sockops program on a call.
pub(crate) trait Answered {
    /// Returns the result. Without `socket` there is no storage for the socket's data.
    fn answered(
        self,
        cgroup: &mut types::throttle_cgroup,
        socket: Option<&mut types::throttle_socket>,
    ) -> Self;
}

impl Answered for Call {
    fn answered(
        mut self,
        cgroup: &mut types::throttle_cgroup,
        socket: Option<&mut types::throttle_socket>,
    ) -> Self {
        let socket = socket.map(IntoBytes::as_mut_bytes);
        let returned = native::sockops(&mut self, cgroup.as_mut_bytes(), socket);
        // The kernel treats any other value as a refusal.
        assert_eq!(returned, 1);
        self
    }
}

/// A socket that is about to acknowledge what it has received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledgement {
    pub(crate) received: u64,
    /// The round trip times of receiver and sender in the kernel's unit, eighths of a microsecond; 0 for none.
    pub(crate) rcv_rtt: u32,
    pub(crate) srtt: u32,
    pub(crate) mss: u32,
    pub(crate) random: u32,
}

impl Acknowledgement {
    /// Returns the window that the programs allow, `None` for any. Checks that they leave the socket unchanged.
    pub(crate) fn window(
        self,
        cgroup: &mut types::throttle_cgroup,
        socket: &mut types::throttle_socket,
        now: u64,
    ) -> Option<u32> {
        let Self { received, rcv_rtt: rcv_rtt_us, srtt: srtt_us, mss, random } = self;
        let call = about_nothing(now);
        let call = Call { received, mss, rcv_rtt_us, srtt_us, random, ..call };
        let offered = call.answered(cgroup, Some(socket));
        let chosen = Call { op: CHOSEN, ..offered }.answered(cgroup, Some(socket));
        assert_eq!(chosen.clamp, UNCLAMPED);
        (offered.clamp != UNCLAMPED).then_some(offered.clamp)
    }
}

/// Returns the first window of a connection, in segments.
pub(crate) fn first_window(cgroup: &mut types::throttle_cgroup) -> u32 {
    Call { op: FIRST_WINDOW, ..about_nothing(0) }.answered(cgroup, None).reply
}

/// A segment that a socket is about to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) payload: u32,
    pub(crate) mss: u32,
    pub(crate) is_ipv6: bool,
    /// The socket's own rate.
    pub(crate) own: u64,
    /// The time at which the segment leaves anyway.
    pub(crate) leaves: u64,
}

/// Returns the rate that the segment's socket gets for a moment; 0 for none.
pub(crate) fn pace(state: &ThrottleState, segment: Segment, now: u64) -> u32 {
    let Segment { payload, mss, is_ipv6, own, leaves } = segment;
    let family = if is_ipv6 { AF_INET6 } else { AF_INET };
    let call = Call { own, leaves, family, payload, mss, ..about_nothing(now) };
    let mut cgroup = types::throttle_cgroup { upload: state.0, ..Default::default() };
    let paced = call.answered(&mut cgroup, None);
    assert_eq!(paced.rates[1], if paced.tried == 0 { 0 } else { u32::MAX }, "and back");
    paced.rates[0]
}
