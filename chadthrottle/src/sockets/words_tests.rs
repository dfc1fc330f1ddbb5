use kernel::sockets::SocketKind;

use super::super::judge::Group;
use super::super::judge::tests::{ELSEWHERE, process};
use super::*;

fn at(path: &str) -> Place {
    Place::At(path.into())
}

fn group(pids: &[u32], sockets: usize) -> Group {
    Group { processes: pids.iter().map(|&pid| process(pid)).collect(), sockets }
}

fn outside(pids: &[u32], sockets: usize, of: usize, listening: usize) -> Past {
    let outside = Outside { group: group(pids, sockets), listening, of };
    Past { outside: [(ELSEWHERE, outside)].into(), ..Past::default() }
}

fn said(past: &Past, place: &Place) -> Vec<String> {
    news(all(past, Some(9), |_| place.clone(), |_| None), &mut BTreeSet::new())
}

fn held(is_tap: Option<bool>, sends_on: bool) -> Held {
    Held {
        process: process(4),
        name: "dev\n0".to_owned(),
        is_tap,
        sends_on,
        users: 0,
        has_company: true,
    }
}

fn said_of(held: Held, home: Option<&Home>) -> Vec<String> {
    let past = Past { devices: vec![held], ..Past::default() };
    news(all(&past, None, |_| Place::Root, |_| home.cloned()), &mut BTreeSet::new())
}

#[test]
fn where_all_is_held_nothing_is_said() {
    assert!(said(&Past::default(), &Place::Root).is_empty());
}

#[test]
fn it_says_how_many_sockets_of_whom_belong_where_and_what_would_hold_them() {
    let lines = said(&outside(&[4711], 3, 5, 1), &at("/system.slice/nginx.socket"));
    assert_eq!(
        lines,
        [
            "3 of 5 sockets of process 4711 (p4711) are not limited: they belong to cgroup \
             /system.slice/nginx.socket; 1 accepts connections, which will belong there, too",
            "to hold them, limit that cgroup as well (--cgroup /system.slice/nginx.socket); a restart helps if the \
             process opened them before it came to this cgroup",
        ]
    );
    let one = said(&outside(&[1, 2, 3, 4, 5, 6, 9], 1, 1, 0), &Place::Removed);
    assert_eq!(
        one,
        [
            "1 of 1 socket of processes 9 (p9), 1 (p1), 2 (p2), 3 (p3), 4 (p4) and 2 more is not limited: it belongs \
             to a cgroup that was removed (id 7)",
            "to hold them, restart the process",
        ]
    );
}

#[test]
fn what_would_hold_them_depends_on_where_they_belong() {
    let advice = |place| said(&outside(&[1], 1, 1, 0), &place).pop().unwrap();
    assert!(advice(Place::Root).contains("the whole host"));
    assert!(!advice(Place::Removed).contains("limit"));
    assert!(advice(Place::Hidden).contains("on the host"));
    assert!(advice(at("/a\x1bb")).contains(r"/a\x1bb"), "no terminal obeys it");
}

#[test]
fn of_many_cgroups_the_first_are_named_and_the_others_counted() {
    let one = || Outside { group: group(&[1], 1), listening: 0, of: 9 };
    let past =
        Past { outside: (1..=8).map(|id| (CgroupId(id), one())).collect(), ..Past::default() };
    let lines = said(&past, &at("/x"));
    assert_eq!(lines.len(), 2 * NAMED + 1);
    assert_eq!(lines.last().unwrap(), "3 more cgroups or devices are like that");
}

#[test]
fn each_thing_is_said_once_and_what_is_new_when_it_comes() {
    let mut told = BTreeSet::new();
    let mut lines = |past: &Past| news(all(past, None, |_| Place::Removed, |_| None), &mut told);
    let first = outside(&[1], 1, 1, 0);
    assert_eq!(lines(&first).len(), 2);
    assert!(lines(&outside(&[1, 2], 2, 2, 1)).is_empty(), "the same cgroup");
    let frames = [(SocketKind::Packet, group(&[4], 2))].into();
    let devices = vec![held(Some(true), true)];
    assert_eq!(lines(&Past { frames, devices, ..first }).len(), 3);
}

#[test]
fn whole_frames_are_said_to_belong_to_no_cgroup() {
    let frames = [(SocketKind::Packet, group(&[4], 2)), (SocketKind::Xdp, group(&[5], 1))];
    let lines = said(&Past { frames: frames.into(), ..Past::default() }, &Place::Root);
    assert!(lines[0].starts_with("2 AF_PACKET sockets of process 4 (p4) are not limited"));
    assert!(lines[1].starts_with("1 AF_XDP socket of process 5 (p5) is not limited"));
}

#[test]
fn what_a_vpn_client_sends_on_counts_twice_and_what_a_virtual_machine_sends_not_at_all() {
    let vpn = said_of(held(Some(false), true), None);
    assert_eq!(
        vpn,
        [
            "process 4 (p4) holds the tun device dev\\n0: what others in this cgroup send or receive through it counts \
          twice; to count it once, give that process a cgroup of its own, outside of the limited one"
        ]
    );
    let machine = said_of(held(Some(true), false), None);
    assert_eq!(
        machine,
        [
            "process 4 (p4) holds the tap device dev\\n0: what the process puts into it is no socket's, and not limited; \
          tc on dev\\n0 can limit that"
        ]
    );
    // A network stack in user space, which uses a tap, or a machine with a console over TCP.
    assert_eq!(said_of(held(Some(true), true), None).len(), 2);
    assert_eq!(said_of(held(None, true), None).len(), 2, "unknown");
    assert_eq!(said_of(held(Some(false), false), None).len(), 1);
}

#[test]
fn who_is_alone_in_the_cgroup_is_charged_once() {
    let alone = || Held { has_company: false, ..held(Some(false), true) };
    let home = |is_below| Home { path: "/user/vpn".into(), is_below };
    assert!(said_of(alone(), Some(&home(false))).is_empty());
    let below = said_of(alone(), Some(&home(true))).pop().unwrap();
    assert!(below.ends_with("to count it once, limit /user/vpn alone"), "{below}");
}

#[test]
fn sockets_that_have_sent_through_a_device_are_told_of() {
    let users = |users| said_of(Held { users, ..held(Some(false), true) }, None).pop().unwrap();
    assert!(users(1).contains("(1 socket has sent through it)"));
    assert!(users(2).contains("(2 sockets have sent through it)"));
}

fn missed(sent: u64, received: u64) -> Missed {
    Missed {
        traffic: Traffic { sent, received },
        processes: [process(4711)].into(),
        cgroups: [ELSEWHERE].into(),
    }
}

#[test]
fn a_limit_that_counts_less_than_its_process_sends_past_it_says_so() {
    let told = |counted: &[(Direction, u64)], missed: &Missed| {
        while_waiting(counted, missed, None, |_| at("/x"))
    };
    let both = |bytes| Direction::BOTH.map(|direction| (direction, bytes));
    assert_eq!(
        told(&both(0), &missed(1_500, 7)).unwrap(),
        "nothing went through this limit, but process 4711 (p4711) has received at least 7 B and sent at least 1.5 kB \
         past it, through sockets of cgroup /x"
    );
    assert_eq!(
        told(&both(100), &missed(1_500, 7)).unwrap(),
        "only 100 B went through this limit, but process 4711 (p4711) has sent at least 1.5 kB past it, through sockets \
         of cgroup /x"
    );
    let two = Missed { processes: [process(1), process(2)].into(), ..missed(1_500, 7) };
    assert!(told(&both(0), &two).unwrap().contains("have received"));
    assert_eq!(told(&both(1_500), &missed(1_500, 7)), None);
    assert_eq!(told(&[(Direction::Download, 0)], &missed(1, 0)), None, "nothing was received");
    assert_eq!(told(&[(Direction::Upload, 0)], &missed(0, 1)), None);
}

#[test]
fn the_summary_says_what_went_past_the_limit_or_that_nobody_knows() {
    let end = |missed: &Missed| at_the_end(missed, |_| at("/x"));
    assert_eq!(
        end(&missed(1_500, 0)),
        "outside   sent at least 1.5 kB, through sockets of cgroup /x, which this limit does not hold\n"
    );
    assert_eq!(end(&Missed::default()), "");
    let unknown =
        |told: &[About], sockets| unknown_at_the_end(&told.iter().cloned().collect(), sockets);
    let twice = About::Twice(process(4), "tun0".to_owned());
    assert_eq!(unknown(&[About::Outside(ELSEWHERE), twice], 0), "");
    let puts = About::Puts(process(4), "dev\n0".to_owned());
    assert_eq!(
        unknown(&[About::Frames(SocketKind::Packet), puts], 2),
        "outside   unknown: nothing counts what goes past this limit through 2 sockets of other cgroups, AF_PACKET \
         sockets and dev\\n0\n"
    );
}

#[test]
fn a_process_is_called_by_what_a_terminal_can_show() {
    let odd = Process { pid: 1, name: "\x1b[2J".to_owned() };
    assert_eq!(processes(&[odd].into(), None), "process 1 (\\x1b[2J)");
}
