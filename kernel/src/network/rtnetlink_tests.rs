//! Tests reading the kernel's answers, datagram by datagram, from a scripted socket.

use std::collections::VecDeque;
use std::io;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::*;

const MULTI: u16 = 2;
const INTERRUPTED: u16 = MULTI | NLM_F_DUMP_INTR;
const NOTHING: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

/// Returns a message, padded to a multiple of four bytes.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn link(number: u32, flags: u16) -> Vec<u8> {
    let mut link = LinkMessage::default();
    link.header.index = number;
    link.attributes.push(LinkAttribute::IfName(format!("chadtest{number}")));
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::NewLink(link));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn done(code: i32, flags: u16) -> Vec<u8> {
    message(DONE, flags, &code.to_ne_bytes())
}

/// Returns a refusal or an acknowledgement, followed by the request's header.
fn refusal(code: i32) -> Vec<u8> {
    message(ERROR, 0, &[&code.to_ne_bytes()[..], &[0; 16]].concat())
}

/// Returns a socket with these datagrams or errors. Reading past them is a fault.
fn socket(script: Vec<io::Result<Vec<u8>>>) -> impl FnMut() -> io::Result<Vec<u8>> {
    let mut script = VecDeque::from(script);
    move || script.pop_front().expect("it is asked for more than there is")
}

/// Returns the devices' numbers, and whether the dump is complete.
fn told(script: Vec<io::Result<Vec<u8>>>) -> Result<(Vec<u32>, bool)> {
    let dump = read_answers(socket(script), "devices")?;
    let number = |answer: &RouteNetlinkMessage| match answer {
        RouteNetlinkMessage::NewLink(link) => link.header.index,
        other => panic!("{other:?}"),
    };
    Ok((dump.answers.iter().map(number).collect(), dump.is_whole))
}

fn errno(told: Result<(Vec<u32>, bool)>) -> Errno {
    told.unwrap_err().errno()
}

#[test]
fn a_dump_may_come_in_many_datagrams_of_many_messages() {
    // An empty message, padded to a multiple of four bytes.
    let nothing = message(NOTHING, MULTI, &[7]);
    let first = [link(1, MULTI), nothing, link(2, MULTI), link(30, MULTI)].concat();
    let second = [link(4, MULTI)].concat();
    let last = [link(5, MULTI), done(0, MULTI)].concat();
    let whole = told(vec![Ok(first.clone()), Ok(second.clone()), Ok(last)]);
    assert_eq!(whole, Ok((vec![1, 2, 30, 4, 5], true)));
    let end = told(vec![Ok(first), Ok(second), Ok(Vec::new()), Ok(done(0, MULTI))]);
    assert_eq!(end, Ok((vec![1, 2, 30, 4], true)), "the end may come by itself");
    assert_eq!(told(vec![Ok(done(0, MULTI))]), Ok((vec![], true)));
}

#[test]
fn one_message_that_says_so_makes_the_dump_short_wherever_it_is() {
    let datagrams = |marked: usize| {
        let flags = |at| if at == marked { INTERRUPTED } else { MULTI };
        vec![
            Ok([link(1, flags(0)), link(2, flags(1))].concat()),
            Ok([link(3, flags(2)), link(4, flags(3))].concat()),
            Ok(done(0, flags(4))),
        ]
    };
    for marked in 0..5 {
        assert_eq!(told(datagrams(marked)), Ok((vec![1, 2, 3, 4], false)), "message {marked}");
    }
    assert_eq!(told(datagrams(5)), Ok((vec![1, 2, 3, 4], true)));
    let overrun = vec![Ok([link(1, MULTI), message(OVERRUN, 0, &[])].concat()), Ok(done(0, MULTI))];
    assert_eq!(told(overrun), Ok((vec![1], false)));
}

#[test]
fn a_signal_while_waiting_is_no_error_and_loses_nothing() {
    let signal = || Err(io::ErrorKind::Interrupted.into());
    let script = vec![signal(), Ok(link(1, MULTI)), signal(), signal(), Ok(done(0, MULTI))];
    assert_eq!(told(script), Ok((vec![1], true)));
}

#[test]
fn an_error_in_the_middle_is_told_and_what_came_before_is_no_answer() {
    let begun = || Ok([link(1, MULTI), link(2, MULTI)].concat());
    assert_eq!(errno(told(vec![begun(), Ok(refusal(-1))])), Errno::EPERM);
    assert_eq!(errno(told(vec![begun(), Ok(done(-105, MULTI))])), Errno::ENOBUFS, "at the end");
    let in_one = [link(1, MULTI), refusal(-16), link(2, MULTI)].concat();
    assert_eq!(errno(told(vec![Ok(in_one)])), Errno::EBUSY);
    let socket = || Err(io::Error::from_raw_os_error(105));
    assert_eq!(errno(told(vec![begun(), socket()])), Errno::ENOBUFS, "of the socket");
}

#[test]
fn a_message_that_is_cut_off_is_an_error_and_not_the_end() {
    let whole = [link(1, MULTI), link(2, MULTI)].concat();
    let half = whole.len() / 2;
    for end in [1, 15, half - 4, half + 1, half + 15, half + 16, whole.len() - 4] {
        assert_eq!(errno(told(vec![Ok(whole[..end].to_vec())])), Errno::EBADMSG, "{end} bytes");
    }
    // A message shorter than its own header would be read forever.
    let mut empty = link(1, MULTI);
    empty[..4].copy_from_slice(&0_u32.to_ne_bytes());
    assert_eq!(errno(told(vec![Ok(empty)])), Errno::EBADMSG);
}

#[test]
fn an_acknowledgement_is_the_end_and_a_refusal_an_error() {
    assert_eq!(told(vec![Ok(refusal(0))]), Ok((vec![], true)));
    assert_eq!(errno(told(vec![Ok(refusal(-17))])), Errno::EEXIST);
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

#[test]
fn after_an_answer_that_was_cut_short_an_error_is_an_error() {
    let error = || Error::new(Call::Netlink, "devices", Errno::EPERM);
    let mut answers = vec![Err(error()), Ok(Dump { answers: vec![1], is_whole: false })];
    let told = gather(|| answers.pop().unwrap(), |it: &u32| *it, |_| {});
    assert_eq!(told, Err(error()));
    assert!(answers.is_empty());
}

#[test]
fn root_devices_that_come_and_go_while_they_are_listed_are_told_once_each() {
    testkit::isolation::isolate();
    let ip = |words: &str| {
        let status = std::process::Command::new("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "{words}");
    };
    // More devices than fit into one datagram.
    for number in 0..60 {
        ip(&format!("link add chadtest{number} type veth peer name chadpeer{number}"));
    }
    let asked = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let number = |answer: &RouteNetlinkMessage| match answer {
        RouteNetlinkMessage::NewLink(link) => link.header.index,
        other => panic!("{other:?}"),
    };
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let dumps: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                ip("link add chadmoves type veth peer name chadmoves1");
                ip("link del chadmoves");
            }
        });
        let dumps = (0..30).map(|_| all_by(&asked, number)).collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        dumps
    });
    for dump in dumps {
        let mut numbers: Vec<_> = dump.unwrap().answers.iter().map(number).collect();
        let told = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), told, "some are told twice");
        // The loopback device, 60 pairs, and for each attempt at most the pair that comes and goes.
        assert!((121..=121 + 2 * LOOKS as usize).contains(&told), "{told} devices");
    }
}
