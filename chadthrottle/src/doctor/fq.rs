//! Judges `fq` on the devices, and whether the kernel has it.

use bpf::limits::FqDevices;
use bpf::with_fq;
use kernel::offered::Offered;
use kernel::qdisc::Device;
use terminal::escape;

use super::facts::Answer;
use super::report::{Check, Grade, check};

/// Judges the devices.
pub(super) fn judge(devices: &[Device], offered: &Answer<Offered>) -> Check {
    let (with, more) = with_fq(devices);
    let without: Vec<_> = devices.iter().filter(|device| !device.keeps_departures()).collect();
    let names = |devices: &[&Device]| {
        devices.iter().map(|device| escape(&device.name)).collect::<Vec<_>>().join(", ")
    };
    let Offer { grade, because, advice } = offer(!with.is_empty(), offered);
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("; nor on {}: a limit knows {} devices with it", names(&more), FqDevices::MOST)
    };
    match (with.as_slice(), without.as_slice()) {
        ([], []) => check("fq", Grade::Lesser, "there is no network device but the loopback", ""),
        ([], without) => {
            let without = names(without);
            let says = format!("what is not TCP is dropped above a limit, on {without}{because}");
            check("fq", grade, says, advice)
        }
        (with, []) if more.is_empty() => {
            check("fq", Grade::Ok, format!("uploads wait in it, on {}", names(with)), "")
        }
        (with, []) => {
            check("fq", Grade::Lesser, format!("uploads wait in it on {}{more}", names(with)), "")
        }
        (with, without) => {
            let (with, without) = (names(with), names(without));
            let says = format!("uploads wait in it on {with}, but not on {without}{more}{because}");
            check("fq", grade, says, advice)
        }
    }
}

/// The advice for a device without `fq`.
struct Offer {
    grade: Grade,
    because: String,
    advice: &'static str,
}

/// Returns the advice for a device without `fq`. The kernel can only use a qdisc that it has. `is_used` means that some
/// device has `fq`, which proves that the kernel has it.
fn offer(is_used: bool, offered: &Answer<Offered>) -> Offer {
    match offered {
        Answer::Is(Offered { fq: false, .. }) => Offer {
            grade: Grade::Lesser,
            because: "; this kernel has no fq (CONFIG_NET_SCH_FQ)".to_owned(),
            advice: "",
        },
        Answer::No(why) | Answer::Unknown(why) if !is_used => Offer {
            grade: Grade::Unknown,
            because: format!("; whether this kernel has fq could not be tried: {why}"),
            advice: "",
        },
        _ => Offer {
            grade: Grade::Lesser,
            because: String::new(),
            advice: "tc qdisc replace dev DEVICE root fq",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Answer<Offered> = Answer::Is(Offered { fq: true, ifb: true });
    const NEITHER: Answer<Offered> = Answer::Is(Offered { fq: false, ifb: false });

    fn device(name: &str, kind: &str) -> Device {
        Device { number: 2, name: name.to_owned(), qdiscs: vec![kind.to_owned()] }
    }

    #[test]
    fn both_devices_with_and_without_fq_are_named() {
        let found = judge(&[device("eth0", "fq"), device("wlan0", "noqueue")], &BOTH);
        assert_eq!(found.grade, Grade::Lesser);
        assert!(found.says.contains("on eth0, but not on wlan0"), "{}", found.says);
        assert!(found.advice.unwrap().contains("tc qdisc replace"));
    }

    #[test]
    fn fq_is_not_recommended_where_the_kernel_has_none() {
        let without = [device("eth0", "pfifo_fast")];
        let found = judge(&without, &NEITHER);
        assert_eq!((found.grade, &found.advice), (Grade::Lesser, &None));
        assert!(found.says.ends_with("on eth0; this kernel has no fq (CONFIG_NET_SCH_FQ)"));
    }

    #[test]
    fn where_fq_could_not_be_tried_it_is_unknown_and_nothing_is_recommended() {
        let (without, with) = (device("eth0", "pfifo_fast"), device("eth1", "fq"));
        for untried in [Answer::No("refused".to_owned()), Answer::Unknown("refused".to_owned())] {
            let found = judge(std::slice::from_ref(&without), &untried);
            assert_eq!((found.grade, &found.advice), (Grade::Unknown, &None), "{found:?}");
            assert!(found.says.ends_with("could not be tried: refused"), "{}", found.says);
            // One device with `fq` shows that the kernel has it.
            let found = judge(&[without.clone(), with.clone()], &untried);
            assert_eq!(found.grade, Grade::Lesser, "{found:?}");
            assert!(found.advice.is_some(), "{found:?}");
            assert_eq!(judge(std::slice::from_ref(&with), &untried).grade, Grade::Ok);
        }
    }

    #[test]
    fn devices_with_fq_that_a_limit_does_not_know_are_named() {
        let many: Vec<_> = (2..=10)
            .map(|number| Device { number, ..device(&format!("eth{number}"), "fq") })
            .collect();
        let found = judge(&many, &BOTH);
        assert_eq!((found.grade, &found.advice), (Grade::Lesser, &None));
        assert!(
            found.says.ends_with("eth9; nor on eth10: a limit knows 8 devices with it"),
            "{}",
            found.says
        );
        assert_eq!(judge(&many[..8], &BOTH).grade, Grade::Ok);
    }
}
