//! How a throttle is attached, decided once from facts and the user's wish.

use std::fmt;

use bpf::probe::Support;

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// The safest that the kernel has.
    #[default]
    Auto,
    /// [`Mode::Link`] or nothing.
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
    /// Why it is not what one might expect.
    pub note: Option<&'static str>,
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
    /// No place for pins.
    #[error("a pinned throttle needs a bpffs: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs,
}

/// Decides. What was asked for is done or refused, never replaced by something else.
///
/// # Errors
/// When the facts do not allow the wish.
pub fn decide(wish: Wish, facts: &Facts) -> Result<Decision, Refusal> {
    let plain = |mode| Decision { mode, note: None };
    match wish {
        Wish::Legacy => Ok(plain(Mode::Legacy)),
        Wish::Auto if !facts.support.links => Ok(Decision {
            mode: Mode::Legacy,
            note: Some(
                "this kernel has no BPF links (they came with Linux 5.7): attached the legacy way, \
                 which a crash leaves behind until the next start",
            ),
        }),
        Wish::Link | Wish::Pinned if !facts.support.links => Err(Refusal::NoLinks),
        Wish::Pinned if !facts.bpffs => Err(Refusal::NoBpffs),
        Wish::Pinned => Ok(plain(Mode::Pinned)),
        Wish::Auto | Wish::Link => Ok(plain(Mode::Link)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(links: bool, bpffs: bool) -> Facts {
        let support =
            Support { links, link_detach: links, program_flags: false, expected_revision: false };
        Facts { support, bpffs }
    }

    #[test]
    fn auto_takes_links_where_there_are_any_and_says_so_where_not() {
        let modern = decide(Wish::Auto, &facts(true, false)).unwrap();
        assert_eq!(modern, Decision { mode: Mode::Link, note: None });
        let old = decide(Wish::Auto, &facts(false, true)).unwrap();
        assert_eq!(old.mode, Mode::Legacy);
        assert!(old.note.unwrap().contains("5.7"));
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
                    match decide(wish, &facts) {
                        Ok(decision) => {
                            assert_eq!(decision.mode, mode);
                            assert!(links || wish == Wish::Legacy);
                            assert!(facts.bpffs || wish != Wish::Pinned);
                        }
                        Err(Refusal::NoLinks) => assert!(!links && wish != Wish::Legacy),
                        Err(Refusal::NoBpffs) => assert!(links && !bpffs && wish == Wish::Pinned),
                    }
                }
            }
        }
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
    }
}
