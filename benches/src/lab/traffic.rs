//! Runs one test of iperf3: a server at the far end and a client in the cgroup. It reads the reports of both.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bpf::limits::Rate;
use testkit::cgroup::enter;
use testkit::traffic::is_listened_to;

use super::cell::{Cell, Sender, Way};
use super::expect::DATAGRAM;
use super::network::{FAR_ADDRESS, FAR_NETWORK, Network};
use super::report_of_iperf::{Counted, End, parse};
use super::stop::Stop;

/// The longest wait for a server to listen. Emulated processors are slow.
const LISTENS: Duration = Duration::from_secs(20);
/// The extra time after which an iperf3 is killed. Its last bytes pass the limit too.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
/// The offered datagrams relative to the limit.
const SURPLUS: f64 = 1.5;
/// The seconds between the reports of iperf3.
const INTERVAL: &str = "0.1";

/// The length of a test.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The seconds that count.
    pub seconds: u32,
    /// The seconds before, which are omitted.
    pub omit: u32,
}

impl Span {
    /// Returns the span for a limit. Below 1 MB/s it is three times as long, because a burst of ten segments is worth a
    /// tenth of a second there.
    #[must_use]
    pub fn at(self, rate: Rate) -> Self {
        let times = if rate.bytes_per_second() < 1_000_000 { 3 } else { 1 };
        Self { seconds: self.seconds * times, ..self }
    }
}

/// A server that waits for a client. Dropping it ends the server.
#[derive(Debug)]
pub struct Server {
    iperf: Iperf,
    port: u16,
}

/// A running test. Dropping it ends both processes.
#[derive(Debug)]
pub struct Test {
    server: Iperf,
    client: Iperf,
    way: Way,
    sender: Sender,
    counted: Counted,
    deadline: Instant,
    started: Instant,
}

/// The reports of both ends.
#[derive(Debug)]
pub struct Ends {
    /// The end that sends the payload.
    pub sender: End,
    /// The end that receives the payload.
    pub receiver: End,
}

impl Server {
    /// Starts a server at the far end and waits until it listens. Servers that run at the same time need different
    /// ports.
    ///
    /// # Errors
    /// Fails if the server cannot be started or does not listen.
    pub fn start(network: &Network, port: u16) -> Result<Self> {
        let mut server = Command::new("ip");
        server.args(["netns", "exec", FAR_NETWORK, "iperf3", "-4", "-s", "-1", "-J"]);
        server.args(["-i", INTERVAL, "-p", &port.to_string()]);
        let mut iperf = {
            let _there = enter(network.others());
            Iperf::start(server)?
        };
        iperf.listens(port)?;
        Ok(Self { iperf, port })
    }

    /// Starts the client in a cgroup. Its sockets belong to that cgroup.
    ///
    /// # Errors
    /// Fails if the client cannot be started.
    pub fn test(self, cgroup: &Path, cell: &Cell, span: Span) -> Result<Test> {
        let mut client = Command::new("iperf3");
        client.args(["-c", FAR_ADDRESS, "-p", &self.port.to_string(), "-J", "-i", INTERVAL]);
        client.args(arguments(cell, span));
        let client = {
            let _inside = enter(cgroup);
            Iperf::start(client)?
        };
        let started = Instant::now();
        let whole = Duration::from_secs(u64::from(span.seconds + span.omit));
        Ok(Test {
            server: self.iperf,
            client,
            way: cell.way,
            sender: cell.sender,
            counted: Counted::all(span.seconds),
            deadline: started + whole + PATIENCE,
            started,
        })
    }
}

impl Test {
    /// Starts both ends.
    ///
    /// # Errors
    /// Returns the errors of [`Server::start`] and [`Server::test`].
    pub fn start(
        network: &Network,
        cgroup: &Path,
        cell: &Cell,
        span: Span,
        port: u16,
    ) -> Result<Self> {
        Server::start(network, port)?.test(cgroup, cell, span)
    }

    /// Sets which seconds of the test count.
    pub fn counts(&mut self, counted: Counted) {
        self.counted = counted;
    }

    /// Returns the time when the test started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until the client has ended. The measurement is over then, so the caller should remove the limit. What is
    /// left in the client's sockets might take a small limit half a minute, and the server waits for the last byte.
    ///
    /// # Errors
    /// Fails if the client hangs or the user wants to stop.
    pub fn client_ends(&mut self, stop: &Stop) -> Result<()> {
        self.client.wait(self.deadline, stop).context("the client")?;
        Ok(())
    }

    /// Waits for the end of the test.
    ///
    /// # Errors
    /// Fails if an end fails, hangs, or did not use the requested congestion control.
    pub fn finish(mut self, stop: &Stop) -> Result<Ends> {
        let client = self.client.finish(self.counted, self.deadline, stop).context("the client");
        if client.is_err() {
            // The server would wait for another client.
            self.server.end();
        }
        let client = client?;
        let server = self.server.finish(self.counted, self.deadline, stop).context("the server")?;
        let (sender, receiver) = match self.way {
            Way::Up => (client, server),
            Way::Down => (server, client),
        };
        if self.sender.is_tcp() {
            let used = sender.congestion.as_deref().unwrap_or("unknown");
            ensure!(
                used == self.sender.name(),
                "the sender used {used}, not {}",
                self.sender.name()
            );
        }
        Ok(Ends { sender, receiver })
    }
}

/// Returns the client's arguments, without the address.
fn arguments(cell: &Cell, span: Span) -> Vec<String> {
    let mut words: Vec<String> =
        ["-t", &span.seconds.to_string(), "-O", &span.omit.to_string()].map(str::to_owned).to_vec();
    let mut more = |option: &str, value: String| words.extend([option.to_owned(), value]);
    more("-P", cell.flows.to_string());
    match cell.sender {
        Sender::Udp => {
            let all = cell.rate.bytes_per_second() as f64 * 8.0 * SURPLUS;
            more("-b", format!("{:.0}", all / f64::from(cell.flows)));
            more("-l", DATAGRAM.to_string());
            words.push("-u".into());
        }
        Sender::Cubic | Sender::Bbr => more("-C", cell.sender.name().into()),
    }
    if cell.way == Way::Down {
        words.push("-R".into());
    }
    words
}

/// A process that is killed when this is dropped. Its output goes to unnamed files, so it never waits for a reader.
#[derive(Debug)]
struct Iperf {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Iperf {
    fn start(mut command: Command) -> Result<Self> {
        let file = || tempfile::tempfile().context("a temporary file");
        let (stdout, stderr) = (file()?, file()?);
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .context("cannot start iperf3")?;
        Ok(Self { child, stdout, stderr })
    }

    /// Waits until the server listens.
    fn listens(&mut self, port: u16) -> Result<()> {
        let deadline = Instant::now() + LISTENS;
        let table = format!("/proc/{}/net/tcp", self.child.id());
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server has ended ({status}): {}", self.said()?);
            }
            // Before the process enters the far network, this table is the near one's, where nobody listens.
            let text = fs::read_to_string(&table).with_context(|| table.clone())?;
            if is_listened_to(&text, port) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server does not listen within {LISTENS:?}");
            sleep(LOOK);
        }
    }

    fn finish(&mut self, counted: Counted, deadline: Instant, stop: &Stop) -> Result<End> {
        let status = self.wait(deadline, stop)?;
        let report = content(&mut self.stdout)?;
        // The report says more than the exit status.
        let end = parse(&report, counted).with_context(|| format!("{status}"));
        let end = match end {
            Err(error) => bail!("{error:#} {}", self.said()?),
            Ok(end) => end,
        };
        ensure!(status.success(), "{status}: {}", self.said()?);
        Ok(end)
    }

    fn wait(&mut self, deadline: Instant, stop: &Stop) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if stop.is_wished() || Instant::now() > deadline {
                self.end();
                ensure!(!stop.is_wished(), "stopped");
                bail!("it hung, and was ended");
            }
            sleep(LOOK);
        }
    }

    fn said(&mut self) -> Result<String> {
        Ok(content(&mut self.stderr)?.trim().to_owned())
    }

    fn end(&mut self) {
        // Both calls fail only for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        self.end();
    }
}

fn content(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(way: Way, sender: Sender, flows: u32) -> Cell {
        let rate = Rate::from_bytes_per_second(1_000_000).unwrap();
        Cell { way, sender, rtt_ms: 0, loss_percent: 0, rate, flows }
    }

    #[test]
    fn a_client_is_told_what_the_cell_says() {
        let told = |cell| arguments(&cell, Span { seconds: 4, omit: 1 }).join(" ");
        assert_eq!(told(cell(Way::Up, Sender::Bbr, 4)), "-t 4 -O 1 -P 4 -C bbr");
        assert_eq!(told(cell(Way::Down, Sender::Cubic, 1)), "-t 4 -O 1 -P 1 -C cubic -R");
        assert_eq!(told(cell(Way::Up, Sender::Udp, 4)), "-t 4 -O 1 -P 4 -b 3000000 -l 1448 -u");
    }

    #[test]
    fn a_small_limit_is_looked_at_for_longer() {
        let span = Span { seconds: 4, omit: 1 };
        let at = |rate| span.at(Rate::from_bytes_per_second(rate).unwrap());
        assert_eq!((at(999_999).seconds, at(999_999).omit), (12, 1));
        assert_eq!(at(1_000_000).seconds, 4);
    }

    fn finish(script: &str, patience: Duration) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut iperf = Iperf::start(command).unwrap();
        let deadline = Instant::now() + patience;
        format!("{:#}", iperf.finish(Counted::all(1), deadline, &Stop::default()).unwrap_err())
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let began = Instant::now();
        assert_eq!(finish("exec sleep 1000", Duration::from_millis(50)), "it hung, and was ended");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn one_that_fails_is_quoted() {
        let said = finish("echo oops; echo why >&2; exit 3", Duration::from_secs(20));
        for words in ["exit status: 3", "no report of iperf3's: \"oops\"", "why"] {
            assert!(said.contains(words), "{said}");
        }
        let report = r#"{"error": "unable to connect", "intervals": [], "end": {}}"#;
        let said = finish(&format!("echo '{report}'; exit 1"), Duration::from_secs(20));
        assert!(said.contains("iperf3: unable to connect"), "{said}");
    }
}
