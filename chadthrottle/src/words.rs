//! What the commands say, and with which exit status they end.

use std::io::{self, ErrorKind, Write};

use anyhow::Result;
use bpf::error::{Call, Kind};
use bpf::limits::Bytes;
use bpf::state::Count;
use throttle_core::Error;

/// 2 for what the user got wrong, 1 for what went wrong.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return 2;
    }
    match error.downcast_ref::<Error>() {
        Some(error) if is_the_users(error) => 2,
        _ => 1,
    }
}

/// Something was named that is not there, or cannot be had.
fn is_the_users(error: &Error) -> bool {
    match error {
        Error::NothingToLimit
        | Error::RootCgroup(_)
        | Error::NoSuchProcess(_)
        | Error::CgroupRemoved(_)
        | Error::NoSuchRecord(_)
        | Error::OwnerLives { .. } => true,
        Error::Kernel(error) => error.call() == Call::OpenCgroup && error.kind() != Kind::Denied,
        Error::Several(errors) => errors.iter().all(is_the_users),
        _ => false,
    }
}

/// Something that clap cannot see is wrong with the command line.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) &'static str);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints a result. Nobody there to read it is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("cannot write the result: {error}")).into())
        }
        _ => Ok(()),
    }
}

/// Says something beside the result.
pub(crate) fn say(text: &str) {
    anstream::eprintln!("chadthrottle: {text}");
}

/// `12.3 MB (8412 packets)`.
pub(crate) fn count(count: Count) -> String {
    let packets = if count.packets == 1 { "packet" } else { "packets" };
    format!("{} ({} {packets})", Bytes(count.bytes), count.packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_reads_well() {
        assert_eq!(count(Count { packets: 1, bytes: 1_500 }), "1.5 kB (1 packet)");
        assert_eq!(count(Count { packets: 0, bytes: 0 }), "0 B (0 packets)");
    }

    #[test]
    fn what_the_user_got_wrong_ends_with_two() {
        assert_eq!(exit_status(&Error::NoSuchProcess(1).into()), 2);
        assert_eq!(exit_status(&Usage("x").into()), 2);
        let none = || Error::NoSuchRecord("7".to_owned());
        assert_eq!(exit_status(&Error::Several(vec![none(), none()]).into()), 2);
        let contended = Error::Contended("x".to_owned());
        assert_eq!(exit_status(&Error::Several(vec![none(), contended]).into()), 1);
        assert_eq!(exit_status(&anyhow::anyhow!("x")), 1);
    }
}
