//! The complete packet programs, compiled for this machine, with packets and a clock as input.

use std::ffi::c_int;

use chadthrottle_native as native;
use native::Packet as RawPacket;
use zerocopy::IntoBytes;

use crate::state::ThrottleState;
use crate::throttle::types;

/// The data that a packet carries to the next program: `skb->mark` and `skb->priority`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) mark: u32,
    pub(crate) priority: u32,
}

/// A packet, and the kernel's further data about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packet {
    /// The packet's headers. No program reads the bytes after them.
    pub(crate) headers: Vec<u8>,
    /// The packet's length, including the bytes after the headers.
    pub(crate) length: u32,
    /// The number of segments that GSO or GRO has merged; 0 if unknown.
    pub(crate) gso_segs: u32,
    /// The payload of each segment.
    pub(crate) gso_size: u32,
    /// The `EtherType`.
    pub(crate) protocol: u16,
    /// The device through which the packet leaves.
    pub(crate) device: u32,
    /// The protocol of the packet's socket; 0 without a socket.
    pub(crate) socket: u8,
    /// The socket makes whole IP packets of that protocol by itself (`SOCK_RAW`).
    pub(crate) is_raw: bool,
    /// The socket does not belong to the cgroup.
    pub(crate) is_foreign: bool,
    /// Segments that a TCP socket has sent and that are not acknowledged.
    pub(crate) in_flight: u32,
    /// The part of them that has arrived out of order.
    pub(crate) sacked: u32,
    /// The part of them that is lost.
    pub(crate) lost: u32,
    /// The part of them that was sent again.
    pub(crate) sent_again: u32,
    /// The random number that the programs get.
    pub(crate) random: u32,
    /// The packet's departure time (`skb->tstamp`).
    pub(crate) leaves: u64,
    pub(crate) mark: Mark,
}

impl Packet {
    fn raw(&self, now: u64) -> RawPacket {
        RawPacket {
            now,
            tstamp: self.leaves,
            length: self.length,
            gso_segs: self.gso_segs,
            gso_size: self.gso_size,
            protocol: self.protocol.into(),
            device: self.device,
            random: self.random,
            socket: self.socket.into(),
            is_raw: self.is_raw.into(),
            is_foreign: self.is_foreign.into(),
            in_flight: self.in_flight,
            sacked: self.sacked,
            lost: self.lost,
            sent_again: self.sent_again,
            mark: self.mark.mark,
            priority: self.mark.priority,
            ..RawPacket::NONE
        }
    }

    /// Returns the packet behind a link header of this length.
    pub(crate) fn behind(&self, base: u32) -> Self {
        let mut headers = vec![0xaa; base as usize];
        headers.extend(&self.headers);
        Self { headers, length: self.length + base, ..self.clone() }
    }

    /// Returns the result of `wire_bytes`, which the packet is charged for. `base` is the size of the link header.
    pub(crate) fn wire_bytes(&self, base: u32) -> u32 {
        native::wire_bytes(&mut self.raw(0), &self.headers, base)
    }
}

/// The result for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: bool,
    /// The packet's departure time (`skb->tstamp`); 0 for none.
    pub(crate) leaves: u64,
    /// The program told the packet's sender about congestion.
    pub(crate) told: bool,
    /// The packet's mark after the program.
    pub(crate) mark: Mark,
}

/// The program to run (`enum native_program`).
#[derive(Debug, Clone, Copy)]
enum Program {
    Ingress,
    Egress,
    Redirect,
    Queue,
}

/// A cgroup with the programs on it.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) cgroup: types::throttle_cgroup,
    pub(crate) counters: types::throttle_counters,
    /// The waiting packets of the one socket that is not TCP.
    pub(crate) waiting: types::throttle_waiting,
    /// The mark of dropped packets; all zero for no mark.
    pub(crate) dropped: Mark,
    /// The load has a queue for downloads.
    pub(crate) queued: bool,
}

impl Place {
    /// Creates a cgroup with limited uploads.
    pub(crate) fn upload(state: ThrottleState) -> Self {
        let cgroup = types::throttle_cgroup { upload: state.0, ..Default::default() };
        Self { cgroup, ..Default::default() }
    }

    /// Creates a cgroup with limited downloads.
    pub(crate) fn download(state: ThrottleState) -> Self {
        let cgroup = types::throttle_cgroup { download: state.0, ..Default::default() };
        Self { cgroup, ..Default::default() }
    }

    pub(crate) fn send(&mut self, packet: &Packet, now: u64) -> Outcome {
        self.judge(packet, now, Program::Egress)
    }

    pub(crate) fn receive(&mut self, packet: &Packet, now: u64) -> Outcome {
        self.judge(packet, now, Program::Ingress)
    }

    /// Runs the program of the download's queue on a packet, which begins with its Ethernet header.
    pub(crate) fn queue(&mut self, packet: &Packet, now: u64) -> Outcome {
        self.judge(packet, now, Program::Queue)
    }

    /// Tells whether a packet is redirected to the queue. Also returns the addresses and ports of the socket look-up.
    pub(crate) fn redirect(&mut self, packet: &Packet) -> (bool, Vec<u8>) {
        let (verdict, raw) = self.run(packet, 0, Program::Redirect);
        let is_redirected = verdict == 7;
        assert!(is_redirected || verdict == -1, "{verdict}");
        assert_eq!(raw.redirected, if is_redirected { packet.device } else { 0 });
        (is_redirected, raw.tuple[..raw.looked_up as usize].to_vec())
    }

    /// Tells whether a received packet registers its socket as the cgroup's.
    pub(crate) fn enlists(&mut self, packet: &Packet) -> bool {
        self.run(packet, 0, Program::Ingress).1.enlisted != 0
    }

    fn judge(&mut self, packet: &Packet, now: u64, program: Program) -> Outcome {
        let (verdict, raw) = self.run(packet, now, program);
        let (pass, drop) = match program {
            Program::Ingress => (1, 0),
            Program::Egress => (1, 2),
            Program::Redirect | Program::Queue => (-1, 2),
        };
        assert!(verdict == pass || verdict == drop, "{program:?}: {verdict}");
        Outcome {
            passed: verdict == pass,
            leaves: raw.tstamp,
            told: raw.told != 0,
            mark: Mark { mark: raw.mark, priority: raw.priority },
        }
    }

    fn run(&mut self, packet: &Packet, now: u64, program: Program) -> (c_int, RawPacket) {
        let mut raw = packet.raw(now);
        raw.queued = self.queued.into();
        (raw.dropped_mark, raw.dropped_priority) = (self.dropped.mark, self.dropped.priority);
        let verdict = native::packet(
            &mut raw,
            &packet.headers,
            self.cgroup.as_mut_bytes(),
            self.counters.as_mut_bytes(),
            self.waiting.as_mut_bytes(),
            program as c_int,
        );
        (verdict, raw)
    }
}
