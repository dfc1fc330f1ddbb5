//! Judges what the host and its kernel offer.

use kernel::AttachType;
use kernel::qdisc::Device;
use kernel::release::version;
use throttle_core::Direction;

use super::facts::{Answer, Facts, Mounted};
use super::report::{Check, Grade, Held, check};
use super::{fq, place};

/// Judges the facts of the host.
pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    vec![
        cgroup2(facts),
        packets(facts),
        links(facts),
        tcp(facts),
        open_connections(facts),
        download_queue(facts),
        bpffs(facts),
        match &facts.devices {
            Answer::Is(devices) => fq::judge(devices, &facts.offered),
            Answer::No(why) | Answer::Unknown(why) => check("fq", Grade::Unknown, why, ""),
        },
    ]
}

fn cgroup2(facts: &Facts) -> Check {
    match &facts.cgroup2 {
        Answer::Is(Mounted { on, top: None }) => {
            check("cgroup2", Grade::Ok, format!("mounted on {}", on.display()), "")
        }
        Answer::Is(Mounted { on, top: Some(top) }) => check(
            "cgroup2",
            Grade::Lesser,
            format!("mounted on {}, and the top of that is {top}", on.display()),
            "on the host every cgroup can be limited",
        ),
        Answer::No(why) => check("cgroup2", Grade::Missing, why, ""),
        Answer::Unknown(why) => check("cgroup2", Grade::Unknown, why, ""),
    }
}

fn packets(facts: &Facts) -> Check {
    match &facts.packets {
        Answer::Is(()) => check("packet programs", Grade::Ok, "the kernel takes them", ""),
        Answer::No(why) => check("packet programs", Grade::Missing, why, ""),
        Answer::Unknown(why) => check("packet programs", Grade::Unknown, why, ""),
    }
}

/// Returns the check for a feature that depends on the packet programs, unless those load.
fn without_packets(facts: &Facts, what: &str) -> Option<Check> {
    match &facts.packets {
        Answer::Is(()) => None,
        Answer::No(_) => {
            Some(check(what, Grade::Missing, "needs the packet programs, which cannot be had", ""))
        }
        Answer::Unknown(_) => {
            Some(check(what, Grade::Unknown, "depends on the packet programs", ""))
        }
    }
}

fn links(facts: &Facts) -> Check {
    match &facts.support {
        Answer::Is(support) if support.links => {
            check("links", Grade::Ok, "a limit goes with its process, however that ends", "")
        }
        Answer::Is(_) => check(
            "links",
            Grade::Lesser,
            "a crash leaves a limit until the next start",
            "Linux 5.7 or newer has them",
        ),
        Answer::No(why) | Answer::Unknown(why) => check("links", Grade::Unknown, why, ""),
    }
}

fn tcp(facts: &Facts) -> Check {
    let what = "shaping TCP";
    without_packets(facts, what).unwrap_or_else(|| match &facts.tcp {
        Answer::Is(()) => check(what, Grade::Ok, "connections keep to a limit by themselves", ""),
        // Also where only who asks may not: a limit of theirs is held so.
        Answer::No(why) | Answer::Unknown(why) => check(
            what,
            Grade::Lesser,
            format!("packets of TCP above a limit are dropped: {why}"),
            "",
        ),
    })
}

fn open_connections(facts: &Facts) -> Check {
    let what = "open connections";
    let dropped = "of those from before a limit, packets above it are dropped";
    without_packets(facts, what).unwrap_or_else(|| match version(&facts.release) {
        // The check of the TCP program has given the reason already.
        _ if facts.tcp.is().is_none() => check(what, Grade::Lesser, dropped, ""),
        Some(version) if version >= (6, 12) => {
            check(what, Grade::Ok, "those from before a limit are shaped too", "")
        }
        Some(_) => check(what, Grade::Lesser, dropped, "Linux 6.12 or newer shapes them"),
        None => check(what, Grade::Unknown, "which Linux this is cannot be told", ""),
    })
}

fn download_queue(facts: &Facts) -> Check {
    let what = "download queue";
    without_packets(facts, what).unwrap_or_else(|| match (&facts.queue, &facts.offered) {
        (Answer::No(why), _) => {
            check(what, Grade::Lesser, format!("there is no --download-queue: {why}"), "")
        }
        (Answer::Is(()), Answer::Is(offered)) => {
            let lacks: Vec<_> = [
                (offered.fq, "no fq (CONFIG_NET_SCH_FQ)"),
                (offered.ifb, "no ifb devices (CONFIG_IFB)"),
            ]
            .into_iter()
            .filter_map(|(has, lack)| (!has).then_some(lack))
            .collect();
            if lacks.is_empty() {
                check(what, Grade::Ok, "the kernel has its programs, fq and ifb", "")
            } else {
                let lacks = lacks.join(" and ");
                let says = format!("there is no --download-queue: this kernel has {lacks}");
                check(what, Grade::Lesser, says, "")
            }
        }
        (Answer::Unknown(why), _) => check(what, Grade::Unknown, why, ""),
        (Answer::Is(()), Answer::No(why) | Answer::Unknown(why)) => check(
            what,
            Grade::Unknown,
            format!("whether the kernel has fq and ifb cannot be tried: {why}"),
            "",
        ),
    })
}

fn bpffs(facts: &Facts) -> Check {
    match &facts.bpffs {
        Answer::Is(true) => check("bpffs", Grade::Ok, "limits can be pinned", ""),
        Answer::Is(false) => {
            check("bpffs", Grade::Lesser, "no limit can be pinned", "mount -t bpf bpf /sys/fs/bpf")
        }
        Answer::No(why) | Answer::Unknown(why) => check("bpffs", Grade::Unknown, why, ""),
    }
}

/// Returns how limits would be held by default, in the directions where one can be held.
pub(super) fn held(facts: &Facts) -> Vec<Held> {
    if facts.packets.is().is_none() || facts.is_blind() {
        return Vec::new();
    }
    let waits = facts.devices.is().into_iter().flatten().any(Device::keeps_departures);
    let refuses = |it| facts.place.as_ref().is_some_and(|place| place::refuses(place, it));
    let is_shaped = facts.tcp.is().is_some() && !refuses(AttachType::SOCK_OPS);
    let (tcp_up, tcp_down) = match version(&facts.release) {
        _ if !is_shaped => ("dropped above the limit", "dropped above the limit"),
        Some(version) if version < (5, 15) => ("paced", "dropped above the limit"),
        _ => ("paced", "windows that fit are offered; dropped where that is not enough"),
    };
    let dropped = "dropped above the limit, marked before where ECN is understood";
    let other = if waits {
        "waits in fq where the device has it, for at most 40 ms; dropped otherwise"
    } else {
        dropped
    };
    let of = |direction: Direction, tcp: &str, others: &str| {
        let held = |what: &str, how: &str| Held {
            traffic: format!("{direction}, {what}"),
            how: how.to_owned(),
        };
        let can_be = !refuses(direction.attach_type());
        can_be.then(|| [held("TCP", tcp), held("UDP and others", others)])
    };
    let both = [of(Direction::Upload, tcp_up, other), of(Direction::Download, tcp_down, dropped)];
    both.into_iter().flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use kernel::offered::Offered;
    use kernel::probe::Support;

    use super::super::facts::first_line;
    use super::super::text::text;
    use super::super::{diagnose, ending};
    use super::*;
    use crate::words::exit_status;

    fn device(name: &str, kind: &str) -> Device {
        Device { number: 2, name: name.to_owned(), qdiscs: vec![kind.to_owned()] }
    }

    fn modern() -> Facts {
        Facts {
            release: "6.12.117-amd64".to_owned(),
            cgroup2: Answer::Is(Mounted { on: "/sys/fs/cgroup".into(), top: None }),
            support: Answer::Is(Support {
                links: true,
                program_flags: true,
                expected_revision: true,
                tcp: true,
            }),
            packets: Answer::Is(()),
            tcp: Answer::Is(()),
            queue: Answer::Is(()),
            bpffs: Answer::Is(true),
            devices: Answer::Is(vec![device("eth0", "fq")]),
            offered: Answer::Is(Offered { fq: true, ifb: true }),
            place: None,
        }
    }

    fn found(facts: &Facts, what: &str) -> Check {
        judge(facts).into_iter().find(|check| check.what == what).unwrap()
    }

    fn grade(facts: &Facts, what: &str) -> Grade {
        found(facts, what).grade
    }

    fn no<T>() -> Answer<T> {
        Answer::No("refused".to_owned())
    }

    fn unknown<T>() -> Answer<T> {
        Answer::Unknown("denied".to_owned())
    }

    #[test]
    fn where_all_is_there_all_is_ok() {
        assert!(judge(&modern()).iter().all(|check| check.grade == Grade::Ok));
        assert!(held(&modern())[1].how.contains("waits in fq"));
    }

    #[test]
    fn what_a_limit_would_do_is_printed_where_one_can_be_held() {
        let printed = |facts: &Facts| text(&diagnose(facts));
        let can = printed(&modern());
        assert!(
            can.contains("What 'chadthrottle limit' would do:\n") && can.contains("waits in fq")
        );
        assert!(!printed(&Facts { packets: no(), ..modern() }).contains("would do"));
    }

    #[test]
    fn without_links_a_crash_leaves_a_limit_and_that_is_no_more_than_less() {
        let without = |support: Answer<Support>| Facts { support, ..modern() };
        let Answer::Is(has) = modern().support else { unreachable!() };
        let old = without(Answer::Is(Support { links: false, ..has }));
        assert_eq!(grade(&modern(), "links"), Grade::Ok);
        assert_eq!(grade(&old, "links"), Grade::Lesser);
        assert!(found(&old, "links").advice.is_some_and(|it| it.contains("5.7")));
        assert_eq!(grade(&without(unknown()), "links"), Grade::Unknown);
    }

    #[test]
    fn a_mount_that_does_not_show_everything_is_told_and_holds_limits() {
        let top = "not the hierarchy's root";
        let facts =
            Facts { cgroup2: Answer::Is(Mounted { on: "/m".into(), top: Some(top) }), ..modern() };
        let check = found(&facts, "cgroup2");
        assert_eq!(check.grade, Grade::Lesser);
        assert_eq!(check.says, format!("mounted on /m, and the top of that is {top}"));
        assert!(!held(&facts).is_empty());
    }

    #[test]
    fn without_the_hierarchy_no_limit_is_held_and_the_advice_is_that_of_the_error() {
        let facts = Facts { cgroup2: no(), ..modern() };
        let check = found(&facts, "cgroup2");
        assert_eq!((check.grade, &*check.says, check.advice), (Grade::Missing, "refused", None));
        assert!(facts.is_blind() && held(&facts).is_empty());
    }

    #[test]
    fn what_is_not_there_is_named_with_what_to_do_about_it() {
        let facts = Facts { bpffs: Answer::Is(false), ..modern() };
        assert_eq!(grade(&facts, "bpffs"), Grade::Lesser);
        let facts = Facts { devices: Answer::Is(vec![device("eth0", "pfifo_fast")]), ..modern() };
        let fq = found(&facts, "fq");
        assert!(fq.says.contains("eth0") && fq.advice.as_ref().unwrap().contains("tc qdisc"));
        assert!(held(&facts)[1].how.starts_with("dropped"));
        let facts = Facts { queue: no(), ..modern() };
        assert_eq!(grade(&facts, "download queue"), Grade::Lesser);
        let facts = Facts { tcp: no(), ..modern() };
        assert_eq!(grade(&facts, "shaping TCP"), Grade::Lesser);
        assert!(held(&facts)[0].how.starts_with("dropped"));
    }

    #[test]
    fn open_connections_are_shaped_from_6_12_on_and_where_others_are() {
        let with = |release: &str, packets, tcp| {
            let facts = Facts { release: release.to_owned(), packets, tcp, ..modern() };
            let check = found(&facts, "open connections");
            (check.grade, check.says.contains("are dropped"), check.advice.is_some())
        };
        let is = || Answer::Is(());
        assert_eq!(with("6.12.0", is(), is()), (Grade::Ok, false, false));
        assert_eq!(with("6.11.11", is(), is()), (Grade::Lesser, true, true));
        assert_eq!(with("6.1.0-56", is(), is()), (Grade::Lesser, true, true));
        // A newer Linux is advised only where something is shaped.
        assert_eq!(with("6.18.0", is(), no()), (Grade::Lesser, true, false));
        assert_eq!(with("6.18.0", is(), unknown()), (Grade::Lesser, true, false));
        assert_eq!(with("6.18.0", no(), no()).0, Grade::Missing);
        assert_eq!(with("6.18.0", unknown(), unknown()).0, Grade::Unknown);
    }

    #[test]
    fn a_queue_needs_what_was_tried_and_says_what_of_it_is_not_there() {
        let with = |fq, ifb| {
            let offered = Answer::Is(Offered { fq, ifb });
            let check = found(&Facts { offered, ..modern() }, "download queue");
            (check.grade, check.says)
        };
        assert_eq!(with(true, true).0, Grade::Ok);
        let (grade, says) = with(false, true);
        assert_eq!(grade, Grade::Lesser);
        assert!(says.ends_with("this kernel has no fq (CONFIG_NET_SCH_FQ)"), "{says}");
        let (_, says) = with(false, false);
        assert!(says.ends_with("(CONFIG_NET_SCH_FQ) and no ifb devices (CONFIG_IFB)"), "{says}");
        let untried = found(&Facts { offered: unknown(), ..modern() }, "download queue");
        assert_eq!(untried.grade, Grade::Unknown, "{untried:?}");
    }

    #[test]
    fn what_cannot_be_known_is_neither_ok_nor_missing() {
        let facts = Facts { devices: unknown(), ..modern() };
        assert_eq!(grade(&facts, "fq"), Grade::Unknown);
        let facts = Facts {
            support: unknown(),
            packets: unknown(),
            tcp: unknown(),
            queue: unknown(),
            offered: unknown(),
            ..modern()
        };
        for what in ["packet programs", "links", "shaping TCP", "download queue"] {
            assert_eq!(grade(&facts, what), Grade::Unknown, "{what}");
        }
        assert!(held(&facts).is_empty());
        // The check that the others depend on says it, once.
        let told = judge(&facts).iter().filter(|check| check.says.contains("denied")).count();
        assert_eq!(told, 2, "the packet programs and the links");
    }

    #[test]
    fn what_the_kernel_refuses_is_missing() {
        let facts = Facts { packets: no(), tcp: no(), queue: no(), ..modern() };
        for what in ["packet programs", "shaping TCP", "download queue"] {
            assert_eq!(grade(&facts, what), Grade::Missing, "{what}");
        }
        assert!(held(&facts).is_empty());
    }

    #[test]
    fn the_status_goes_by_the_worst_that_was_found_and_what_is_missing_comes_before_what_is_unseen()
    {
        let ended = |facts: &Facts| {
            let result = ending(facts, &diagnose(facts)).map_err(anyhow::Error::from);
            let message = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            (result.as_ref().err().map_or(0, exit_status), message)
        };
        let (none, unseen) = ("no limit can be held here", "not everything could be seen");
        let cases = [
            (modern(), 0, ""),
            (Facts { bpffs: Answer::Is(false), tcp: no(), ..modern() }, 0, ""),
            (Facts { devices: unknown(), ..modern() }, 2, unseen),
            (Facts { cgroup2: unknown(), bpffs: Answer::Is(false), ..modern() }, 2, unseen),
            (Facts { packets: unknown(), ..modern() }, 2, unseen),
            (Facts { packets: no(), ..modern() }, 1, none),
            (Facts { packets: no(), devices: unknown(), ..modern() }, 1, none),
            (Facts { cgroup2: no(), ..modern() }, 70, none),
            (Facts { cgroup2: no(), devices: unknown(), packets: no(), ..modern() }, 70, none),
        ];
        for (facts, status, message) in cases {
            assert_eq!(ended(&facts), (status, message.to_owned()), "{facts:?}");
        }
    }

    #[test]
    fn advice_is_given_once() {
        let denied = "not permitted; needs CAP_BPF: run as root";
        assert_eq!(check("x", Grade::Missing, denied, "run as root").advice, None);
        assert!(check("x", Grade::Missing, "refused", "run as root").advice.is_some());
        assert_eq!(first_line("a\nb"), "a");
    }

    #[test]
    fn downloads_of_tcp_are_shaped_from_5_15_on() {
        let old = Facts { release: "5.14.21".to_owned(), ..modern() };
        assert!(held(&old)[2].how.starts_with("dropped"));
        assert!(held(&modern())[2].how.starts_with("windows"));
    }
}
