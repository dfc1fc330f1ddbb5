//! How a throttle is attached, decided once from facts and the user's wish.

use std::fmt;

use bpf::limits::FqDevices;
use bpf::with_fq;
use kernel::probe::Support;
use kernel::qdisc::Device;

/// How the user wants programs to be attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// [`Mode::Link`] or nothing: the safest. Every kernel that runs the packet programs has links.
    #[default]
    Link,
    /// [`Mode::Pinned`] or nothing.
    Pinned,
    /// [`Mode::Legacy`] or nothing.
    Legacy,
}

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Through a BPF link that this process holds (5.7): however the process ends, SIGKILL included, the
    /// kernel detaches the program.
    Link,
    /// Through a link pinned in a bpffs: meant to outlive the process, until it is removed or the host
    /// restarts.
    Pinned,
    /// `BPF_PROG_ATTACH`: stays until it is detached. After a crash the next start detaches it.
    Legacy,
}

impl Mode {
    /// Whether attachments of this mode outlive a process that is killed, and so must be written ahead.
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

/// What the user asked for TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TcpWish {
    /// Shape it where the kernel can.
    #[default]
    Auto,
    /// [`Tcp::Shape`] or nothing.
    Shape,
    /// [`Tcp::Police`].
    Police,
}

/// How TCP is held to the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tcp {
    /// Its own sockets are paced, and who sends to them is offered no larger window than the rate needs; packets
    /// are dropped only where that does not suffice. Needs a kernel that tells its types (BTF).
    Shape,
    /// As everything else: packets above the limit are dropped.
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

/// What the user asked for packets that are sent above the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeparturesWish {
    /// They wait in `fq` where a device has it.
    #[default]
    Auto,
    /// The same, or nothing.
    Fq,
    /// They are dropped.
    Off,
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What the kernel can do.
    pub support: Support,
    /// The folder for pins is on a bpffs.
    pub bpffs: bool,
}

/// A decision, and what the user should know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The mode.
    pub mode: Mode,
    /// How TCP is held to the limit.
    pub tcp: Tcp,
    /// Why it is not what one might expect.
    pub notes: Vec<&'static str>,
}

/// Why a wish cannot be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No links.
    #[error(
        "this kernel has no BPF links (they came with Linux 5.7); \
         '--attach legacy' works, but a crash then leaves the throttle until the next start"
    )]
    NoLinks,
    /// No types.
    #[error(
        "this kernel does not tell its types (/sys/kernel/btf/vmlinux is missing: it was built without \
         CONFIG_DEBUG_INFO_BTF), so TCP cannot be shaped; '--tcp police' works"
    )]
    NoTypes,
    /// No `fq`.
    #[error(
        "no network device sends through fq, so nothing keeps to departure times: \
         'tc qdisc replace dev DEVICE root fq' changes that, '--departures off' does without"
    )]
    NoFq,
    /// No `fq` at all.
    #[error(
        "this kernel has no fq (CONFIG_NET_SCH_FQ), so nothing keeps to departure times: '--departures off' does without"
    )]
    NoFqInKernel,
    /// A queue has no pin and no record.
    #[error("a queue for downloads goes with its process, so it needs '--attach link'")]
    QueueNeedsLink,
    /// No place for pins.
    #[error("a pinned throttle needs a bpffs: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs,
}

/// Decides. What was asked for is done or refused, never replaced by something else.
///
/// # Errors
/// When the facts do not allow the wish.
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

/// Decides through which devices what is sent above a limit is to wait in `fq`: those that have it. One is enough; what
/// leaves through another is dropped above the burst.
///
/// # Errors
/// When it was asked for and no device has it.
pub fn departures(wish: DeparturesWish, devices: &[Device]) -> Result<FqDevices, Refusal> {
    let (known, _) = with_fq(devices);
    match (wish, known.iter().map(|device| device.number).collect::<FqDevices>()) {
        (DeparturesWish::Off, _) => Ok(FqDevices::NONE),
        (DeparturesWish::Fq, none) if none.is_empty() => Err(Refusal::NoFq),
        (DeparturesWish::Auto | DeparturesWish::Fq, known) => Ok(known),
    }
}

/// Why no device has `fq`, if it is known whether the kernel has it: nobody is advised to use what is not there.
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
        // Another network namespace, whose device of the same number has none: it counts.
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
