//! Asking the kernel about network devices, and telling it to make or remove them.

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

/// How often at most a list is asked for that changes while it is told.
const LOOKS: u32 = 8;

/// The first pause between two of them. Each is twice as long as the one before: 127 ms in all.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// What the kernel told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dump<T> {
    pub(crate) answers: Vec<T>,
    /// Nothing changed meanwhile, which might have left something out.
    pub(crate) is_whole: bool,
}

/// Asks for all there is of something in this thread's network namespace. Needs no rights.
///
/// # Errors
/// `EAGAIN` when it changed each time that it was told.
pub(crate) fn all(what: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
    let mut number = 0_usize;
    // What was told before and may be short of something is of no use here.
    let dump = gather(
        || exchange(what.clone(), NLM_F_DUMP, DEVICES),
        |_| {
            number += 1;
            number
        },
        sleep,
    )?;
    if !dump.is_whole {
        return Err(Error::found(Call::Netlink, DEVICES, Errno::EAGAIN)
            .with_detail("they changed each time that they were listed"));
    }
    Ok(dump.answers)
}

/// The same where one change does not matter: what any of the answers has, by `key`, as it was told last. A thing
/// that was there all the time is missing only where each answer was short of it.
pub(crate) fn all_by<K: Ord>(
    what: &RouteNetlinkMessage,
    key: impl FnMut(&RouteNetlinkMessage) -> K,
) -> Result<Dump<RouteNetlinkMessage>> {
    gather(|| exchange(what.clone(), NLM_F_DUMP, DEVICES), key, sleep)
}

/// What errors name.
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
    answered(|| socket.recv_from_full().map(|(datagram, _)| datagram), target)
}

/// Reads the answers to one request to their end. `receive` returns the next datagram, which may hold several.
fn answered(
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
            // Something has changed meanwhile, so that what was told may be short of something.
            is_interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            match answer.payload {
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Error::new(Call::Netlink, target, Errno::from_raw(-done.code)));
                }
                NetlinkPayload::Done(_) => {
                    return Ok(Dump { answers, is_whole: !is_interrupted });
                }
                // An acknowledgement is an error of the code 0.
                NetlinkPayload::Error(error) if error.code.is_none() => {
                    return Ok(Dump { answers, is_whole: true });
                }
                NetlinkPayload::Error(error) => return Err(io(error.to_io())),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
            // Each begins at a multiple of four.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::iter;

    use netlink_packet_core::{DoneMessage, ErrorMessage};
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    type Payload = NetlinkPayload<RouteNetlinkMessage>;

    fn link(number: u32) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = number;
        RouteNetlinkMessage::NewLink(link)
    }

    fn done(code: i32) -> Payload {
        let mut done = DoneMessage::default();
        done.code = code;
        NetlinkPayload::Done(done)
    }

    fn refused(errno: Errno) -> Payload {
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-(errno as i32));
        NetlinkPayload::Error(error)
    }

    fn bytes(payload: Payload, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// What a kernel's datagrams are read as. It is asked for no more than these.
    fn read(datagrams: &[Vec<u8>]) -> Result<Dump<RouteNetlinkMessage>> {
        let mut datagrams = datagrams.iter();
        answered(|| Ok(datagrams.next().expect("there is no more to come").clone()), "devices")
    }

    #[test]
    fn a_change_that_any_message_of_a_dump_tells_of_counts() {
        let count = 5;
        // None; then each of them, the last of which is the end; then all.
        let each = (0..=count).map(|at| vec![at]);
        for interrupted in iter::once(vec![]).chain(each).chain([(0..=count).collect()]) {
            // Of a kernel that has room for one message, two, or all of them, in a datagram.
            for room in [1, 2, 6] {
                let payload = |at| match at {
                    5 => done(0),
                    at => NetlinkPayload::InnerMessage(link(at)),
                };
                let flag = |at| if interrupted.contains(&at) { NLM_F_DUMP_INTR } else { 0 };
                let messages: Vec<_> = (0..=count).map(|at| bytes(payload(at), flag(at))).collect();
                let datagrams: Vec<_> = messages.chunks(room).map(<[_]>::concat).collect();
                let dump = read(&datagrams).unwrap();
                assert_eq!(dump.answers, (0..count).map(link).collect::<Vec<_>>());
                assert_eq!(dump.is_whole, interrupted.is_empty(), "{interrupted:?} {room}");
            }
        }
    }

    #[test]
    fn a_dump_that_ends_with_an_error_is_none_whatever_was_told_before() {
        let first = bytes(NetlinkPayload::InnerMessage(link(1)), 0);
        for end in [done(-(Errno::EPERM as i32)), refused(Errno::EPERM)] {
            let end = bytes(end, 0);
            for datagrams in [vec![first.clone(), end.clone()], vec![[&*first, &end].concat()]] {
                assert_eq!(read(&datagrams).unwrap_err().errno(), Errno::EPERM);
            }
        }
    }

    #[test]
    fn an_acknowledgement_ends_what_was_told_to_do() {
        let acknowledged = bytes(NetlinkPayload::Error(ErrorMessage::default()), 0);
        assert_eq!(read(&[acknowledged]), Ok(Dump { answers: vec![], is_whole: true }));
    }

    #[test]
    fn a_call_that_a_signal_interrupts_is_made_again_and_any_other_error_is_told() {
        let mut received =
            vec![Ok(bytes(done(0), 0)), Err(io::Error::from_raw_os_error(Errno::EINTR as i32))];
        assert!(answered(|| received.pop().unwrap(), "devices").unwrap().is_whole);
        // So the kernel says that answers were lost.
        let lost = || Err(io::Error::from_raw_os_error(Errno::ENOBUFS as i32));
        assert_eq!(answered(lost, "devices").unwrap_err().errno(), Errno::ENOBUFS);
    }

    #[test]
    fn a_message_that_is_cut_short_is_an_error_and_not_the_end() {
        let whole = bytes(NetlinkPayload::InnerMessage(link(1)), 0);
        for length in 1..whole.len() {
            let error = read(&[whole[..length].to_vec()]).unwrap_err();
            assert_eq!(error.errno(), Errno::EBADMSG, "{length} bytes");
        }
    }

    #[test]
    fn of_answers_that_changes_cut_short_everything_counts_that_one_of_them_has() {
        let mut short = vec![vec![(1, 'a')], vec![(2, 'b')], vec![(1, 'c')]];
        let mut pauses = 0;
        let ask = || Ok(Dump { answers: short.pop().unwrap_or_default(), is_whole: false });
        let dump = gather(ask, |(key, _): &(u32, char)| *key, |_| pauses += 1).unwrap();
        assert_eq!(dump, Dump { answers: vec![(1, 'a'), (2, 'b')], is_whole: false });
        assert_eq!(pauses, LOOKS - 1, "it was asked for a bounded number of times");
    }

    #[test]
    fn a_whole_answer_is_taken_as_it_is() {
        let mut answers = vec![(vec![2, 3], true), (vec![1], false)];
        let ask = || {
            let (answers, is_whole) = answers.pop().unwrap();
            Ok(Dump { answers, is_whole })
        };
        let dump = gather(ask, |it: &u32| *it, |_| {}).unwrap();
        assert_eq!(dump, Dump { answers: vec![2, 3], is_whole: true });
    }
}
