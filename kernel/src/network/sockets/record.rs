//! The iterator's record of one open file (`struct file_record` in `files.bpf.c`).

use super::{Socket, SocketKind, Traffic};
use crate::object::ids::CgroupId;

/// The size of a record in bytes.
const BYTES: usize = 96;
const FAMILY_INET: u16 = 2;
const FAMILY_INET6: u16 = 10;
const FAMILY_PACKET: u16 = 17;
const FAMILY_XDP: u16 = 44;
const STREAM: u16 = 1;
const TCP: u16 = 6;
/// `TCP_LISTEN`. Other protocols with connections use it too.
const LISTENS: u8 = 10;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) inode: u64,
    pub(super) cgroup: u64,
    pub(super) traffic: Traffic,
    pub(super) process: u32,
    /// The thread with this descriptor table.
    pub(super) thread: u32,
    pub(super) fd: u32,
    pub(super) network: u32,
    pub(super) family: u16,
    pub(super) kind: u16,
    pub(super) protocol: u16,
    pub(super) state: u8,
    pub(super) is_device: bool,
    pub(super) is_inside: bool,
    pub(super) device: String,
    pub(super) name: String,
}

/// Parses all records. `None` if the length is not a multiple of a record.
pub(super) fn parse(told: &[u8]) -> Option<Vec<Record>> {
    let (records, rest) = told.as_chunks::<BYTES>();
    if rest.is_empty() { records.iter().map(|it| one(it)).collect() } else { None }
}

fn one(bytes: &[u8]) -> Option<Record> {
    let mut rest = bytes;
    let mut u64s = [0; 4];
    for number in &mut u64s {
        let (head, tail) = rest.split_first_chunk()?;
        (*number, rest) = (u64::from_ne_bytes(*head), tail);
    }
    let mut u32s = [0; 4];
    for number in &mut u32s {
        let (head, tail) = rest.split_first_chunk()?;
        (*number, rest) = (u32::from_ne_bytes(*head), tail);
    }
    let mut u16s = [0; 3];
    for number in &mut u16s {
        let (head, tail) = rest.split_first_chunk()?;
        (*number, rest) = (u16::from_ne_bytes(*head), tail);
    }
    let (&[state, is_device, _is_member, is_inside], rest) = rest.split_first_chunk()?;
    let (_unused, rest) = rest.split_first_chunk::<6>()?;
    let (device, name) = rest.split_first_chunk::<16>()?;
    let [inode, cgroup, sent, received] = u64s;
    let [process, thread, fd, network] = u32s;
    let [family, kind, protocol] = u16s;
    Some(Record {
        inode,
        cgroup,
        traffic: Traffic { sent, received },
        process,
        thread,
        fd,
        network,
        family,
        kind,
        protocol,
        state,
        is_device: is_device != 0,
        is_inside: is_inside != 0,
        device: text(device),
        name: text(name),
    })
}

/// Returns the text before the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Record {
    /// Returns the record's socket. `None` if its kind is unknown.
    pub(super) fn socket(&self) -> Option<Socket> {
        let is_stream = self.kind == STREAM;
        let kind = match self.family {
            FAMILY_INET | FAMILY_INET6 if is_stream && self.protocol == TCP => SocketKind::Tcp,
            FAMILY_INET | FAMILY_INET6 => SocketKind::Ip,
            FAMILY_PACKET => SocketKind::Packet,
            FAMILY_XDP => SocketKind::Xdp,
            _ => return None,
        };
        let is_ip = matches!(kind, SocketKind::Tcp | SocketKind::Ip);
        Some(Socket {
            inode: self.inode,
            kind,
            cgroup: CgroupId(self.cgroup),
            is_inside: self.is_inside,
            listens: is_ip && is_stream && self.state == LISTENS,
            traffic: (kind == SocketKind::Tcp).then_some(self.traffic),
            network: self.network,
            device: (!self.device.is_empty()).then(|| self.device.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            inode: 0x1_0000_0001,
            cgroup: 0x2_0000_0002,
            traffic: Traffic { sent: 0x3_0000_0003, received: 0x4_0000_0004 },
            process: 5,
            thread: 6,
            fd: 7,
            network: 8,
            family: FAMILY_INET6,
            kind: STREAM,
            protocol: TCP,
            state: LISTENS,
            is_device: false,
            is_inside: true,
            device: "eth0".to_owned(),
            name: "sixteen letters".to_owned(),
        }
    }

    fn bytes(it: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [it.inode, it.cgroup, it.traffic.sent, it.traffic.received] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [it.process, it.thread, it.fd, it.network] {
            bytes.extend(number.to_ne_bytes());
        }
        for number in [it.family, it.kind, it.protocol] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend([it.state, it.is_device.into(), 1, it.is_inside.into()]);
        bytes.extend([0; 6]);
        for text in [&it.device, &it.name] {
            let mut field = [0; 16];
            field[..text.len()].copy_from_slice(text.as_bytes());
            bytes.extend(field);
        }
        bytes
    }

    #[test]
    fn records_are_read_as_the_program_writes_them() {
        let two = [record(), Record { fd: 9, is_device: true, ..record() }];
        let told: Vec<u8> = two.iter().flat_map(bytes).collect();
        assert_eq!(parse(&told), Some(two.to_vec()));
        assert_eq!(parse(&[]), Some(Vec::new()));
        assert_eq!(parse(&told[..told.len() - 1]), None, "half of one");
    }

    #[test]
    fn a_socket_is_what_its_family_type_protocol_and_state_say() {
        let kind = |it: Record| it.socket().map(|socket| socket.kind);
        assert_eq!(kind(record()), Some(SocketKind::Tcp));
        let udp = Record { kind: 2, protocol: 17, state: 7, ..record() };
        let mptcp = Record { protocol: 262, ..record() };
        for (it, expected) in [
            (&udp, SocketKind::Ip),
            (&mptcp, SocketKind::Ip),
            (&Record { family: FAMILY_PACKET, ..record() }, SocketKind::Packet),
            (&Record { family: FAMILY_XDP, ..record() }, SocketKind::Xdp),
        ] {
            let socket = it.socket().unwrap();
            assert_eq!((socket.kind, socket.traffic), (expected, None), "only TCP counts");
        }
        assert_eq!(kind(Record { family: 1, ..record() }), None, "Unix");
        let listens = |it: &Record| it.socket().unwrap().listens;
        assert!(listens(&record()) && listens(&mptcp));
        assert!(!listens(&udp));
        assert!(!listens(&Record { state: 1, ..record() }), "connected");
        assert!(!listens(&Record { family: FAMILY_PACKET, ..record() }));
    }

    #[test]
    fn a_name_ends_with_the_first_nul_or_the_field() {
        assert_eq!(text(b"a\0b"), "a");
        assert_eq!(text(b"ab"), "ab");
        assert_eq!(text(b"\xff"), "\u{fffd}");
    }
}
