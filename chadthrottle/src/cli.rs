//! The command line.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use bpf::limits::{Burst, Rate, RateError, Traffic, has_sign};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use terminal::Shell;
use terminal::talk::Loudness;
use throttle_core::mode::{DeparturesWish, TcpWish, Wish};

/// Limits the network rate of cgroups and processes with eBPF, and leaves nothing behind.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status:\n\
                  \x20 0   done\n\
                  \x20 1   not done, or not to its end\n\
                  \x20 2   not everything could be seen\n\
                  \x20 64  bad usage, or something was named that does not exist\n\
                  \x20 70  chadthrottle itself failed, or the cgroup2 hierarchy is not to be seen\n\n\
                  To look for throttles that others left behind: chadthrottle-audit scan"
)]
pub(crate) struct Cli {
    #[command(flatten, next_display_order = 900)]
    pub(crate) loudness: Loudness,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Limit(LimitArgs),
    List(ListArgs),
    Rearm(RearmArgs),
    Rm(RmArgs),
    Doctor(DoctorArgs),
    /// What completions call: the ids of pinned throttles, one a line
    #[command(hide = true)]
    Ids,
    /// Write man pages, completions or JSON Schemas of this program
    #[command(subcommand)]
    Generate(Generate),
}

/// Limit a cgroup, or the cgroup that a process lives in, until Ctrl-C or the duration's end
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("target").required(true).args(["cgroup", "pid"]),
    group = ArgGroup::new("rates").required(true).multiple(true).args(["download", "upload"]),
    after_help = limit_help()
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct LimitArgs {
    /// The cgroup: its directory, or its path below the cgroup2 mount
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub(crate) cgroup: Option<PathBuf>,

    /// A process, or one of its threads: its cgroup is limited, with every other process in it
    ///
    /// If the process moves to another cgroup later, the limit says so, and ends with status 1 unless it comes back.
    #[arg(long, value_name = "PID", value_parser = pid, allow_hyphen_values = true)]
    pub(crate) pid: Option<u32>,

    /// The most that may be received
    #[arg(long, value_name = "RATE", value_parser = RateParser, allow_hyphen_values = true)]
    pub(crate) download: Option<Rate>,

    /// The most that may be sent
    #[arg(long, value_name = "RATE", value_parser = RateParser, allow_hyphen_values = true)]
    pub(crate) upload: Option<Rate>,

    /// How much may pass at once after a pause, as time at the rate; at most 1h, and 0s is one packet
    #[arg(long, value_name = "TIME", default_value = "250ms", allow_hyphen_values = true)]
    pub(crate) burst: Burst,

    /// Which traffic is limited, by the address of the other side
    #[arg(long, value_name = "CLASS", default_value = "all")]
    pub(crate) traffic: TrafficArg,

    /// How the programs are attached
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) attach: AttachArg,

    /// How TCP is held to the limit
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) tcp: TcpArg,

    /// What becomes of packets that are sent above the limit
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) departures: DeparturesArg,

    /// Have downloads above the limit wait in a queue of their own (ifb and fq, Linux 6.6), instead of dropping them
    #[arg(long, requires = "download")]
    pub(crate) download_queue: bool,

    /// Limit even where that puts other people's programs out of force, which were attached to a cgroup above with
    /// `BPF_F_ALLOW_OVERRIDE` (a firewall, say); they are named, and back in force when the limit ends
    ///
    /// Without this option the limit ends, with status 1, when such a program comes later. A pinned limit does not, because
    /// no process looks.
    #[arg(long)]
    pub(crate) displace: bool,

    /// End by itself after this time, from 1ms to 1year
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) duration: Option<Duration>,

    /// End when the cgroup is removed, instead of waiting for another one at the same path (a service that restarts)
    #[arg(long)]
    pub(crate) once: bool,

    /// Hold a service that restarts to one burst until its new cgroup is limited, which takes some 100 microseconds
    ///
    /// Without this option nothing limits what the service sends and receives in that first moment. Use it where even so
    /// little must not get through. One burst passes then, and the rest is dropped, for a second at most should this
    /// command be stopped meanwhile.
    ///
    /// It costs a few nanoseconds for each packet of the cgroups beside the service's, and one of 64 places for programs
    /// on the cgroup above, in each direction. Where it would switch off somebody else's program, or 48 places are taken,
    /// a warning says so and the limit does without. While it runs, others can attach programs to the cgroup above only
    /// with `BPF_F_ALLOW_MULTI` ("Operation not permitted" otherwise). Needs Linux 6.1 and `CAP_PERFMON`.
    #[arg(long, conflicts_with = "once")]
    pub(crate) guard: bool,
}

fn limit_help() -> String {
    format!(
        "RATE: a number and one of these units, with or without /s, from 1K to 100G:\n{}\
         TIME: 20ms, 1s, 5m, 1h30m.\n\n\
         Every process in the cgroup and below it shares the limit. A socket belongs to the \
         cgroup that it was made in: moving a process does not move its open connections.\n\n\
         When the cgroup is removed, the limit waits for another one at the same path and arms it as well; \
         a pinned one waits for 'chadthrottle rearm'.\n\n\
         Needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 5.12 or newer; to shape TCP also CAP_PERFMON and the kernel's \
         types (BTF), without which TCP is policed.\n\n\
         Exit status:\n\
         \x20 0   the limit was held to its end, or is pinned\n\
         \x20 1   it could not be held, or not to its end\n\
         \x20 64  bad usage, or no such cgroup or process\n\
         \x20 70  chadthrottle itself failed, or the cgroup2 hierarchy is not to be seen",
        Rate::units()
    )
}

/// The shortest duration. A limit that lasts less has no effect.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest duration. No clock here counts much further, and nobody needs more.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fn pid(text: &str) -> Result<u32, String> {
    let pid = text.parse().ok().filter(|&pid| pid > 0);
    pid.ok_or_else(|| {
        "this is no process id; give a whole number from 1 on, as ps shows it".to_owned()
    })
}

fn duration(time: &str) -> Result<Duration, String> {
    if has_sign(time) {
        return Err(
            "a time has no sign; write a number with a unit, such as 30s or 1h 30m".to_owned()
        );
    }
    let duration = humantime::parse_duration(time)
        .map_err(|error| format!("{error}; write a number with a unit, such as 30s or 1h 30m"))?;
    match duration {
        short if short < SHORTEST => {
            Err("the limit would end before it limits anything; give at least 1ms".to_owned())
        }
        long if long > LONGEST => {
            Err("more than a year; leave --duration out to limit without an end".to_owned())
        }
        _ => Ok(duration),
    }
}

/// Parses a rate. Its error is the whole sentence, without clap's "invalid value" in front.
#[derive(Debug, Clone, Copy)]
struct RateParser;

impl TypedValueParser for RateParser {
    type Value = Rate;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _option: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Rate, clap::Error> {
        value.to_string_lossy().parse().map_err(|error: RateError| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).with_cmd(command)
        })
    }
}

/// Show every throttle on this host, also those of other processes
#[derive(Debug, Args)]
#[command(after_help = "Exit status:\n\
                  \x20 0   these are all\n\
                  \x20 2   not everything could be seen\n\
                  \x20 64  bad usage\n\
                  \x20 70  chadthrottle itself failed, or the cgroup2 hierarchy is not to be seen")]
pub(crate) struct ListArgs {
    /// For people or for programs; the JSON Schema: `chadthrottle generate schema list`
    #[arg(long, default_value = "text")]
    pub(crate) format: Format,

    /// Show every column, however wide the table gets
    #[arg(long, conflicts_with = "format")]
    pub(crate) wide: bool,
}

/// Arm pinned throttles again whose cgroups were removed and made again
#[derive(Debug, Args)]
#[command(
    after_help = "A pinned throttle has no process that could follow the path of its cgroup: when the cgroup is removed, \
                  the throttle waits ('chadthrottle list' says so) until this command arms it on the new one. It arms nothing \
                  where the path may be another cgroup's: in another container, or below another mount. If it fails, all is \
                  as before.\n\n\
                  Exit status:\n\
                  \x20 0   they are armed; without ids, those that have a cgroup\n\
                  \x20 1   one of them could not be armed, or has no cgroup\n\
                  \x20 64  bad usage, or there is no such throttle\n\
                  \x20 70  chadthrottle itself failed, or the cgroup2 hierarchy is not to be seen"
)]
pub(crate) struct RearmArgs {
    /// Their ids, as `chadthrottle list` shows them; without any, every one whose cgroup is there
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// End pinned throttles
#[derive(Debug, Args)]
#[command(after_help = "Exit status:\n\
                  \x20 0   they are gone\n\
                  \x20 1   one of them could not be removed\n\
                  \x20 64  bad usage, or there is no such throttle\n\
                  \x20 70  chadthrottle itself failed")]
pub(crate) struct RmArgs {
    /// Their ids, as `chadthrottle list` shows them
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

/// Say how limits would be held on this host, and what would make them better
#[derive(Debug, Args)]
#[command(
    after_help = "It loads the programs for a moment, and tries fq and ifb in a network namespace of its own. It attaches \
                  nothing to a cgroup, and leaves nothing behind.\n\n\
                  Exit status:\n\
                  \x20 0   limits can be held, for downloads and uploads\n\
                  \x20 1   no limit can be held; or on the cgroup that is named none on downloads, or none on uploads\n\
                  \x20 2   not everything could be seen\n\
                  \x20 64  bad usage, or no such cgroup\n\
                  \x20 70  chadthrottle itself failed, or the cgroup2 hierarchy is not to be seen"
)]
pub(crate) struct DoctorArgs {
    /// A cgroup that is to be limited: its lists of programs, those of its ancestors, and its processes' network devices
    /// are looked at
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub(crate) cgroup: Option<PathBuf>,

    /// For people or for programs
    #[arg(long, default_value = "text")]
    pub(crate) format: Format,
}

/// What to generate
#[derive(Debug, Subcommand)]
pub(crate) enum Generate {
    /// Write the man pages, one for each command, to a directory, which is made if it is not there
    Man {
        /// The directory
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the JSON Schema of what a command writes with --format json
    Schema {
        /// Which command
        document: Document,
    },
}

/// What there is a schema of
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Document {
    /// What `doctor --format json` writes
    Doctor,
    /// What `list --format json` writes
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrafficArg {
    /// All of it
    All,
    /// What is not local
    Internet,
    /// Private, link-local, loopback, multicast and broadcast addresses
    Local,
}

impl From<TrafficArg> for Traffic {
    fn from(traffic: TrafficArg) -> Self {
        match traffic {
            TrafficArg::All => Traffic::All,
            TrafficArg::Internet => Traffic::Internet,
            TrafficArg::Local => Traffic::Local,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttachArg {
    /// Through a link: gone with this process, however it ends
    #[value(alias = "auto")]
    Link,
    /// Through a pinned link: stays until `chadthrottle rm`; this command returns at once
    Pinned,
    /// As before Linux 5.7: a crash leaves it until the next start
    Legacy,
}

impl From<AttachArg> for Wish {
    fn from(attach: AttachArg) -> Self {
        match attach {
            AttachArg::Link => Wish::Link,
            AttachArg::Pinned => Wish::Pinned,
            AttachArg::Legacy => Wish::Legacy,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TcpArg {
    /// Shaped where the kernel can
    Auto,
    /// Its sockets are paced, and offer windows that fit: next to nothing is lost
    Shape,
    /// Packets above the limit are dropped, as of everything else
    Police,
}

impl From<TcpArg> for TcpWish {
    fn from(tcp: TcpArg) -> Self {
        match tcp {
            TcpArg::Auto => TcpWish::Auto,
            TcpArg::Shape => TcpWish::Shape,
            TcpArg::Police => TcpWish::Police,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeparturesArg {
    /// They wait for their turn where a network device sends through fq, and are dropped elsewhere
    Auto,
    /// They wait in fq; it is an error if no device has it
    Fq,
    /// They are dropped
    Off,
}

impl From<DeparturesArg> for DeparturesWish {
    fn from(departures: DeparturesArg) -> Self {
        match departures {
            DeparturesArg::Auto => DeparturesWish::Auto,
            DeparturesArg::Fq => DeparturesWish::Fq,
            DeparturesArg::Off => DeparturesWish::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_limit_lasts_from_a_millisecond_to_a_year_and_a_day() {
        let year = Duration::from_secs(366 * 86_400);
        assert_eq!(duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("366days"), Ok(year));
        for (time, why) in
            [("999us", "at least 1ms"), ("366days 1s", "more than a year"), ("-1s", "no sign")]
        {
            let refused = duration(time).unwrap_err();
            assert!(refused.contains(why), "{time}: {refused}");
        }
    }

    #[test]
    fn the_engine_is_asked_for_the_word_that_was_typed() {
        let of = |word| AttachArg::from_str(word, false).map(Wish::from).unwrap();
        let attach = ["auto", "link", "pinned", "legacy"].map(of);
        assert_eq!(attach, [Wish::Link, Wish::Link, Wish::Pinned, Wish::Legacy]);
        let of = |word| TcpArg::from_str(word, false).map(TcpWish::from).unwrap();
        let tcp = ["auto", "shape", "police"].map(of);
        assert_eq!(tcp, [TcpWish::Auto, TcpWish::Shape, TcpWish::Police]);
        let of = |word| DeparturesArg::from_str(word, false).map(DeparturesWish::from).unwrap();
        let departures = ["auto", "fq", "off"].map(of);
        assert_eq!(departures, [DeparturesWish::Auto, DeparturesWish::Fq, DeparturesWish::Off]);
    }
}
