//! Deciding how to attach a throttle, from the user's wish and the host's features.

use std::fmt;

use bpf::limits::FqDevices;
use bpf::with_fq;
use kernel::probe::Support;
use kernel::qdisc::Device;

/// The user's wish for attaching programs. The engine grants it or refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// [`Mode::Link`], the safest mode. Every kernel that can run the packet programs has links.
    #[default]
    Link,
    /// [`Mode::Pinned`].
    Pinned,
    /// [`Mode::Legacy`].
    Legacy,
}

/// The way programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Through a BPF link that only this process holds (5.7). The kernel detaches the program when the process ends,
    /// even by SIGKILL.
    Link,
    /// Through a link pinned in a bpffs. The link outlives the process, until somebody removes it or the host restarts.
    Pinned,
    /// Through `BPF_PROG_ATTACH`, without a link. The program stays attached until somebody detaches it. After a crash
    /// the next start does so.
    Legacy,
}

impl Mode {
    /// Tells whether attachments outlive a killed process. The engine then records them in the ledger before it
    /// attaches.
    pub fn outlives_a_crash(self) -> bool {
        self != Mode::Link
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Link => "link",
            Mode::Pinned => "pinned",
            Mode::Legacy => "legacy",
        })
    }
}

/// The user's wish for TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TcpWish {
    /// [`Tcp::Shape`] if the kernel can, else [`Tcp::Police`].
    #[default]
    Auto,
    /// [`Tcp::Shape`], or a refusal.
    Shape,
    /// [`Tcp::Police`].
    Police,
}

/// The way a throttle limits TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tcp {
    /// Paces the cgroup's own sockets, and offers their peers no larger window than the rate needs. Drops packets
    /// only if that is not enough. Needs the kernel's type information (BTF).
    Shape,
    /// Drops packets above the limit, as for all other traffic.
    Police,
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tcp::Shape => "shape",
            Tcp::Police => "police",
        })
    }
}

/// The user's wish for sent packets above the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeparturesWish {
    /// Packets wait in `fq` if a device has it.
    #[default]
    Auto,
    /// Packets wait in `fq`, or a refusal if no device has it.
    Fq,
    /// Packets are dropped.
    Off,
}

/// The host's features that the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's features.
    pub support: Support,
    /// The folder for pins is in a bpffs.
    pub bpffs: bool,
}

/// The decision, with notes for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The mode.
    pub mode: Mode,
    /// The way to limit TCP.
    pub tcp: Tcp,
    /// Notes that explain an unexpected decision.
    pub notes: Vec<&'static str>,
}

/// The reason why the engine cannot grant a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The kernel has no links.
    #[error(
        "this kernel has no BPF links (they came with Linux 5.7); \
         '--attach legacy' works, but a crash then leaves the throttle until the next start"
    )]
    NoLinks,
    /// The kernel has no type information.
    #[error(
        "this kernel does not tell its types (/sys/kernel/btf/vmlinux is missing: it was built without \
         CONFIG_DEBUG_INFO_BTF), so TCP cannot be shaped; '--tcp police' works"
    )]
    NoTypes,
    /// No device has `fq`.
    #[error(
        "no network device sends through fq, so nothing keeps to departure times: \
         'tc qdisc replace dev DEVICE root fq' changes that, '--departures off' does without"
    )]
    NoFq,
    /// The kernel has no `fq`.
    #[error(
        "this kernel has no fq (CONFIG_NET_SCH_FQ), so nothing keeps to departure times: '--departures off' does without"
    )]
    NoFqInKernel,
    /// The mode is not [`Mode::Link`]. A queue has no pin and no ledger entry.
    #[error("a queue for downloads goes with its process, so it needs '--attach link'")]
    QueueNeedsLink,
    /// No folder in a bpffs is available for pins.
    #[error("a pinned throttle needs a bpffs: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs,
}

/// Decides how to attach a throttle. Grants exactly what was asked for, or refuses.
///
/// # Errors
/// When the host lacks a feature that the wish needs.
pub fn decide(wish: Wish, tcp: TcpWish, facts: &Facts) -> Result<Decision, Refusal> {
    let mut notes = Vec::new();
    let mode = match wish {
        Wish::Legacy => Mode::Legacy,
        Wish::Link | Wish::Pinned if !facts.support.links => return Err(Refusal::NoLinks),
        Wish::Pinned if !facts.bpffs => return Err(Refusal::NoBpffs),
        Wish::Pinned => Mode::Pinned,
        Wish::Link => Mode::Link,
    };
    let tcp = match tcp {
        TcpWish::Police => Tcp::Police,
        TcpWish::Auto | TcpWish::Shape if facts.support.tcp => Tcp::Shape,
        TcpWish::Shape => return Err(Refusal::NoTypes),
        TcpWish::Auto => {
            notes.push(
                "this kernel does not tell its types (BTF), so TCP cannot be shaped: its packets above the \
                 limit are dropped, which makes it slower than the limit",
            );
            Tcp::Police
        }
    };
    Ok(Decision { mode, tcp, notes })
}

/// Decides on which devices sent packets above a limit wait in `fq`: those that have it. One such device is enough. On
/// other devices, packets above the burst are dropped.
///
/// # Errors
/// When the wish demands `fq` and no device has it.
pub fn departures(wish: DeparturesWish, devices: &[Device]) -> Result<FqDevices, Refusal> {
    let (known, _) = with_fq(devices);
    match (wish, known.iter().map(|device| device.number).collect::<FqDevices>()) {
        (DeparturesWish::Off, _) => Ok(FqDevices::NONE),
        (DeparturesWish::Fq, none) if none.is_empty() => Err(Refusal::NoFq),
        (DeparturesWish::Auto | DeparturesWish::Fq, known) => Ok(known),
    }
}

/// Returns the reason why no device has `fq`. If the kernel is known to lack `fq`, the message does not advise to use
/// it.
pub fn no_fq(kernel_has_it: Option<bool>) -> Refusal {
    if kernel_has_it == Some(false) { Refusal::NoFqInKernel } else { Refusal::NoFq }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fq_is_recommended_unless_the_kernel_is_known_to_have_none() {
        for known in [None, Some(true)] {
            assert!(no_fq(known).to_string().contains("tc qdisc replace dev DEVICE root fq"));
        }
        let none = no_fq(Some(false)).to_string();
        assert!(none.contains("CONFIG_NET_SCH_FQ") && !none.contains("tc qdisc"), "{none}");
        assert!(none.contains("--departures off"), "{none}");
    }

    #[test]
    fn packets_wait_where_a_device_has_fq() {
        let device = |number, kinds: &[&str]| Device {
            number,
            name: "eth0".to_owned(),
            qdiscs: kinds.iter().map(|&kind| kind.to_owned()).collect(),
        };
        let with = [device(2, &["pfifo_fast"]), device(3, &["mq", "fq"]), device(5, &["fq"])];
        let without = [device(2, &["mq", "fq_codel"]), device(3, &[])];
        let (fq, none) = ([3, 5].into_iter().collect(), FqDevices::NONE);
        assert_eq!(departures(DeparturesWish::Auto, &with), Ok(fq));
        assert_eq!(departures(DeparturesWish::Auto, &without), Ok(none));
        assert_eq!(departures(DeparturesWish::Fq, &with), Ok(fq));
        assert_eq!(departures(DeparturesWish::Fq, &without), Err(Refusal::NoFq));
        assert_eq!(departures(DeparturesWish::Off, &with), Ok(none));
        // In another network namespace, the device with the same number has no fq. The number still counts.
        assert_eq!(departures(DeparturesWish::Auto, &[&with[..], &without].concat()), Ok(fq));
    }

    fn facts(links: bool, bpffs: bool) -> Facts {
        let support = Support { links, program_flags: false, expected_revision: false, tcp: links };
        Facts { support, bpffs }
    }

    #[test]
    fn auto_takes_the_best_that_there_is_and_says_so_where_that_is_not_much() {
        let modern = decide(Wish::default(), TcpWish::Auto, &facts(true, false)).unwrap();
        assert_eq!(modern, Decision { mode: Mode::Link, tcp: Tcp::Shape, notes: Vec::new() });
        let old = decide(Wish::Legacy, TcpWish::Auto, &facts(false, true)).unwrap();
        assert_eq!((old.mode, old.tcp), (Mode::Legacy, Tcp::Police));
        let [types] = old.notes[..] else { panic!("{:?}", old.notes) };
        assert!(types.contains("BTF"));
    }

    #[test]
    fn a_wish_is_granted_or_refused_never_replaced() {
        for links in [false, true] {
            for bpffs in [false, true] {
                let facts = facts(links, bpffs);
                for (wish, mode) in [
                    (Wish::Link, Mode::Link),
                    (Wish::Pinned, Mode::Pinned),
                    (Wish::Legacy, Mode::Legacy),
                ] {
                    match decide(wish, TcpWish::Police, &facts) {
                        Ok(decision) => {
                            assert_eq!((decision.mode, decision.tcp), (mode, Tcp::Police));
                            assert!(links || wish == Wish::Legacy);
                            assert!(facts.bpffs || wish != Wish::Pinned);
                        }
                        Err(Refusal::NoLinks) => assert!(!links && wish != Wish::Legacy),
                        Err(Refusal::NoBpffs) => assert!(links && !bpffs && wish == Wish::Pinned),
                        Err(other) => panic!("not asked for: {other}"),
                    }
                }
            }
        }
    }

    #[test]
    fn who_insists_on_shaping_gets_it_or_is_told_why_not() {
        let asked = |has| decide(Wish::Legacy, TcpWish::Shape, &facts(has, true));
        assert_eq!(asked(true).unwrap().tcp, Tcp::Shape);
        assert_eq!(asked(false), Err(Refusal::NoTypes));
    }

    #[test]
    fn only_a_link_goes_with_its_process() {
        assert!(!Mode::Link.outlives_a_crash());
        assert!(Mode::Pinned.outlives_a_crash() && Mode::Legacy.outlives_a_crash());
    }

    #[test]
    fn a_mode_is_called_as_its_option_is() {
        let names = [Mode::Link, Mode::Pinned, Mode::Legacy].map(|mode| format!("{mode:<7}"));
        assert_eq!(names, ["link   ", "pinned ", "legacy "]);
        assert_eq!([Tcp::Shape, Tcp::Police].map(|it| format!("{it:<6}|")), ["shape |", "police|"]);
    }
}
