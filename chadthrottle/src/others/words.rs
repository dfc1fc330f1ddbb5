//! Phrases the messages about other limits and programs.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use bpf::limits::{Limits, Traffic};
use kernel::lineage::ListMode;
use terminal::{escape, escape_bytes};
use throttle_core::Spec;
use throttle_core::neighbours::Neighbour;

use super::{Beside, Other, Relation};

/// The most programs that a message names.
const NAMED: usize = 5;

/// Returns the message about other people's programs that run beside the limit.
pub(super) fn beside(programs: &[Beside], spec: &Spec, displaced: &[Neighbour]) -> Option<String> {
    let limited: Vec<_> = spec.limits().iter().map(|(it, _)| it.attach_type()).collect();
    let is_displaced = |it: &Beside| displaced.iter().any(|other| other.id == it.id);
    let programs: Vec<_> = programs
        .iter()
        .filter(|it| limited.contains(&it.attach_type) && !is_displaced(it))
        .map(|it| {
            let name = it.name.as_ref().map(|name| format!(" '{}'", escape(name)));
            let mode = match it.mode {
                ListMode::Multi => "multi",
                ListMode::Override => "override",
                ListMode::Empty | ListMode::Exclusive => "exclusive",
            };
            let cgroup = escape_bytes(it.cgroup.as_os_str().as_bytes());
            let (id, at) = (it.id, it.attach_type);
            format!("program {id}{} of {cgroup} ({at}, {mode})", name.unwrap_or_default())
        })
        .collect();
    let more = match programs.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let named: Vec<_> = programs.iter().take(NAMED).map(String::as_str).collect();
    (!named.is_empty())
        .then(|| format!("beside this limit other programs run: {}{more}", named.join("; ")))
}

/// Returns the messages about other limits.
pub(super) fn sentences(others: &[Other], spec: &Spec) -> Vec<String> {
    let mut said = Vec::new();
    for (direction, limits) in spec.limits() {
        let meets =
            |other: &&Other| other.direction == direction && do_meet(other.traffic, limits.traffic);
        let mut meeting: Vec<&Other> = others.iter().filter(meets).collect();
        meeting.sort_by_key(|other| (other.relation, other.rate));
        said.extend(meeting.iter().take(NAMED).map(|other| sentence(other, &limits)));
        if let more @ 1.. = meeting.len().saturating_sub(NAMED) {
            said.push(format!(
                "{direction}: other limits beside these: {more} ('chadthrottle list' shows them)"
            ));
        }
        let here: Vec<&Other> =
            meeting.into_iter().filter(|it| it.relation != Relation::Below).collect();
        if !here.is_empty() {
            said.push(format!(
                "{direction}: a packet must pass all of these limits, so the lowest rate holds: {}",
                what_holds(&here, &limits)
            ));
        }
    }
    said
}

/// Returns the lowest rate and its owner. If the traffic classes differ, it returns one for each class of the new
/// limit.
fn what_holds(others: &[&Other], ours: &Limits) -> String {
    let classes = match ours.traffic {
        Traffic::All => vec![Traffic::Internet, Traffic::Local],
        one => vec![one],
    };
    let holds: Vec<_> = classes.iter().map(|&class| lowest(others, ours, class)).collect();
    let mut text = match &holds[..] {
        [one, another] if one == another => one.clone(),
        _ => {
            let each = classes.iter().zip(&holds);
            let each: Vec<_> =
                each.map(|(class, holds)| format!("for {class} traffic {holds}")).collect();
            each.join(", ")
        }
    };
    let unknown = others.iter().filter(|it| it.traffic.is_none() && it.rate < ours.rate);
    if let Some(other) = unknown.min_by_key(|other| other.rate) {
        let _ = write!(text, "; for some traffic perhaps {} (that of {})", other.rate, other.whose);
    }
    text
}

/// Returns the lowest rate for one class of traffic, and its owner. A limit on unknown traffic does not count here,
/// because it may not apply.
fn lowest(others: &[&Other], ours: &Limits, class: Traffic) -> String {
    let about = others.iter().filter(|it| it.traffic.is_some_and(|it| do_meet(Some(it), class)));
    match about.min_by_key(|other| other.rate).filter(|lowest| lowest.rate < ours.rate) {
        Some(lowest) => format!("{} (that of {})", lowest.rate, lowest.whose),
        None => format!("{} (this limit)", ours.rate),
    }
}

/// Tells whether some packets are subject to both limits.
fn do_meet(one: Option<Traffic>, other: Traffic) -> bool {
    !matches!(
        (one, other),
        (Some(Traffic::Internet), Traffic::Local) | (Some(Traffic::Local), Traffic::Internet)
    )
}

fn sentence(other: &Other, ours: &Limits) -> String {
    let Other { direction, rate, whose, .. } = other;
    let cgroup = escape_bytes(other.cgroup.as_os_str().as_bytes());
    let traffic = match other.traffic {
        Some(Traffic::All) => String::new(),
        Some(traffic) => format!(" ({traffic} traffic)"),
        None => " (of some traffic)".to_owned(),
    };
    match other.relation {
        Relation::Same => {
            format!(
                "{direction}: this cgroup has another limit already: {rate}{traffic}, of {whose}"
            )
        }
        Relation::Above => {
            // A limit that is out of sight has no path. Its text says itself that it is above.
            let above = if other.cgroup.is_absolute() { " above" } else { "" };
            format!(
                "{direction}: {cgroup}{above} has a limit that this cgroup shares with all others below it: \
                 {rate}{traffic}, of {whose}"
            )
        }
        Relation::Below => {
            let both = match (other.traffic, ours.traffic) {
                (Some(Traffic::All), Traffic::All) => String::new(),
                (Some(Traffic::All), some) | (Some(some), _) => format!(" for {some} traffic"),
                (None, _) => " for what both are about".to_owned(),
            };
            let holds = rate.min(&ours.rate);
            format!(
                "{direction}: {cgroup} below has a limit of its own: {rate}{traffic}, of {whose}; the lower rate holds \
                 there{both}: {holds}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use bpf::limits::{Burst, FqDevices, Rate};
    use kernel::{AttachType, ProgramId};
    use throttle_core::Direction;
    use throttle_core::mode::{TcpWish, Wish};

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn spec(upload: &str, traffic: Traffic) -> Spec {
        Spec {
            cgroup: "/a/b".into(),
            cgroup_id: None,
            download: None,
            upload: Some(rate(upload)),
            burst: Burst::DEFAULT,
            traffic,
            attach: Wish::default(),
            tcp: TcpWish::Auto,
            departures: FqDevices::NONE,
            queue: false,
            displace: false,
        }
    }

    fn other(relation: Relation, at: &str, text: &str) -> Other {
        Other {
            relation,
            cgroup: at.into(),
            direction: Direction::Upload,
            rate: rate(text),
            traffic: Some(Traffic::All),
            whose: "process 7 (chadthrottle)".to_owned(),
        }
    }

    #[test]
    fn where_there_is_no_other_limit_nothing_is_said() {
        let spec = spec("1M", Traffic::All);
        assert_eq!(sentences(&[], &spec), [""; 0]);
        let download =
            Other { direction: Direction::Download, ..other(Relation::Same, "/a/b", "1M") };
        assert_eq!(sentences(&[download], &spec), [""; 0], "of the other direction");
    }

    #[test]
    fn whose_which_rate_and_which_holds_is_said_of_one_on_the_same_cgroup_or_above() {
        let others = [other(Relation::Above, "/a", "300K"), other(Relation::Same, "/a/b", "2M")];
        assert_eq!(
            sentences(&others, &spec("1M", Traffic::All)),
            [
                "upload: this cgroup has another limit already: 2 MB/s, of process 7 (chadthrottle)",
                "upload: /a above has a limit that this cgroup shares with all others below it: 300 kB/s, of process 7 \
                 (chadthrottle)",
                "upload: a packet must pass all of these limits, so the lowest rate holds: 300 kB/s (that of process 7 \
                 (chadthrottle))",
            ]
        );
        let said = sentences(&others, &spec("100K", Traffic::All));
        assert!(said[2].ends_with("holds: 100 kB/s (this limit)"), "{said:?}");
    }

    #[test]
    fn one_below_holds_for_what_is_there_and_not_for_the_rest() {
        let below = [other(Relation::Below, "/a/b/c", "300K")];
        let said = sentences(&below, &spec("1M", Traffic::All));
        let [only] = said.as_slice() else { panic!("{said:?}") };
        assert!(
            only.starts_with("upload: /a/b/c below has a limit of its own: 300 kB/s"),
            "{only}"
        );
        assert!(only.ends_with("holds there: 300 kB/s"), "{only}");
        let said = sentences(&below, &spec("10K", Traffic::All));
        assert!(said[0].ends_with("holds there: 10 kB/s"), "{said:?}");
    }

    #[test]
    fn limits_of_traffic_that_never_meets_are_no_neighbours() {
        let local =
            Other { traffic: Some(Traffic::Local), ..other(Relation::Same, "/a/b", "300K") };
        assert_eq!(
            sentences(std::slice::from_ref(&local), &spec("1M", Traffic::Internet)),
            [""; 0]
        );
        let said = sentences(&[local], &spec("1M", Traffic::All));
        assert!(said[0].contains("300 kB/s (local traffic)"), "{said:?}");
    }

    fn of(traffic: Option<Traffic>, other: Other) -> Other {
        Other { traffic, ..other }
    }

    #[test]
    fn what_holds_is_said_for_each_class_of_traffic_that_the_new_limit_is_about() {
        let last = |others: &[Other], ours: &str, traffic| {
            let said = sentences(others, &spec(ours, traffic)).pop().unwrap();
            said.split_once("lowest rate holds: ").unwrap().1.to_owned()
        };
        let same = |text| other(Relation::Same, "/a/b", text);
        let theirs = "(that of process 7 (chadthrottle))";
        // The new limit covers all traffic, and a lower one covers part of it.
        let all = [same("123K")];
        assert_eq!(last(&all, "50K", Traffic::Local), "for local traffic 50 kB/s (this limit)");
        assert_eq!(
            last(&all, "200K", Traffic::Local),
            format!("for local traffic 123 kB/s {theirs}")
        );
        // The same limits in the other order.
        let local = [of(Some(Traffic::Local), same("50K"))];
        assert_eq!(
            last(&local, "123K", Traffic::All),
            format!(
                "for internet traffic 123 kB/s (this limit), for local traffic 50 kB/s {theirs}"
            )
        );
        assert_eq!(last(&local, "10K", Traffic::All), "10 kB/s (this limit)");
        let unknown = [of(None, same("50K")), same("100K")];
        assert_eq!(
            last(&unknown, "200K", Traffic::All),
            format!("100 kB/s {theirs}; for some traffic perhaps 50 kB/s {theirs}")
        );
    }

    #[test]
    fn below_it_is_said_for_which_traffic_the_lower_rate_holds() {
        let said = |other_is, ours_is| {
            let below = of(other_is, other(Relation::Below, "/a/b/c", "300K"));
            let mut said = sentences(&[below], &spec("1M", ours_is));
            said.remove(0).split_once("the lower rate holds ").unwrap().1.to_owned()
        };
        let local = "there for local traffic: 300 kB/s";
        assert_eq!(said(Some(Traffic::Local), Traffic::All), local);
        assert_eq!(said(Some(Traffic::All), Traffic::Local), local);
        assert_eq!(said(Some(Traffic::Local), Traffic::Local), local);
        assert_eq!(said(Some(Traffic::All), Traffic::All), "there: 300 kB/s");
        assert_eq!(said(None, Traffic::All), "there for what both are about: 300 kB/s");
    }

    #[test]
    fn one_that_is_out_of_sight_is_said_to_be_above_once() {
        let hidden = [other(Relation::Above, "cgroup 7 above this mount", "300K")];
        let said = sentences(&hidden, &spec("1M", Traffic::All));
        assert!(said[0].starts_with("upload: cgroup 7 above this mount has a limit "), "{said:?}");
    }

    #[test]
    fn programs_that_run_beside_the_limit_are_named_with_the_kind_of_their_list() {
        let program = |id, attach_type| Beside {
            id: ProgramId(id),
            name: Some("sd_fw".to_owned()),
            attach_type,
            mode: ListMode::Multi,
            cgroup: "/a".into(),
        };
        let (ingress, egress) = (AttachType::INET_INGRESS, AttachType::INET_EGRESS);
        let spec = spec("1M", Traffic::All);
        assert_eq!(
            beside(&[program(7, egress), program(8, ingress)], &spec, &[]).unwrap(),
            "beside this limit other programs run: program 7 'sd_fw' of /a (cgroup_inet_egress, multi)"
        );
        assert_eq!(beside(&[program(8, ingress)], &spec, &[]), None, "of the other direction");
        let gone = Neighbour {
            id: ProgramId(7),
            name: None,
            tag: None,
            attach_type: egress,
            cgroup: None,
        };
        assert_eq!(beside(&[program(7, egress)], &spec, &[gone]), None, "it is out of force");
        let many: Vec<_> = (1..=7).map(|id| program(id, egress)).collect();
        assert!(beside(&many, &spec, &[]).unwrap().ends_with("; and 2 more"));
    }

    #[test]
    fn of_many_the_lowest_are_named() {
        let many: Vec<_> = (1..=9)
            .map(|n| other(Relation::Below, &format!("/a/b/{n}"), &format!("{n}M")))
            .collect();
        let said = sentences(&many, &spec("1G", Traffic::All));
        assert_eq!(said.len(), NAMED + 1);
        assert!(said[0].contains("/a/b/1 "), "{said:?}");
        assert!(said[NAMED].contains("beside these: 4"), "{said:?}");
    }
}
