//! Asking the kernel about network devices, and telling it to make or remove them.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::error::{Call, Error, Result};

/// How often a list is asked for again because it has changed while it was told.
const MAX_RACES: usize = 8;

/// Asks for all there is of something in this thread's network namespace. Needs no rights.
pub(crate) fn all(what: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
    for _ in 0..MAX_RACES {
        match exchange(what.clone(), NLM_F_DUMP, "network devices") {
            Err(error) if error.errno() == Errno::EAGAIN => {}
            told => return told,
        }
    }
    exchange(what, NLM_F_DUMP, "network devices")
}

/// Has the kernel do something in this thread's network namespace. Needs `CAP_NET_ADMIN`. `flags`: beside those of
/// every request; `target`: what errors name.
pub(crate) fn tell(what: RouteNetlinkMessage, flags: u16, target: &str) -> Result<()> {
    exchange(what, NLM_F_ACK | flags, target).map(drop)
}

/// Sends a request, and reads the answers to their end.
fn exchange(
    what: RouteNetlinkMessage,
    flags: u16,
    target: &str,
) -> Result<Vec<RouteNetlinkMessage>> {
    let io = |error: std::io::Error| Error::from_io(Call::Netlink, target, &error);
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(io)?;
    socket.bind_auto().map_err(io)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(io)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(what));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(io)?;

    let mut answers = Vec::new();
    let mut is_interrupted = false;
    loop {
        let (datagram, _) = socket.recv_from_full().map_err(io)?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                    Error::new(Call::Netlink, target, Errno::EBADMSG).with_detail(error.to_string())
                })?;
            is_interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            match answer.payload {
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Error::new(Call::Netlink, target, Errno::from_raw(-done.code)));
                }
                // Something has changed meanwhile, so that what was told may be short of something.
                NetlinkPayload::Done(_) if is_interrupted => {
                    return Err(Error::new(Call::Netlink, target, Errno::EAGAIN));
                }
                NetlinkPayload::Done(_) => return Ok(answers),
                // An acknowledgement is an error of the code 0.
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(error) => return Err(io(error.to_io())),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
            // Each begins at a multiple of four.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
