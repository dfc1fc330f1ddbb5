//! Formats the line that says that a limit is armed, and how it ends.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bpf::limits::Traffic;
use terminal::escape_bytes;
use throttle_core::mode::Mode;
use throttle_core::{Direction, Spec, Started};

/// Returns a line such as `limiting /sys/fs/cgroup/x to 1 MB/s down, 500 kB/s up; ends in 3 s or on Ctrl-C`.
pub(crate) fn armed_line(spec: &Spec, started: &Started, duration: Option<Duration>) -> String {
    line(spec, started.mode, started.name.as_deref(), duration)
}

fn line(spec: &Spec, mode: Mode, name: Option<&str>, duration: Option<Duration>) -> String {
    let limits: Vec<_> = spec
        .limits()
        .iter()
        .map(|(direction, limits)| format!("{} {}", limits.rate, way(*direction)))
        .collect();
    let of = match spec.traffic {
        Traffic::All => String::new(),
        some => format!("{some} traffic of "),
    };
    let cgroup = escape_bytes(spec.cgroup.as_os_str().as_bytes());
    format!("limiting {of}{cgroup} to {}; {}\n", limits.join(", "), end(mode, name, duration))
}

fn end(mode: Mode, name: Option<&str>, duration: Option<Duration>) -> String {
    let by_itself = match duration {
        Some(duration) => format!("ends in {} or on Ctrl-C", spelled(duration)),
        None => "ends on Ctrl-C".to_owned(),
    };
    match (mode, name) {
        (Mode::Pinned, Some(name)) => format!("stays until 'chadthrottle rm {name}'"),
        (Mode::Legacy, _) => {
            format!("{by_itself}; after a crash it stays until the next limit starts")
        }
        _ => by_itself,
    }
}

/// Returns `down` or `up`.
pub(crate) fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Download => "down",
        Direction::Upload => "up",
    }
}

/// Formats a time with a space before each unit, such as `1 h 30 min` or `250 ms`.
fn spelled(time: Duration) -> String {
    let parts = humantime::format_duration(time).to_string();
    let parts = parts.split(' ').map(|part| {
        let at = part.find(|it: char| !it.is_ascii_digit()).unwrap_or(part.len());
        let (number, unit) = part.split_at(at);
        format!("{number} {}", if unit == "m" { "min" } else { unit })
    });
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use bpf::limits::{Burst, FqDevices};
    use throttle_core::mode::{TcpWish, Wish};

    use super::*;

    fn both() -> Spec {
        Spec {
            cgroup: "/x".into(),
            cgroup_id: None,
            download: Some("1M".parse().unwrap()),
            upload: Some("500K".parse().unwrap()),
            burst: Burst::DEFAULT,
            traffic: Traffic::All,
            attach: Wish::default(),
            tcp: TcpWish::Auto,
            departures: FqDevices::NONE,
            queue: false,
            displace: false,
        }
    }

    fn up() -> Spec {
        Spec { download: None, upload: Some("1M".parse().unwrap()), ..both() }
    }

    #[test]
    fn what_is_limited_and_by_how_much_is_said() {
        let said = |spec: &Spec| line(spec, Mode::Link, None, None);
        assert_eq!(said(&up()), "limiting /x to 1 MB/s up; ends on Ctrl-C\n");
        assert_eq!(said(&both()), "limiting /x to 1 MB/s down, 500 kB/s up; ends on Ctrl-C\n");
        let local = Spec { traffic: Traffic::Local, ..up() };
        assert!(said(&local).starts_with("limiting local traffic of /x to "), "{}", said(&local));
        let evil = Spec { cgroup: "/x\n\x1b[31m".into(), ..up() };
        assert!(said(&evil).starts_with(r"limiting /x\n\x1b[31m to "), "{:?}", said(&evil));
    }

    #[test]
    fn how_it_ends_is_said_for_every_way_of_attaching() {
        let in_3_s = Some(Duration::from_secs(3));
        assert_eq!(end(Mode::Link, None, in_3_s), "ends in 3 s or on Ctrl-C");
        assert_eq!(end(Mode::Link, None, None), "ends on Ctrl-C");
        assert_eq!(end(Mode::Pinned, Some("7"), None), "stays until 'chadthrottle rm 7'");
        assert_eq!(
            end(Mode::Legacy, Some("7"), in_3_s),
            "ends in 3 s or on Ctrl-C; after a crash it stays until the next limit starts"
        );
    }

    #[test]
    fn a_time_is_spelled_with_its_units() {
        assert_eq!(spelled(Duration::from_millis(1_500)), "1 s 500 ms");
        assert_eq!(spelled(Duration::from_secs(5_400)), "1 h 30 min");
        assert_eq!(spelled(Duration::from_secs(86_400)), "1 day");
    }
}
