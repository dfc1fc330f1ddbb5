//! Finds the devices where packets above an upload limit wait in `fq`, and tells the user about them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use bpf::advice::explained;
use bpf::limits::FqDevices;
use bpf::with_fq;
use kernel::qdisc::Device;
use terminal::escape;
use throttle_core::mode::{self, DeparturesWish, Refusal};

use crate::words::{say, warn};

/// Looks for devices with `fq`, prints what it found, and returns the devices. Processes of the limited cgroup may have
/// devices of their own, so it looks at those.
///
/// # Errors
/// Fails if the user insists on `fq` and no device has it, or if the devices cannot be seen.
pub(crate) fn departures(cgroup: &Path, wish: DeparturesWish) -> Result<FqDevices> {
    let has_fq = || kernel::offered::offered().ok().map(|it| it.fq);
    let Found { known, notes, warning } = find(cgroup, wish, kernel::qdisc::devices, has_fq)?;
    warning.as_deref().into_iter().for_each(warn);
    notes.iter().map(String::as_str).for_each(say);
    Ok(known)
}

/// The devices that were found, and the messages about them.
#[derive(Debug)]
struct Found {
    known: FqDevices,
    notes: Vec<String>,
    warning: Option<String>,
}

/// Finds the devices with `fq`. `devices` lists the devices of a cgroup's processes, or the caller's own for `None`.
/// `has_fq` tells whether the kernel has `fq`; `None` means unknown.
fn find(
    cgroup: &Path,
    wish: DeparturesWish,
    devices: impl FnOnce(Option<&Path>) -> kernel::Result<Vec<Device>>,
    has_fq: impl FnOnce() -> Option<bool>,
) -> Result<Found> {
    if wish == DeparturesWish::Off {
        return Ok(Found { known: FqDevices::NONE, notes: Vec::new(), warning: None });
    }
    let (devices, warning) = match devices(Some(cgroup)) {
        Ok(devices) => (devices, None),
        // The limit holds without `fq` as well.
        Err(error) if wish == DeparturesWish::Auto => {
            let warning = format!(
                "which queueing disciplines there are cannot be seen, so what is sent above the limit is dropped: {}",
                explained(&error)
            );
            (Vec::new(), Some(warning))
        }
        Err(error) => return Err(throttle_core::Error::from(error).into()),
    };
    let known = mode::departures(wish, &devices).map_err(|refusal| match refusal {
        Refusal::NoFq => mode::no_fq(has_fq()),
        other => other,
    });
    let known = known.map_err(throttle_core::Error::from)?;
    let mut notes = Vec::new();
    if !known.is_empty() {
        let (waiting, more) = with_fq(&devices);
        notes.push(format!("what is sent above the limit waits in fq on {}", names(&waiting)));
        if !more.is_empty() {
            let most = FqDevices::MOST;
            let more = names(&more);
            notes.push(format!("a limit knows {most} devices with fq, so not on {more}"));
        }
    }
    Ok(Found { known, notes, warning })
}

/// Lists the names of devices, each once. Several network namespaces may have devices with the same name.
fn names(devices: &[&Device]) -> String {
    let names: BTreeSet<_> = devices.iter().map(|it| escape(&it.name)).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use kernel::error::{Call, Error};
    use nix::errno::Errno;

    use super::*;
    use crate::words::exit_status;

    const CONTAINER: &str = "/sys/fs/cgroup/container";
    const WISHES: [DeparturesWish; 3] =
        [DeparturesWish::Auto, DeparturesWish::Fq, DeparturesWish::Off];

    fn device(number: u32, name: &str, kind: &str) -> Device {
        Device { number, name: name.to_owned(), qdiscs: vec![kind.to_owned()] }
    }

    /// Returns what is found if the container has these devices and the host has others.
    fn found(wish: DeparturesWish, devices: &[Device]) -> Result<Found> {
        let of = |cgroup: Option<&Path>| match cgroup {
            Some(cgroup) if cgroup == Path::new(CONTAINER) => Ok(devices.to_vec()),
            _ => Ok(vec![device(2, "host0", "fq"), device(3, "host1", "pfifo_fast")]),
        };
        find(Path::new(CONTAINER), wish, of, || Some(true))
    }

    #[test]
    fn the_devices_are_those_of_the_cgroups_processes() {
        let devices = [device(3, "eth0", "fq"), device(2, "eth1", "noqueue")];
        for wish in [DeparturesWish::Auto, DeparturesWish::Fq] {
            let Found { known, notes, warning } = found(wish, &devices).unwrap();
            assert_eq!((known.contains(3), known.contains(2)), (true, false));
            assert_eq!(notes, ["what is sent above the limit waits in fq on eth0"]);
            assert_eq!(warning, None);
            if wish == DeparturesWish::Auto {
                let none = found(wish, &devices[1..]).unwrap();
                assert!(none.known.is_empty() && none.notes.is_empty(), "{none:?}");
            } else {
                let refused = found(wish, &devices[1..]).unwrap_err();
                assert_eq!(exit_status(&refused), 1);
                assert!(refused.to_string().contains("tc qdisc replace"), "{refused}");
            }
        }
    }

    #[test]
    fn who_insists_on_fq_is_told_whether_the_kernel_has_it() {
        let refused = |has| {
            let none = |_: Option<&Path>| Ok(Vec::new());
            let refused = find(Path::new(CONTAINER), DeparturesWish::Fq, none, || has);
            refused.unwrap_err().to_string()
        };
        assert!(refused(Some(false)).contains("CONFIG_NET_SCH_FQ"));
        assert!([Some(true), None].iter().all(|has| refused(*has).contains("tc qdisc replace")));
    }

    #[test]
    fn where_the_devices_cannot_be_seen_only_who_insists_on_fq_is_refused() {
        for wish in WISHES {
            let unseen = |_: Option<&Path>| Err(Error::new(Call::Netlink, "x", Errno::EAGAIN));
            let found = find(Path::new(CONTAINER), wish, unseen, || Some(true));
            match (wish, found) {
                (DeparturesWish::Fq, Err(error)) => {
                    assert_eq!(exit_status(&error), 1);
                    assert!(error.to_string().contains("EAGAIN"), "{error}");
                }
                (DeparturesWish::Auto, Ok(Found { known, notes, warning })) => {
                    assert!(known.is_empty() && notes.is_empty());
                    assert!(warning.unwrap().contains("is dropped: "));
                }
                (DeparturesWish::Off, Ok(Found { known, notes, warning })) => {
                    assert!(known.is_empty() && notes.is_empty() && warning.is_none());
                }
                (_, other) => panic!("{wish:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_of_several_namespaces_are_told_once_and_what_is_beyond_the_limit_as_well() {
        let most = u32::try_from(FqDevices::MOST).unwrap();
        let named = |number| device(number, &format!("v{number:02}"), "fq");
        let mut devices: Vec<_> = (1..=most + 2).map(named).collect();
        devices.push(device(1, "v01", "fq"));
        let Found { known, notes, .. } = found(DeparturesWish::Auto, &devices).unwrap();
        assert!((1..=most).all(|it| known.contains(it)) && !known.contains(most + 1));
        let all = |from: u32, to: u32| {
            (from..=to).map(|it| format!("v{it:02}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(
            notes[0],
            format!("what is sent above the limit waits in fq on {}", all(1, most))
        );
        assert!(notes[1].ends_with(&format!("so not on {}", all(most + 1, most + 2))), "{notes:?}");
        assert_eq!(notes.len(), 2);
        let odd = [device(1, "e\x1b", "fq")];
        assert!(found(DeparturesWish::Auto, &odd).unwrap().notes[0].ends_with("on e\\x1b"));
    }
}
