//! `fq` on the devices, and whether the kernel has it.

use auditor::escape::escape;
use bpf::limits::FqDevices;
use bpf::offered::Offered;
use bpf::qdisc::{Device, with_fq};

use super::facts::Answer;
use super::report::{Check, Grade, check};

/// Judges the devices.
pub(super) fn judge(devices: &[Device], offered: &Answer<Offered>) -> Check {
    let (with, more) = with_fq(devices);
    let without: Vec<_> = devices.iter().filter(|device| !device.keeps_departures()).collect();
    let names = |devices: &[&Device]| {
        devices.iter().map(|device| escape(&device.name)).collect::<Vec<_>>().join(", ")
    };
    // What the kernel does not have nobody can put on a device.
    let has_none = offered.is().is_some_and(|offered| !offered.fq);
    let (advice, because) = if has_none {
        ("", "; this kernel has no fq (CONFIG_NET_SCH_FQ)")
    } else {
        ("tc qdisc replace dev DEVICE root fq", "")
    };
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
            check("fq", Grade::Lesser, says, advice)
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
            check("fq", Grade::Lesser, says, advice)
        }
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
        // Who does not know may recommend it.
        let unknown = judge(&without, &Answer::Unknown("denied".to_owned()));
        assert!(unknown.advice.is_some() && !unknown.says.contains("has no fq"));
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
