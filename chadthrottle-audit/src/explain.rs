//! Has a page of text for each finding.

use auditor::judge::Finding;

/// The text about one finding.
struct Page {
    means: &'static str,
    comes_about: &'static str,
    does: &'static str,
    by_hand: &'static str,
    clean: &'static str,
}

/// Returns the page for people: what the finding means, how it comes about and what it does to the host. The page also
/// says how to see it by hand and what `clean` does about it.
pub(crate) fn explain(finding: Finding) -> String {
    let page = page(finding);
    let kind = if finding.is_leak() { "a leak" } else { "no leak" };
    let sections = [
        ("What it means", page.means),
        ("How it comes about", page.comes_about),
        ("What it does to the host", page.does),
        ("How to see it by hand", page.by_hand),
        ("What clean does about it", page.clean),
    ];
    let mut lines = vec![format!("{finding}: {kind}")];
    for (title, text) in sections {
        lines.extend([String::new(), title.to_owned()]);
        lines.extend(text.lines().map(|line| format!("  {line}")));
    }
    lines.join("\n") + "\n"
}

/// Returns the finding in one sentence.
pub(crate) fn summary(finding: Finding) -> String {
    let means = page(finding).means.replace('\n', " ");
    match means.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => means,
    }
}

/// The advice about something unowned. It names no command, because whoever made the thing may need it.
pub(crate) const UNOWNED_ADVICE: &str =
    "find out who made it before anything is done about it: `chadthrottle-audit explain unowned`";

const NOTHING: &str = "Nothing.";

fn page(finding: Finding) -> Page {
    match finding {
        Finding::Active => Page {
            means: "A program of ours is attached, or loaded to be attached, and its owner lives and\nmeans it. So is a network device of a queue whose owner lives.",
            comes_about: "Somebody throttles a process or a cgroup right now.",
            does: "What it is there for: it limits the traffic of the cgroup and of all below it.\n\
                   It uses one of the 64 slots of its cgroup and attach type.",
            by_hand: "bpftool cgroup tree\nbpftool prog show id ID     (the owner is in its metadata)",
            clean: NOTHING,
        },
        Finding::Pinned => Page {
            means: "A program of ours is kept beyond its owner's end on purpose: the ledger under\n\
                    /run/chadthrottle says so, for this boot, this program and this cgroup.",
            comes_about: "A throttle was made to persist.",
            does: "What it is there for, until it is removed by name or the host restarts.",
            by_hand: "bpftool -f link show        (-f: with pins)\nls /sys/fs/bpf/chadthrottle\ncat /run/chadthrottle/*.json",
            clean: "Nothing. Remove the throttle itself if it is no longer wanted.",
        },
        Finding::Waiting => Page {
            means: "The cgroup of a throttle was removed, and the throttle is meant: the ledger says that it\n\
                    waits for another cgroup at the same path.",
            comes_about: "A service that is limited was stopped or is restarting. A living 'chadthrottle limit'\n\
                          follows the path by itself. A pinned throttle has to be armed again:\n\
                          'chadthrottle rearm' does it.",
            does: "It limits only sockets of the removed cgroup that are still open. Its programs and its\n\
                   links take memory, and no slot of any cgroup.",
            by_hand: "bpftool -f link show        (cgroup_id 0)\nchadthrottle list\ncat /run/chadthrottle/*.json",
            clean: "Nothing. 'chadthrottle rm' ends a pinned one.",
        },
        Finding::Foreign => Page {
            means: "A program whose name is none of ours, or one whose info could not be read.",
            comes_about: "systemd, container runtimes and others attach programs to cgroups as well.",
            does: "Whatever its owner wants.",
            by_hand: "bpftool cgroup tree",
            clean: "Nothing, ever. --program GLOB lists the programs of that name as unowned.",
        },
        Finding::Unowned => Page {
            means: "Nothing says whose the program is: its metadata names no owner, no record of ours has\n\
                    it, and its name is not chadthrottle's. --program GLOB asked for it by name.",
            comes_about: "Every tool but ours attaches such programs. Many mean them to stay without a process:\n\
                          a container runtime attaches a device filter and exits, others pin what is to stay.\n\
                          A program that was forgotten looks exactly like that.",
            does: "Whatever its maker wants. It uses one of the 64 slots of its cgroup and attach type. If\n\
                   it is a filter, removing it may open what it closes.",
            by_hand: "bpftool cgroup tree\nbpftool -f prog show id ID  (its pins, and the pids that hold it)\n\
                      bpftool prog dump xlated id ID\njournalctl --since LOADED   (who ran when it was loaded)",
            clean: "Nothing. Find out who made it, and remove it with that tool. clean --force ID, with the\n\
                    same --program, removes one by its id, and asks for each. What a process holds, what is\n\
                    pinned elsewhere than in our folder, and the last program of a place on a cgroup with\n\
                    processes stay all the same.",
        },
        Finding::Unknown => Page {
            means: "A program of ours is attached, or a queue of ours has a network device, and the audit\n\
                    could not see whether somebody means it. It may be in use, or a leak.",
            comes_about: "The audit lacked a right, a policy refused a call, its owner is in another pid\n\
                          namespace, or it changed between two looks. The report names what was not seen,\n\
                          and the exit status is 2 where there is no leak beside it.",
            does: "What an active one does, or what an orphaned one does.",
            by_hand: "chadthrottle-audit scan      (on the host, as root; it says what it could not see)",
            clean: "Nothing: it removes only what is known to be a leak.",
        },
        Finding::OrphanedAttachment => Page {
            means: "A program of ours is attached, but its owner is dead and neither a pin nor the\n\
                    ledger says that it is meant to stay. Most often it was attached the legacy way.",
            comes_about: "A legacy attachment outlives its process. The owner was killed, crashed, or failed to\n\
                          detach it and did not notice. A link ends with its last file descriptor, so one is\n\
                          here only if another process inherited or took that descriptor.",
            does: "It goes on throttling people who no longer asked for it, for as long as the cgroup\n\
                   exists. It uses one of the 64 slots of its cgroup and attach type; when they are used\n\
                   up, nobody can attach anything there (E2BIG).",
            by_hand: "bpftool cgroup show /sys/fs/cgroup/PATH\nbpftool prog show id ID     (the owner's pid is in its metadata)\nbpftool link show           (no link of that program on that cgroup)",
            clean: "It makes sure that it is the same program and that its owner is still gone, and\n\
                    detaches it. By hand: bpftool cgroup detach /sys/fs/cgroup/PATH ATTACH_TYPE id ID",
        },
        Finding::StackedDuplicate => Page {
            means: "More programs of ours are on one cgroup and attach type than their owner means to\n\
                    have: the same program twice, or an older program of the same name and owner.",
            comes_about: "A throttle was changed by attaching a new program, and detaching the old one failed\n\
                          or was forgotten; or a link was made where a legacy attachment was before.",
            does: "Every program in the list runs, so the strictest of them limits: the new rate does not\n\
                   take effect, or packets are counted twice. Each uses one of 64 slots.",
            by_hand: "bpftool cgroup show /sys/fs/cgroup/PATH     (one name several times)",
            clean: "It detaches all but the one that is meant: the newest, and a link rather than a\n\
                    legacy attachment.",
        },
        Finding::DisarmedAttachment => Page {
            means: "The program is attached and its owner lives, but has switched this throttle off.",
            comes_about: "An owner disarms a throttle before detaching it. The detaching then failed, or the\n\
                          owner hangs.",
            does: "Nothing is limited any more, but every packet still runs through the program, and it\n\
                   uses one of the 64 slots of its cgroup and attach type.",
            by_hand: "bpftool prog show id ID     (for its map ids)\nbpftool map dump id MAP     (the state of that cgroup: armed is 0)",
            clean: "It detaches it. If the owner holds a link, the defunct link stays with the owner until\n\
                    it closes it.",
        },
        Finding::OrphanedPin => Page {
            means: "A file in a bpffs holds a program or a link of ours, but its owner is dead and the\n\
                    ledger does not say that it is meant to stay.",
            comes_about: "The owner was killed between pinning and recording, or between removing the record\n\
                          and the pin; or somebody removed the ledger's file.",
            does: "A pinned link goes on throttling, and uses one of 64 slots. A pinned program that is\n\
                   attached nowhere only takes memory.",
            by_hand: "bpftool -f link show        (-f: with pins)\nbpftool -f prog show\nls /sys/fs/bpf/chadthrottle /run/chadthrottle",
            clean: "It detaches what is attached, makes sure that the pin still holds the same thing, and\n\
                    removes the file.",
        },
        Finding::DefunctLink => Page {
            means: "A link that attaches nothing any more, but still exists and holds its program.",
            comes_about: "Its cgroup was removed, or somebody detached the link, while a process or a pin still\n\
                          has it.",
            does: "Nothing is limited. The program, its maps and the link stay in memory.",
            by_hand: "bpftool link show           (cgroup_id 0, or an id that no cgroup has)\nfind /sys/fs/cgroup -inum CGROUP_ID",
            clean: "It removes the pin, if that is what keeps it. A link that is open in a process ends\n\
                    only when the process closes it or ends: clean names the process and exits with 1.",
        },
        Finding::UnattachedProgram => Page {
            means: "A program of ours is loaded but attached nowhere, and its owner throttles nothing.",
            comes_about: "The owner removed its last throttle and kept the program, or could not attach it; or\n\
                          a process inherited the file descriptor of an owner that is gone; or it is pinned.",
            does: "Nothing is limited. The program and its maps stay in memory.",
            by_hand: "bpftool -f prog show id ID  (its pins, and the pids that hold it)\nbpftool cgroup tree         (it is nowhere in there)",
            clean: "It removes the pin, if that is what keeps it. What is open in a process ends only when\n\
                    the process closes it or ends: clean names the process and exits with 1.",
        },
        Finding::UnreachableProgram => Page {
            means: "A program or link of ours exists in the kernel, but nothing that keeps it there can be\n\
                    seen: no process, no pin and, for a program, no attachment.",
            comes_about: "It is attached to a cgroup that was removed but whose last socket is still open; or a\n\
                          process, a pin or a cgroup in another namespace has it; or another program's map or a\n\
                          file descriptor in flight between processes refers to it.",
            does: "On a dying cgroup it limits what is left of its sockets. A link that attaches it goes on\n\
                   throttling. Otherwise it only takes memory.",
            by_hand: "bpftool prog show id ID\nbpftool link show\ngrep -s prog_id: /proc/[0-9]*/fdinfo/*     (as root, on the host)\nfindmnt -t bpf              (other mounts of bpffs)",
            clean: "Nothing: whatever holds it is out of sight, and so may be the record that means it. It\n\
                    says what it knows and exits with 1. End it where it is held: in another mount, pid\n\
                    or cgroup namespace, or by ending the process that has it.",
        },
        Finding::OrphanedDevice => Page {
            means: "A network device that a queue for downloads was made of (ifb, chadq and a pid) is still\n\
                    there, but the owner that its alias names is dead.",
            comes_about: "The owner was killed. Its links ended with it, but a network device belongs to its\n\
                          network namespace, and stays until somebody removes it.",
            does: "Nothing goes through it any more: it is idle, and takes memory, a name and a place in\n\
                   every list of interfaces. What waited in it has been sent on.",
            by_hand: "ip -d link show type ifb    (the owner is in the alias)\nps -p PID",
            clean: "It makes sure that the device with that number still has the same name and alias and\n\
                    that its owner is still gone, removes it by its number, and looks whether it is gone.\n\
                    The next queue in that network namespace would do so, too. One that only has such a\n\
                    name is somebody else's. By hand: ip link delete NAME",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_names_its_finding_and_has_lines_of_a_readable_length() {
        for finding in Finding::ALL {
            let text = explain(finding);
            assert!(text.starts_with(finding.name()), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 92, "{finding}: {line}");
            }
        }
    }
}
