//! Explains what `--traffic` means for redirected connections, and what was not limited.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bpf::advice::explained;
use bpf::limits::Traffic;
use kernel::AttachType;
use kernel::cgroup::Cgroup;
use kernel::error::Kind;
use kernel::list::{Scope, query};
use terminal::escape;
use throttle_core::Removed;

use crate::words::warn;

/// The attach types where a program may give a connection or a datagram another address.
const REDIRECTS: [&str; 4] =
    ["cgroup_inet4_connect", "cgroup_inet6_connect", "cgroup_udp4_sendmsg", "cgroup_udp6_sendmsg"];

/// The most programs that a message names.
const NAMED: usize = 5;

/// Programs that may redirect connections, by attach type.
type Redirects = BTreeMap<&'static str, BTreeSet<String>>;

/// Prints what a limit on part of the traffic means if programs may redirect the cgroup's connections.
pub(crate) fn tell_of_redirects(cgroup: &Path, traffic: Traffic) {
    if traffic == Traffic::All {
        return;
    }
    let mut found = Redirects::new();
    match redirects(cgroup, Scope::Effective, &mut found) {
        Ok(()) => {
            if let Some(text) = redirected(&found, traffic) {
                warn(&text);
            }
        }
        Err(error) => warn(&format!(
            "whether programs send the connections of this cgroup elsewhere is unknown: {}",
            explained(&error)
        )),
    }
}

/// Collects the programs in force on a cgroup, and those attached below it.
fn redirects(cgroup: &Path, scope: Scope, found: &mut Redirects) -> kernel::Result<()> {
    let unless_gone = |error: kernel::Error| match error.kind() {
        Kind::Vanished => Ok(()),
        _ => Err(error),
    };
    let open = match Cgroup::open(cgroup) {
        Ok(open) => open,
        Err(error) => return unless_gone(error),
    };
    for name in REDIRECTS {
        let Ok(attach_type) = name.parse::<AttachType>() else { continue };
        match query(&open, attach_type, scope, false) {
            Ok(list) => {
                let names = list.programs.iter().map(|program| program_name(program.id));
                let names: Vec<_> = names.collect();
                if !names.is_empty() {
                    found.entry(name).or_default().extend(names);
                }
            }
            Err(error) => return unless_gone(error),
        }
    }
    // A cgroup that disappears meanwhile has none below it.
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            redirects(&entry.path(), Scope::Local, found)?;
        }
    }
    Ok(())
}

/// Returns the program's name. It returns the id if the caller has no right to read the name.
fn program_name(id: kernel::ProgramId) -> String {
    match kernel::objects::program(id) {
        Ok(Some(program)) if !program.info().name.is_empty() => program.whole_name(),
        _ => format!("program {id}"),
    }
}

fn redirected(found: &Redirects, traffic: Traffic) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let names: BTreeSet<_> = found.values().flatten().collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names: Vec<_> = names.into_iter().take(NAMED).map(|name| escape(name)).collect();
    let places: Vec<_> = found.keys().copied().collect();
    let meaning = match traffic {
        Traffic::Internet => {
            "what goes to a local proxy is not limited, wherever the proxy sends it"
        }
        _ => "what goes to a local proxy is limited, wherever the proxy sends it",
    };
    Some(format!(
        "programs may send connections of this cgroup elsewhere ({}{more}, on {}): with --traffic {traffic} a connection \
         counts by the address that it really goes to; {meaning}",
        names.join(", "),
        places.join(", ")
    ))
}

/// Returns the line of the summary that says what "not limited" means. Empty if everything was limited.
pub(crate) fn meaning(traffic: Traffic, removed: &Removed) -> &'static str {
    let is_exempt = removed.directions.values().any(|detached| {
        let counters = detached.counters.as_ref().ok().and_then(Option::as_ref);
        counters.is_some_and(|counters| counters.exempt.packets > 0)
    });
    if is_exempt { not_limited(traffic) } else { "" }
}

fn not_limited(traffic: Traffic) -> &'static str {
    match traffic {
        // Such packets only come before the throttle is armed.
        Traffic::All => "",
        Traffic::Internet => {
            "not limited: what went to or came from local addresses (private, loopback, link-local, multicast), also where \
             a local proxy or VPN sends it on to the internet\n"
        }
        Traffic::Local => {
            "not limited: what went to or came from the internet, that is, addresses that are not private, loopback, \
             link-local or multicast\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_redirects_nothing_is_said() {
        assert_eq!(redirected(&Redirects::new(), Traffic::Internet), None);
    }

    #[test]
    fn a_redirect_is_told_with_the_programs_and_what_it_means() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let found: Redirects = [
            ("cgroup_inet4_connect", names(&["cil_sock4\x1b", "a"])),
            ("cgroup_udp4_sendmsg", names(&["a", "b", "c", "d", "e"])),
        ]
        .into();
        assert_eq!(
            redirected(&found, Traffic::Internet).unwrap(),
            "programs may send connections of this cgroup elsewhere (a, b, c, cil_sock4\\x1b, d and 1 more, on \
             cgroup_inet4_connect, cgroup_udp4_sendmsg): with --traffic internet a connection counts by the address that \
             it really goes to; what goes to a local proxy is not limited, wherever the proxy sends it"
        );
        let local = redirected(&found, Traffic::Local).unwrap();
        assert!(local.contains("--traffic local") && local.contains("proxy is limited"), "{local}");
    }

    #[test]
    fn every_place_of_a_redirect_is_one_that_exists() {
        assert!(REDIRECTS.iter().all(|name| name.parse::<AttachType>().is_ok()));
    }

    #[test]
    fn not_limited_is_explained_by_what_was_asked_for() {
        assert!(not_limited(Traffic::Internet).contains("proxy or VPN"));
        assert!(not_limited(Traffic::Local).contains("the internet"));
        assert_eq!(not_limited(Traffic::All), "");
    }
}
