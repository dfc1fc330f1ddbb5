//! `chadthrottle doctor`: how limits would be held here, and what would make them better.
//!
//! Facts are gathered, then judged by a pure function, then shown.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use auditor::escape::escape;
use auditor::exit;
use bpf::limits::FqDevices;
use bpf::probe::Support;
use bpf::qdisc::{self, Device, with_fq};
use bpf::throttle::{self, Parts};
use bpf::{LinuxBpf, Owner, cgroup, pins, probe};
use comfy_table::{Table, presets};
use serde::Serialize;
use throttle_core::target::Target;

use crate::cli::{DoctorArgs, Format};
use crate::words::print;

/// What an answer rests on. `Err` has the words of who could not tell.
#[derive(Debug, Clone)]
struct Facts {
    release: String,
    cgroup2: Result<PathBuf, String>,
    support: Result<Support, String>,
    /// Loading the packet programs.
    packets: Result<(), String>,
    /// Loading them with the one for TCP.
    tcp: Result<(), String>,
    /// Loading them with those of a queue for downloads.
    queue: Result<(), String>,
    bpffs: Result<bool, String>,
    devices: Result<Vec<Device>, String>,
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// As good as it gets.
    Ok,
    /// A limit is held without it, but less well, or something that can be asked for is not there.
    Lesser,
    /// It could not be seen.
    Unknown,
    /// No limit without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    what: &'static str,
    grade: Grade,
    /// What is so, and what follows.
    says: String,
    /// What to do about it.
    advice: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Diagnosis {
    schema_version: u32,
    kernel: String,
    checks: Vec<Check>,
    /// How a limit would be held, in words, by kind of traffic.
    limits: Vec<Held>,
}

/// How one kind of traffic is held to a limit.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Held {
    traffic: &'static str,
    how: String,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let cgroup = match &args.cgroup {
        Some(path) => Some(Target::Cgroup(path.clone()).resolve()?.cgroup),
        None => None,
    };
    let facts = gather(cgroup.as_deref());
    let checks = judge(&facts);
    let worst = checks.iter().map(|check| check.grade).max();
    let limits = held(&facts);
    let diagnosis = Diagnosis { schema_version: 1, kernel: facts.release, checks, limits };
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&diagnosis)? + "\n"))?,
        Format::Text => print(&text(&diagnosis))?,
    }
    match worst {
        Some(Grade::Missing) => Err(exit::not_done("no limit can be held here").into()),
        Some(Grade::Unknown) => Err(exit::incomplete("not everything could be seen").into()),
        _ => Ok(()),
    }
}

fn gather(cgroup: Option<&Path>) -> Facts {
    // What libbpf has to say fills a page; its first line is what matters.
    let said = |error: bpf::Error| first_line(&error.to_string()).to_owned();
    let load = |parts| -> bpf::Result<()> {
        let owner = Owner::this_process(env!("CARGO_PKG_VERSION"))?;
        throttle::load(&owner, 0, parts).map(drop)
    };
    let queue = Parts { tcp: false, queue: true };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    Facts {
        release: release.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
        cgroup2: cgroup::cgroup2_mount().map_err(said),
        support: probe::support().map_err(said),
        packets: LinuxBpf::new().and_then(|_| load(Parts::default())).map_err(said),
        tcp: load(Parts::TCP).map_err(said),
        queue: load(queue).map_err(said),
        bpffs: pins::is_on_bpffs(Path::new(pins::DEFAULT_BPFFS)).map_err(said),
        devices: qdisc::devices(cgroup).map_err(said),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Advice that an error has given already is not given twice.
fn check(what: &'static str, grade: Grade, says: impl Into<String>, advice: &str) -> Check {
    let says = says.into();
    let advice = (!advice.is_empty() && !says.contains(advice)).then(|| advice.to_owned());
    Check { what, grade, says, advice }
}

/// Judges the facts.
fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(match &facts.cgroup2 {
        Ok(path) => check("cgroup2", Grade::Ok, format!("mounted on {}", path.display()), ""),
        Err(why) => check("cgroup2", Grade::Missing, why, "mount -t cgroup2 none /sys/fs/cgroup"),
    });
    checks.push(match &facts.packets {
        Ok(()) => check("packet programs", Grade::Ok, "the kernel takes them", ""),
        Err(why) => check("packet programs", Grade::Missing, why, "run as root"),
    });
    checks.push(match &facts.support {
        Ok(support) if support.links => {
            check("links", Grade::Ok, "a limit goes with its process, however that ends", "")
        }
        Ok(_) => check(
            "links",
            Grade::Lesser,
            "a crash leaves a limit until the next start",
            "Linux 5.7 or newer has them",
        ),
        Err(why) => check("links", Grade::Unknown, why, "run as root"),
    });
    checks.push(match (&facts.packets, &facts.tcp) {
        (_, Ok(())) => {
            check("shaping TCP", Grade::Ok, "connections keep to a limit by themselves", "")
        }
        (Ok(()), Err(why)) => check(
            "shaping TCP",
            Grade::Lesser,
            format!("packets of TCP above a limit are dropped: {why}"),
            "a kernel with CONFIG_DEBUG_INFO_BTF, and CAP_PERFMON",
        ),
        (Err(_), Err(why)) => check("shaping TCP", Grade::Missing, why, "run as root"),
    });
    checks.push(match version(&facts.release) {
        Some(version) if version >= (6, 12) => {
            check("open connections", Grade::Ok, "those from before a limit are shaped too", "")
        }
        Some(_) => check(
            "open connections",
            Grade::Lesser,
            "of those from before a limit, packets above it are dropped",
            "Linux 6.12 or newer shapes them",
        ),
        None => check("open connections", Grade::Unknown, "which Linux this is cannot be told", ""),
    });
    checks.push(match (&facts.packets, &facts.queue) {
        (_, Ok(())) => check(
            "download queue",
            Grade::Ok,
            "the kernel takes its programs; --download-queue also needs fq and ifb, which only a try shows",
            "",
        ),
        (Ok(()), Err(why)) => check(
            "download queue",
            Grade::Lesser,
            format!("there is no --download-queue: {why}"),
            "Linux 6.6 or newer has what it needs",
        ),
        (Err(_), Err(why)) => check("download queue", Grade::Missing, why, "run as root"),
    });
    checks.push(match &facts.bpffs {
        Ok(true) => check("bpffs", Grade::Ok, "limits can be pinned", ""),
        Ok(false) => {
            check("bpffs", Grade::Lesser, "no limit can be pinned", "mount -t bpf bpf /sys/fs/bpf")
        }
        Err(why) => check("bpffs", Grade::Unknown, why, ""),
    });
    checks.push(match &facts.devices {
        Ok(devices) => fq(devices),
        Err(why) => check("fq", Grade::Unknown, why, "run as root"),
    });
    checks
}

fn fq(devices: &[Device]) -> Check {
    let (with, more) = with_fq(devices);
    let without: Vec<_> = devices.iter().filter(|device| !device.keeps_departures()).collect();
    let names = |devices: &[&Device]| {
        devices.iter().map(|device| escape(&device.name)).collect::<Vec<_>>().join(", ")
    };
    let advice = "tc qdisc replace dev DEVICE root fq";
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("; nor on {}: a limit knows {} devices with it", names(&more), FqDevices::MOST)
    };
    match (with.as_slice(), without.as_slice()) {
        ([], []) => check("fq", Grade::Lesser, "there is no network device but the loopback", ""),
        ([], without) => check(
            "fq",
            Grade::Lesser,
            format!("what is not TCP is dropped above a limit, on {}", names(without)),
            advice,
        ),
        (with, []) if more.is_empty() => {
            check("fq", Grade::Ok, format!("uploads wait in it, on {}", names(with)), "")
        }
        (with, []) => {
            check("fq", Grade::Lesser, format!("uploads wait in it on {}{more}", names(with)), "")
        }
        (with, without) => check(
            "fq",
            Grade::Lesser,
            format!("uploads wait in it on {}, but not on {}{more}", names(with), names(without)),
            advice,
        ),
    }
}

/// The first two numbers of a kernel's version.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// How limits would be held by default.
fn held(facts: &Facts) -> Vec<Held> {
    if facts.packets.is_err() {
        return Vec::new();
    }
    let waits = facts.devices.iter().flatten().any(Device::keeps_departures);
    let (tcp_up, tcp_down) = match (&facts.tcp, version(&facts.release)) {
        (Err(_), _) => ("dropped above the limit", "dropped above the limit"),
        (Ok(()), Some(version)) if version < (5, 15) => ("paced", "dropped above the limit"),
        (Ok(()), _) => ("paced", "windows that fit are offered; dropped where that is not enough"),
    };
    let other = if waits {
        "waits in fq where the device has it, for at most 40 ms; dropped otherwise"
    } else {
        "dropped above the limit, marked before where ECN is understood"
    };
    let held = |traffic, how: &str| Held { traffic, how: how.to_owned() };
    vec![
        held("upload, TCP", tcp_up),
        held("upload, UDP and others", other),
        held("download, TCP", tcp_down),
        held(
            "download, UDP and others",
            "dropped above the limit, marked before where ECN is understood",
        ),
    ]
}

fn text(diagnosis: &Diagnosis) -> String {
    let table = |rows: Vec<Vec<String>>| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    };
    let checks = diagnosis.checks.iter().map(|check| {
        let grade = match check.grade {
            Grade::Ok => "ok",
            Grade::Lesser => "-",
            Grade::Unknown => "?",
            Grade::Missing => "NO",
        };
        let says = match &check.advice {
            Some(advice) => format!("{} ({advice})", escape(&check.says)),
            None => escape(&check.says),
        };
        vec![grade.to_owned(), check.what.to_owned(), says]
    });
    let mut text = format!("Linux {}\n{}\n", escape(&diagnosis.kernel), table(checks.collect()));
    if !diagnosis.limits.is_empty() {
        let rows = diagnosis.limits.iter();
        let rows = rows.map(|held| vec![held.traffic.to_owned(), held.how.clone()]).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nWhat 'chadthrottle limit' would do:\n{}", table(rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, kind: &str) -> Device {
        Device { number: 2, name: name.to_owned(), qdiscs: vec![kind.to_owned()] }
    }

    fn modern() -> Facts {
        Facts {
            release: "6.12.117-amd64".to_owned(),
            cgroup2: Ok("/sys/fs/cgroup".into()),
            support: Ok(Support {
                links: true,
                link_detach: true,
                program_flags: true,
                expected_revision: true,
                tcp: true,
            }),
            packets: Ok(()),
            tcp: Ok(()),
            queue: Ok(()),
            bpffs: Ok(true),
            devices: Ok(vec![device("eth0", "fq")]),
        }
    }

    fn grade(facts: &Facts, what: &str) -> Grade {
        judge(facts).iter().find(|check| check.what == what).unwrap().grade
    }

    #[test]
    fn where_all_is_there_all_is_ok() {
        assert!(judge(&modern()).iter().all(|check| check.grade == Grade::Ok));
        assert!(held(&modern())[1].how.contains("waits in fq"));
    }

    #[test]
    fn what_is_not_there_is_named_with_what_to_do_about_it() {
        let facts = Facts { bpffs: Ok(false), ..modern() };
        assert_eq!(grade(&facts, "bpffs"), Grade::Lesser);
        let facts = Facts { devices: Ok(vec![device("eth0", "pfifo_fast")]), ..modern() };
        let checks = judge(&facts);
        let fq = checks.iter().find(|check| check.what == "fq").unwrap();
        assert!(fq.says.contains("eth0") && fq.advice.as_ref().unwrap().contains("tc qdisc"));
        assert!(held(&facts)[1].how.starts_with("dropped"));
        let facts = Facts { release: "6.1.0-56".to_owned(), ..modern() };
        assert_eq!(grade(&facts, "open connections"), Grade::Lesser);
        let facts = Facts { queue: Err("refused".to_owned()), ..modern() };
        assert_eq!(grade(&facts, "download queue"), Grade::Lesser);
        let facts = Facts { tcp: Err("no types".to_owned()), ..modern() };
        assert_eq!(grade(&facts, "shaping TCP"), Grade::Lesser);
        assert!(held(&facts)[0].how.starts_with("dropped"));
    }

    #[test]
    fn what_cannot_be_seen_is_not_called_ok_and_what_cannot_be_done_is_told() {
        let facts = Facts { devices: Err("denied".to_owned()), ..modern() };
        assert_eq!(grade(&facts, "fq"), Grade::Unknown);
        let denied = || Err("denied".to_owned());
        let facts = Facts { packets: denied(), tcp: denied(), queue: denied(), ..modern() };
        assert_eq!(grade(&facts, "packet programs"), Grade::Missing);
        assert!(held(&facts).is_empty());
    }

    #[test]
    fn advice_is_given_once() {
        let denied = "not permitted; needs CAP_BPF: run as root";
        assert_eq!(check("x", Grade::Missing, denied, "run as root").advice, None);
        assert!(check("x", Grade::Missing, "refused", "run as root").advice.is_some());
        assert_eq!(first_line("a\nb"), "a");
    }

    #[test]
    fn both_devices_with_and_without_fq_are_named() {
        let found = fq(&[device("eth0", "fq"), device("wlan0", "noqueue")]);
        assert_eq!(found.grade, Grade::Lesser);
        assert!(found.says.contains("on eth0, but not on wlan0"), "{}", found.says);
    }

    #[test]
    fn devices_with_fq_that_a_limit_does_not_know_are_named() {
        let many: Vec<_> = (2..=10)
            .map(|number| Device { number, ..device(&format!("eth{number}"), "fq") })
            .collect();
        let found = fq(&many);
        assert_eq!((found.grade, &found.advice), (Grade::Lesser, &None));
        assert!(
            found.says.ends_with("eth9; nor on eth10: a limit knows 8 devices with it"),
            "{}",
            found.says
        );
        assert_eq!(fq(&many[..8]).grade, Grade::Ok);
    }

    #[test]
    fn downloads_of_tcp_are_shaped_from_5_15_on() {
        let old = Facts { release: "5.14.21".to_owned(), ..modern() };
        assert!(held(&old)[2].how.starts_with("dropped"));
        assert!(held(&modern())[2].how.starts_with("windows"));
        assert_eq!(version("5.14.21"), Some((5, 14)));
        assert_eq!(version("unknown"), None);
    }
}
