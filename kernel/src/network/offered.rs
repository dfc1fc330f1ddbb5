//! Finds out whether this kernel has `fq` and `ifb`, by trying.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::errno::Errno;

use crate::error::Result;
use crate::network::links::{left_by_the_module, take_back_the_modules};
use crate::network::netns;
use crate::network::rtnetlink::tell;

/// The number of the loopback device, in every network namespace.
const LOOPBACK: i32 = 1;

/// The kernel's features for packets that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// The kernel has the qdisc `fq` (`CONFIG_NET_SCH_FQ`).
    pub fq: bool,
    /// The kernel has `ifb` devices (`CONFIG_IFB`).
    pub ifb: bool,
}

/// Tries `fq` and `ifb` in a new network namespace, which ends with the trial. The kernel may load its modules, as it
/// would for a limit.
///
/// Needs `CAP_SYS_ADMIN` for the namespace, and `CAP_NET_ADMIN`.
///
/// # Errors
/// When there is no new namespace, or when the kernel refuses for another reason than a missing feature.
pub fn offered() -> Result<Offered> {
    let before = left_by_the_module()?;
    let tried = netns::in_a_new_one(|| Ok(Offered { fq: has_fq()?, ifb: has_ifb()? }));
    take_back_the_modules(before.as_ref())?;
    tried
}

fn has_fq() -> Result<bool> {
    let mut qdisc = TcMessage::with_index(LOOPBACK);
    qdisc.header.parent = TcHandle::ROOT;
    qdisc.attributes = vec![TcAttribute::Kind("fq".to_owned())];
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc);
    answer(tell(message, NLM_F_CREATE | NLM_F_EXCL, "fq on a loopback device"), Errno::ENOENT)
}

fn has_ifb() -> Result<bool> {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName("chadtry".to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    let message = RouteNetlinkMessage::NewLink(link);
    answer(tell(message, NLM_F_CREATE | NLM_F_EXCL, "an ifb device"), Errno::EOPNOTSUPP)
}

/// Interprets a trial. `none` is the errno with which the kernel says that it does not know the kind.
fn answer(tried: Result<()>, none: Errno) -> Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == none => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::error::{Call, Error};

    #[test]
    fn only_the_kernels_own_word_for_it_is_taken_for_no() {
        fn failed<T>(errno: Errno) -> Result<T> {
            Err(Error::new(Call::Netlink, "x", errno))
        }
        assert_eq!(answer(Ok(()), Errno::ENOENT), Ok(true));
        assert_eq!(answer(failed(Errno::ENOENT), Errno::ENOENT), Ok(false));
        assert_eq!(answer(failed(Errno::EPERM), Errno::ENOENT), failed(Errno::EPERM));
    }

    #[test]
    fn root_what_is_offered_is_what_tc_and_ip_can_make_and_nothing_of_the_trial_is_seen() {
        testkit::isolation::isolate();
        let devices =
            || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count();
        let before = devices();
        let offered = offered().unwrap();
        assert_eq!(devices(), before);
        let can = |words: &str| {
            let words: Vec<_> = words.split(' ').collect();
            Command::new(words[0]).args(&words[1..]).output().unwrap().status.success()
        };
        assert_eq!(offered.fq, can("tc qdisc add dev lo root fq"));
        assert_eq!(offered.ifb, can("ip link add chadtest0 type ifb"));
        // This namespace's loopback device has kept its qdisc.
        assert_eq!(can("tc qdisc del dev lo root"), offered.fq);
    }
}
