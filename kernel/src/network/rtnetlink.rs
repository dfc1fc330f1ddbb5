//! Rtnetlink: listing network devices, creating and removing them.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::error::{Call, Error, Result};

/// The most attempts at a list that changes during the dump.
const LOOKS: u32 = 8;

/// The first pause between two attempts. Each pause is twice as long as the last one, 127 ms in total.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The answers of a dump.
#[derive(Debug, PartialEq, Eq)]
pub struct Dump<T> {
    /// Every answer.
    pub answers: Vec<T>,
    /// Nothing changed during the dump. A change may leave out answers.
    pub is_whole: bool,
}

/// Dumps all objects of a kind in this thread's network namespace. Needs no capability.
///
/// # Errors
/// `EAGAIN` when the list changed during every attempt.
pub fn all(what: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
    // An interrupted dump may lack an answer, and the caller needs all of them.
    let dump = gather(|| exchange(what.clone(), NLM_F_DUMP, DEVICES), |_| (), sleep)?;
    if !dump.is_whole {
        return Err(Error::found(Call::Netlink, DEVICES, Errno::EAGAIN)
            .with_detail("they changed each time that they were listed"));
    }
    Ok(dump.answers)
}

/// Dumps as [`all`] does, but accepts changes. Merges the answers of all attempts by `key`, and keeps the latest. An
/// object that always existed is missing only if every attempt lacked it.
pub fn all_by<K: Ord>(
    what: &RouteNetlinkMessage,
    key: impl FnMut(&RouteNetlinkMessage) -> K,
) -> Result<Dump<RouteNetlinkMessage>> {
    gather(|| exchange(what.clone(), NLM_F_DUMP, DEVICES), key, sleep)
}

/// The target that errors name.
const DEVICES: &str = "network devices";

fn gather<T, K: Ord>(
    mut ask: impl FnMut() -> Result<Dump<T>>,
    mut key: impl FnMut(&T) -> K,
    mut pause: impl FnMut(Duration),
) -> Result<Dump<T>> {
    let mut told = BTreeMap::new();
    for look in 0..LOOKS {
        let dump = ask()?;
        if dump.is_whole {
            return Ok(dump);
        }
        told.extend(dump.answers.into_iter().map(|answer| (key(&answer), answer)));
        if look + 1 < LOOKS {
            pause(FIRST_PAUSE * 2_u32.pow(look));
        }
    }
    Ok(Dump { answers: told.into_values().collect(), is_whole: false })
}

/// Sends a request that changes something in this thread's network namespace. `flags` are added to those of every
/// request. Errors name `target`. Needs `CAP_NET_ADMIN`.
pub fn tell(what: RouteNetlinkMessage, flags: u16, target: &str) -> Result<()> {
    exchange(what, NLM_F_ACK | flags, target).map(drop)
}

/// Sends a request, and reads all answers.
fn exchange(
    what: RouteNetlinkMessage,
    flags: u16,
    target: &str,
) -> Result<Dump<RouteNetlinkMessage>> {
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
    read_answers(|| Ok(socket.recv_from_full()?.0), target)
}

/// Reads datagrams until one has the end of the dump.
///
/// # Errors
/// Those of the kernel or the socket. The answers before an error are worthless.
fn read_answers(
    mut receive: impl FnMut() -> std::io::Result<Vec<u8>>,
    target: &str,
) -> Result<Dump<RouteNetlinkMessage>> {
    let io = |error: std::io::Error| Error::from_io(Call::Netlink, target, &error);
    let mut answers = Vec::new();
    let mut is_interrupted = false;
    loop {
        let datagram = match receive() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            received => received.map_err(io)?,
        };
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                    Error::found(Call::Netlink, target, Errno::EBADMSG)
                        .with_detail(error.to_string())
                })?;
            // The list changed during the dump, so answers may be missing.
            is_interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            match answer.payload {
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Error::new(Call::Netlink, target, Errno::from_raw(-done.code)));
                }
                NetlinkPayload::Done(_) => {
                    return Ok(Dump { answers, is_whole: !is_interrupted });
                }
                // An acknowledgement is an error with code 0.
                NetlinkPayload::Error(error) if error.code.is_none() => {
                    return Ok(Dump { answers, is_whole: true });
                }
                NetlinkPayload::Error(error) => return Err(io(error.to_io())),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                // Some answers did not fit.
                NetlinkPayload::Overrun(_) => is_interrupted = true,
                _ => {}
            }
            // Each message begins at a multiple of four bytes.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
#[path = "rtnetlink_tests.rs"]
mod tests;
