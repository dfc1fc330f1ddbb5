//! Measures the packet path: which programs run on which packets in which state.

use std::net::IpAddr;
use std::time::Duration;

use bpf::limits::{Burst, Departures, FqDevices, Limits, Rate, Traffic};

use crate::object::Programs;
use crate::packet::Packet;
use crate::turns::Contestant;

/// The cost of running any program at all.
pub const EMPTY: &str = "empty";
/// The cost with one look at the clock, which every limit needs.
pub const CLOCK: &str = "clock";
/// The throttle that this project began with.
pub const HISTORICAL: &str = "historical";
/// A token bucket with a lock.
pub const LOCKED: &str = "spin-locked";
/// Our program in the most common case.
pub const PASSING: &str = "upload, passing";
/// Our program on received packets.
pub const DOWNLOAD: &str = "download, passing";
/// Our program with a class of traffic, in the most common case.
pub const CLASSED: &str = "internet only, passing, IPv4";
/// The same with IPv6.
pub const CLASSED_V6: &str = "internet only, passing, IPv6";

const PASS: u32 = 1;
/// The verdict that drops a sent packet.
const DROP: u32 = 2;
/// The verdict that drops a received packet.
const DROP_INGRESS: u32 = 0;

/// The device on which the kernel runs a program for a test.
const LOOPBACK: u32 = 1;
const ELSEWHERE: [u32; FqDevices::MOST] = [11, 12, 13, 14, 15, 16, 17, 18];

/// Addresses for documentation and of private networks. The filter treats the first two as internet addresses.
const PUBLIC: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PRIVATE: [&str; 2] = ["10.0.0.1", "fd00::1"];

/// One case: a program, a packet, and the limits in force.
struct Case {
    name: String,
    program: &'static str,
    packet: Packet,
    limits: Option<Limits>,
    verdict: u32,
}

impl Case {
    fn plain(name: &str, program: &'static str, limits: Option<Limits>) -> Self {
        Self { name: name.to_owned(), program, packet: packet(PUBLIC[0]), limits, verdict: PASS }
    }

    /// Sets the limits and runs the program on the packet.
    fn run(&self, programs: &Programs, times: u64) -> anyhow::Result<Duration> {
        programs.limit(self.limits.as_ref())?;
        // The first runs find cold caches and may use up the burst.
        programs.run(self.program, &self.packet, 100, self.verdict)?;
        programs.run(self.program, &self.packet, times, self.verdict)
    }
}

/// Returns all cases as contestants.
///
/// # Errors
/// Fails if the historical throttle cannot be set up.
pub fn contestants(programs: &Programs) -> anyhow::Result<Vec<Contestant<'_>>> {
    programs.run("bench_historical_setup", &packet(PUBLIC[0]), 1, PASS)?;
    Ok(cases()
        .into_iter()
        .map(|case| Contestant::new(case.name.clone(), move |times| case.run(programs, times)))
        .collect())
}

fn cases() -> Vec<Case> {
    let narrow = Some(narrow(Traffic::All));
    let mut cases = vec![
        Case::plain(EMPTY, "bench_empty", None),
        Case::plain(CLOCK, "bench_clock", None),
        // This is the program that hosts load. It should cost as much as the next one, which finds its limits in
        // another way.
        Case::plain("the loaded program, disarmed", "chadthrottle_egress", None),
        Case::plain("upload, disarmed", "bench_upload", None),
        Case::plain(PASSING, "bench_upload", Some(wide(Traffic::All))),
        Case::plain(DOWNLOAD, "bench_download", Some(wide(Traffic::All))),
        Case::plain("upload, passing, through fq", "bench_upload", Some(through_fq(&[LOOPBACK]))),
        // This limit knows the most devices that a throttle can, and the packet uses another one.
        Case::plain("upload, passing, past fq", "bench_upload", Some(through_fq(&ELSEWHERE))),
        Case { verdict: DROP, ..Case::plain("upload, dropping", "bench_dropping", narrow) },
        Case {
            verdict: DROP,
            packet: Packet::with_length(address(PUBLIC[0]), 84),
            ..Case::plain("upload, dropping, no reserve left", "bench_dropping", narrow)
        },
        Case {
            verdict: DROP_INGRESS,
            ..Case::plain("download, dropping", "bench_dropping_download", narrow)
        },
    ];
    for (class, traffic) in [("internet", Traffic::Internet), ("local", Traffic::Local)] {
        for (what, of_internet) in [("passing", true), ("exempt", false)] {
            let public = of_internet == (traffic == Traffic::Internet);
            for (version, at) in [("IPv4", 0), ("IPv6", 1)] {
                cases.push(Case {
                    packet: packet(if public { PUBLIC[at] } else { PRIVATE[at] }),
                    ..Case::plain(
                        &format!("{class} only, {what}, {version}"),
                        "bench_upload",
                        Some(wide(traffic)),
                    )
                });
            }
        }
    }
    cases.push(Case::plain(HISTORICAL, "bench_historical", None));
    cases.push(Case::plain(LOCKED, "bench_locked", None));
    cases
}

/// Returns a limit that nothing here reaches, because full packets cost 15 ns each.
pub fn wide(traffic: Traffic) -> Limits {
    Limits { rate: Rate::MAX, burst: Burst::DEFAULT, traffic, departures: Departures::Never }
}

/// Returns the same limit for a host where these devices have `fq`.
fn through_fq(devices: &[u32]) -> Limits {
    Limits { departures: Departures::Fq(devices.iter().copied().collect()), ..wide(Traffic::All) }
}

/// Returns a limit that passes one packet, and then nothing for 1.5 seconds.
fn narrow(traffic: Traffic) -> Limits {
    let burst = Burst::new(Duration::from_millis(1)).unwrap_or(Burst::DEFAULT);
    Limits { rate: Rate::MIN, burst, traffic, departures: Departures::Never }
}

/// Creates a packet to this address.
///
/// # Panics
/// Never panics with the addresses above.
pub fn packet(text: &str) -> Packet {
    Packet::between(address(text))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_and_the_named_ones_are_there() {
        let mut names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
        for name in [EMPTY, CLOCK, HISTORICAL, LOCKED, PASSING, DOWNLOAD, CLASSED, CLASSED_V6] {
            assert!(names.iter().any(|found| found == name), "{name}");
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_exempt_is_of_the_other_class() {
        let of = |name: &str| {
            cases().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("{name}"))
        };
        assert_eq!(of("internet only, passing, IPv6").packet, packet(PUBLIC[1]));
        assert_eq!(of("internet only, exempt, IPv4").packet, packet(PRIVATE[0]));
        assert_eq!(of("local only, passing, IPv4").packet, packet(PRIVATE[0]));
        assert_eq!(of("local only, exempt, IPv6").packet, packet(PUBLIC[1]));
    }
}
