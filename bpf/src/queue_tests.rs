//! Tests which devices are ours, from which devices packets come, and when a device counts as gone.

use kernel::process::{INITIAL_PID_NAMESPACE, pid_namespace};

use super::*;

#[test]
fn packets_come_from_each_device_with_ethernet_headers_that_is_up_and_hands_on_to_none() {
    let source = |index: u32| {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.header.flags = LinkFlags::Up;
        link
    };
    let with = |index, change: fn(&mut LinkMessage)| {
        let mut link = source(index);
        change(&mut link);
        link
    };
    let kind = |it: &mut LinkMessage, kind| {
        it.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    };
    let no_device = RouteNetlinkMessage::NewQueueDiscipline(TcMessage::with_index(2));
    let links = [
        source(2),
        with(3, |it| it.header.flags = LinkFlags::empty()),
        with(4, |it| it.header.flags |= LinkFlags::Loopback),
        with(5, |it| it.header.link_layer_type = LinkLayerType::None),
        with(6, |it| it.attributes.push(LinkAttribute::Controller(9))),
        {
            let mut ifb = source(7);
            kind(&mut ifb, InfoKind::Ifb);
            ifb
        },
        {
            let mut bridge = source(9);
            kind(&mut bridge, InfoKind::Bridge);
            bridge
        },
        source(10),
    ];
    let mut messages: Vec<_> = links.into_iter().map(RouteNetlinkMessage::NewLink).collect();
    messages.push(no_device);
    assert_eq!(sources(&messages), [2, 9, 10]);
    assert_eq!(sources(&[]), [0; 0]);
}

#[test]
fn a_device_is_known_until_it_is_seen_to_be_gone() {
    let mut device = Some(7);
    let busy = Error::found(Call::Netlink, "network device 7", Errno::EBUSY);
    for _ in 0..2 {
        assert_eq!(until_gone(&mut device, |_| Err(busy.clone())), Err(busy.clone()));
        let still_there = until_gone(&mut device, |_| Ok(true)).unwrap_err();
        assert_eq!((still_there.errno(), device), (Errno::EEXIST, Some(7)));
    }
    let mut removed = None;
    let remove = |number| {
        removed = Some(number);
        Ok(false)
    };
    until_gone(&mut device, remove).unwrap();
    assert_eq!((removed, device), (Some(7), None));
    until_gone(&mut device, |_| panic!("another one may have its number by now")).unwrap();
}

#[test]
fn a_device_of_ours_is_known_by_its_name() {
    assert_eq!(pid_of("chadq4711a"), Some(4711));
    for other in
        ["chadq", "chadqa", "chadq1", "eth0", "chadq12A", "chadq-1a", "chadq+1a", "chadq01a"]
    {
        assert_eq!(pid_of(other), None, "{other}");
    }
}

#[test]
fn a_name_fits_whatever_the_pid() {
    // A name has at most 15 characters, and a pid at most 22 bits.
    assert!(format!("{NAME}{}z", 1 << 22).len() <= 15);
}

fn device(name: &str, kind: InfoKind, alias: Option<&str>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    link.attributes.extend(alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
    link
}

#[test]
fn a_device_that_cannot_be_removed_keeps_no_other_from_it_and_both_are_told() {
    let links = ["a", "b", "c", "d"].map(|name| device(name, InfoKind::Ifb, None));
    let failed =
        |link: &LinkMessage| Error::new(Call::Netlink, links::name(link).unwrap(), Errno::EPERM);
    let is = |link: &LinkMessage, wanted| links::name(link) == Some(wanted);
    let swept = sweep_each(
        &links,
        |link| if is(link, "a") { Err(failed(link)) } else { Ok(!is(link, "d")) },
        |link| if is(link, "b") { Err(failed(link)) } else { Ok(()) },
    );
    let told: Vec<_> = swept.failed.iter().map(Error::target).collect();
    assert_eq!((swept.removed, told), (vec!["c".to_owned()], vec!["a", "b"]));
}

#[test]
fn only_what_a_dead_owner_of_ours_left_is_left_behind() {
    let me = Owner::this_process("test").unwrap();
    let json = |owner: &Owner| serde_json::to_string(owner).unwrap();
    let dead = json(&Owner { start_time: me.start_time + 1, ..me.clone() });
    let mine = format!("chadq{}a", me.pid);
    let left = |link: &LinkMessage| is_left_behind(link).unwrap();
    assert!(left(&device(&mine, InfoKind::Ifb, Some(&dead))));
    assert!(!left(&device(&mine, InfoKind::Ifb, Some(&json(&me)))));
    assert!(!left(&device(&mine, InfoKind::Ifb, Some("somebody's"))));
    assert!(!left(&device(&mine, InfoKind::Dummy, Some(&dead))));
    assert!(!left(&device("ifb7", InfoKind::Ifb, Some(&dead))));
    // A process of another pid namespace may be running, even if another process has its pid here.
    for start_time in [me.start_time, me.start_time + 1] {
        let elsewhere = Owner { pid_namespace: me.pid_namespace + 1, start_time, ..me.clone() };
        assert!(!left(&device(&mine, InfoKind::Ifb, Some(&json(&elsewhere)))));
    }
    // Nobody has that pid. But the alias is not ours, or it is another owner's.
    for alias in ["somebody's", "", &dead] {
        assert!(!left(&device("chadq99999999a", InfoKind::Ifb, Some(alias))), "{alias}");
    }
    // Without an alias, the name decides.
    assert!(!left(&device(&mine, InfoKind::Ifb, None)));
    let is_certain = pid_namespace().unwrap() == INITIAL_PID_NAMESPACE;
    assert_eq!(left(&device("chadq99999999a", InfoKind::Ifb, None)), is_certain);
}
