//! The packet programs as a whole (`c/packets.c`): given packets, sockets and a clock.
// The fields are those of the C structures, which say what they are.
#![allow(missing_docs)]

use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn chad_packet(
        packet: *mut Packet,
        cgroup: *mut c_void,
        counters: *mut c_void,
        waiting: *mut c_void,
        program: c_int,
    ) -> c_int;
    fn chad_wire_bytes(packet: *mut Packet, base: u32) -> u32;
    fn chad_sockops(call: *mut Call, cgroup: *mut c_void, socket: *mut c_void) -> c_int;
    fn chad_size(of: c_int) -> usize;
}

/// `struct native_packet`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    pub now: u64,
    pub tstamp: u64,
    /// Set by each call.
    pub bytes: *const u8,
    /// Set by each call.
    pub available: u32,
    pub length: u32,
    pub gso_segs: u32,
    pub gso_size: u32,
    pub protocol: u32,
    pub device: u32,
    pub random: u32,
    pub socket: u32,
    pub is_raw: u32,
    pub is_foreign: u32,
    pub in_flight: u32,
    pub sacked: u32,
    pub lost: u32,
    pub sent_again: u32,
    pub mark: u32,
    pub priority: u32,
    pub dropped_mark: u32,
    pub dropped_priority: u32,
    pub queued: u32,
    pub enlisted: u32,
    pub told: u32,
    pub redirected: u32,
    pub looked_up: u32,
    pub tuple: [u8; 36],
}

/// `struct native_call`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    pub now: u64,
    pub received: u64,
    pub most: u64,
    pub own: u64,
    pub leaves: u64,
    pub op: u32,
    pub family: u32,
    pub remote: [u32; 4],
    pub payload: u32,
    pub mss: u32,
    pub rcv_mss: u32,
    pub tcp_flags: u32,
    pub segments: u32,
    pub window: u32,
    pub rcv_rtt_us: u32,
    pub srtt_us: u32,
    pub random: u32,
    pub is_pacing: u32,
    pub is_full: u32,
    pub has_socket: u32,
    pub is_tcp: u32,
    pub is_authenticated: u32,
    pub is_crowded: u32,
    pub is_fixed: u32,
    pub queued: u32,
    pub is_early: u32,
    pub clamp: u32,
    pub callbacks: u32,
    pub reply: u32,
    pub made: u32,
    pub padding: u32,
    pub tried: u32,
    pub paced: u32,
    pub rates: [u32; 2],
}

/// What lies in maps (`enum native_kind`).
#[derive(Debug, Clone, Copy)]
enum Kind {
    Cgroup,
    Counters,
    Waiting,
    Socket,
}

/// A place for C to read and write, checked to be what C takes it for. All of it is numbers of at most eight bytes.
fn place(of: Kind, bytes: &mut [u8]) -> *mut c_void {
    // SAFETY: a function of a number.
    let size = unsafe { chad_size(of as c_int) };
    assert_eq!(bytes.len(), size, "{of:?}");
    assert_eq!(bytes.as_ptr().align_offset(8), 0, "{of:?}");
    bytes.as_mut_ptr().cast()
}

/// Has a program (`enum native_program`) look at a packet; returns its verdict. The rest is the values of its maps.
///
/// # Panics
/// When a value has another length than in C, or there is no such program.
pub fn packet(
    packet: &mut Packet,
    headers: &[u8],
    cgroup: &mut [u8],
    counters: &mut [u8],
    waiting: &mut [u8],
    program: c_int,
) -> c_int {
    assert!((0..4).contains(&program));
    packet.bytes = headers.as_ptr();
    packet.available = u32::try_from(headers.len()).unwrap_or(0);
    let cgroup = place(Kind::Cgroup, cgroup);
    let (counters, waiting) = (place(Kind::Counters, counters), place(Kind::Waiting, waiting));
    // SAFETY: the packet, its headers and all that the programs keep live across the call, are as long as C takes them to
    // be, and nobody else has them.
    unsafe { chad_packet(&raw mut *packet, cgroup, counters, waiting, program) }
}

/// `wire_bytes`: what a packet is charged for. `base`: the bytes of its link header.
pub fn wire_bytes(packet: &mut Packet, headers: &[u8], base: u32) -> u32 {
    packet.bytes = headers.as_ptr();
    packet.available = u32::try_from(headers.len()).unwrap_or(0);
    // SAFETY: the packet and the headers that it points to live across the call.
    unsafe { chad_wire_bytes(&raw mut *packet, base) }
}

/// Has the sockops program answer; returns what it returns. Without `socket` there is no room for what is kept of one.
///
/// # Panics
/// When a value has another length than in C.
pub fn sockops(call: &mut Call, cgroup: &mut [u8], socket: Option<&mut [u8]>) -> c_int {
    let cgroup = place(Kind::Cgroup, cgroup);
    let socket = socket.map_or(std::ptr::null_mut(), |socket| place(Kind::Socket, socket));
    // SAFETY: as in `packet`; the call is what it is in C.
    unsafe { chad_sockops(&raw mut *call, cgroup, socket) }
}

impl Packet {
    /// One of which nothing is said.
    pub const NONE: Self = Self {
        now: 0,
        tstamp: 0,
        bytes: std::ptr::null(),
        available: 0,
        length: 0,
        gso_segs: 0,
        gso_size: 0,
        protocol: 0,
        device: 0,
        random: 0,
        socket: 0,
        is_raw: 0,
        is_foreign: 0,
        in_flight: 0,
        sacked: 0,
        lost: 0,
        sent_again: 0,
        mark: 0,
        priority: 0,
        dropped_mark: 0,
        dropped_priority: 0,
        queued: 0,
        enlisted: 0,
        told: 0,
        redirected: 0,
        looked_up: 0,
        tuple: [0; 36],
    };
}
