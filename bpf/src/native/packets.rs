//! The packet programs as a whole, compiled for this machine: given packets and a clock.

use std::ffi::c_int;

use chadthrottle_native as native;
use native::Packet as RawPacket;
use zerocopy::IntoBytes;

use crate::state::ThrottleState;
use crate::throttle::types;

/// What a packet carries for those that see it next: `skb->mark` and `skb->priority`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) mark: u32,
    pub(crate) priority: u32,
}

/// A packet, and what the kernel knows beside it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packet {
    /// Its headers; what is behind them nobody reads.
    pub(crate) headers: Vec<u8>,
    /// Its length, with what is behind the headers.
    pub(crate) length: u32,
    /// How many segments GSO or GRO has put together; 0 where nobody has counted them.
    pub(crate) gso_segs: u32,
    /// The payload of each of them.
    pub(crate) gso_size: u32,
    /// The `EtherType`.
    pub(crate) protocol: u16,
    /// The device that it leaves through.
    pub(crate) device: u32,
    /// The protocol of its socket; 0 for none.
    pub(crate) socket: u8,
    /// That socket makes whole IP packets of that protocol by itself (`SOCK_RAW`).
    pub(crate) is_raw: bool,
    /// That socket is not the cgroup's.
    pub(crate) is_foreign: bool,
    /// Segments of a socket of TCP that were sent and not acknowledged, as far as nothing else is known of them.
    pub(crate) in_flight: u32,
    /// So many of them have arrived all the same,
    pub(crate) sacked: u32,
    /// so many have not,
    pub(crate) lost: u32,
    /// and so many were sent again.
    pub(crate) sent_again: u32,
    /// What the programs are given for a random number.
    pub(crate) random: u32,
    /// When it is to leave (`skb->tstamp`).
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

    /// The same behind a link header of that length.
    pub(crate) fn behind(&self, base: u32) -> Self {
        let mut headers = vec![0xaa; base as usize];
        headers.extend(&self.headers);
        Self { headers, length: self.length + base, ..self.clone() }
    }

    /// `wire_bytes`: what it is charged for. `base`: the bytes of a link header.
    pub(crate) fn wire_bytes(&self, base: u32) -> u32 {
        native::wire_bytes(&mut self.raw(0), &self.headers, base)
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: bool,
    /// When it is to leave (`skb->tstamp`); 0: at once.
    pub(crate) leaves: u64,
    /// Its sender was told of congestion.
    pub(crate) told: bool,
    /// What it carries now.
    pub(crate) mark: Mark,
}

/// Which program looks at a packet (`enum native_program`).
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
    /// Of the one socket that is not TCP's.
    pub(crate) waiting: types::throttle_waiting,
    /// What dropped packets are marked with; all zero: they are not marked.
    pub(crate) dropped: Mark,
    /// Downloads have a queue.
    pub(crate) queued: bool,
}

impl Place {
    /// One whose uploads are limited.
    pub(crate) fn upload(state: ThrottleState) -> Self {
        let cgroup = types::throttle_cgroup { upload: state.0, ..Default::default() };
        Self { cgroup, ..Default::default() }
    }

    /// One whose downloads are limited.
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

    /// Has the program of the download's queue look at a packet, which begins with its Ethernet header.
    pub(crate) fn queue(&mut self, packet: &Packet, now: u64) -> Outcome {
        self.judge(packet, now, Program::Queue)
    }

    /// Whether a packet is redirected to the queue, and the addresses and ports of the socket that was looked for.
    pub(crate) fn redirect(&mut self, packet: &Packet) -> (bool, Vec<u8>) {
        let (verdict, raw) = self.run(packet, 0, Program::Redirect);
        let is_redirected = verdict == 7;
        assert!(is_redirected || verdict == -1, "{verdict}");
        assert_eq!(raw.redirected, if is_redirected { packet.device } else { 0 });
        (is_redirected, raw.tuple[..raw.looked_up as usize].to_vec())
    }

    /// Whether the socket of a packet that comes in is the cgroup's from then on.
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
