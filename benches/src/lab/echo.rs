//! Sends small datagrams to the far end and back. This shows the delay of traffic beside the load, or within it.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::stats::quantile;

/// The payload of a probe in bytes. It is the number of the probe.
pub const LENGTH: u32 = 8;
/// The number of probes per second.
pub const A_SECOND: f64 = 20.0;
/// The wait for the last replies. A later reply counts as lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a thread checks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// The server at the far end, which sends every datagram back. Dropping it ends the server.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts the server in a network namespace. Needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// Fails if the thread cannot enter the namespace or listen there.
    pub fn start(network: PathBuf, address: &'static str) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let (told, ready) = std::sync::mpsc::channel();
        let ends = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            // Each thread has its own network namespace.
            let listen = || -> io::Result<UdpSocket> {
                setns(File::open(network)?, CloneFlags::CLONE_NEWNET)?;
                let socket = UdpSocket::bind((address, 0))?;
                socket.set_read_timeout(Some(LOOK))?;
                Ok(socket)
            };
            match listen() {
                Ok(socket) => {
                    let _ = told.send(socket.local_addr());
                    echo(&socket, &ends);
                }
                Err(error) => {
                    let _ = told.send(Err(error));
                }
            }
        });
        let address = ready.recv().context("the echo has ended")?.context("the echo")?;
        Ok(Self { address, end, thread: Some(thread) })
    }

    /// Returns the address where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread returns no result.
            let _ = thread.join();
        }
    }
}

fn echo(socket: &UdpSocket, end: &AtomicBool) {
    let mut buffer = [0; 64];
    while !end.load(Ordering::Relaxed) {
        // A timeout, or an error about an earlier reply, does not keep the server from answering the next probe.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// Sends probes and measures the time of each.
#[derive(Debug)]
pub struct Prober {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Echoes>>>,
}

impl Prober {
    /// Starts to send through a socket that is connected to an [`Echo`].
    pub fn start(socket: UdpSocket) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        Self { end, thread: Some(std::thread::spawn(move || probe(&socket, &ends))) }
    }

    /// Stops sending.
    pub fn stop(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Ends the prober after waiting for the last replies.
    ///
    /// # Errors
    /// Fails if the socket failed.
    pub fn end(mut self) -> Result<Echoes> {
        self.stop();
        let thread = self.thread.take().context("the prober has ended")?;
        let ended = thread.join().map_err(|_| anyhow!("the prober has panicked"))?;
        ended.context("the probes' socket")
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The results of the probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Echoes {
    /// The number of probes sent.
    pub sent: u32,
    /// The number of probes that did not come back within half a second after the last one.
    pub lost: u32,
    /// The median time of the probes that came back, in milliseconds. `None` if none came back.
    pub p50_ms: Option<f64>,
    /// The 99th percentile of the probes that came back, in milliseconds.
    pub p99_ms: Option<f64>,
    /// The same quantiles of all probes sent.
    #[serde(default)]
    pub of_all: Option<OfAll>,
}

/// Quantiles of all probes. A lost probe counts as slower than any other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OfAll {
    /// The median, in milliseconds. `None` if that probe was lost.
    pub p50_ms: Option<f64>,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
}

impl Echoes {
    /// Summarizes the times of the probes, in milliseconds. `None` stands for a lost probe.
    fn of(probes: &[Option<f64>]) -> Self {
        let back: Vec<f64> = probes.iter().copied().flatten().collect();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            sent: count(probes.len()),
            lost: count(probes.len() - back.len()),
            p50_ms: quantile(&back, 0.5),
            p99_ms: quantile(&back, 0.99),
            of_all: Some(OfAll { p50_ms: ranked(probes, 0.5), p99_ms: ranked(probes, 0.99) }),
        }
    }

    /// Returns the quantiles of all probes sent. Old results lack them, so the quantiles of the returned probes stand
    /// in where enough came back. Those are never longer.
    pub fn of_all(&self) -> OfAll {
        self.of_all.unwrap_or_else(|| {
            let back = f64::from(self.sent.saturating_sub(self.lost));
            let unless_lost = |part: f64, value: Option<f64>| {
                value.filter(|_| (part * f64::from(self.sent)).ceil() <= back)
            };
            OfAll { p50_ms: unless_lost(0.5, self.p50_ms), p99_ms: unless_lost(0.99, self.p99_ms) }
        })
    }
}

/// Returns a quantile of all probes, or `None` if that probe was lost.
fn ranked(probes: &[Option<f64>], part: f64) -> Option<f64> {
    let times: Vec<f64> = probes.iter().map(|time| time.unwrap_or(f64::INFINITY)).collect();
    quantile(&times, part).filter(|time| time.is_finite())
}

fn probe(socket: &UdpSocket, end: &AtomicBool) -> io::Result<Echoes> {
    let gap = Duration::from_secs_f64(1.0 / A_SECOND);
    let mut probes: Vec<(Instant, Option<f64>)> = Vec::new();
    let mut next = Instant::now();
    while !end.load(Ordering::Relaxed) {
        probes.push((Instant::now(), None));
        match socket.send(&(probes.len() as u64 - 1).to_le_bytes()) {
            Ok(_) => {}
            // Some limits refuse the send (EPERM, ENOBUFS). The probe counts as lost.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
            Err(error) => return Err(error),
        }
        next += gap;
        receive(socket, &mut probes, next)?;
    }
    let deadline = Instant::now() + PATIENCE;
    receive(socket, &mut probes, deadline)?;
    let times: Vec<_> = probes.into_iter().map(|(_, time)| time).collect();
    Ok(Echoes::of(&times))
}

/// Receives replies until the deadline, or until all replies to `probes` have come.
fn receive(
    socket: &UdpSocket,
    probes: &mut [(Instant, Option<f64>)],
    until: Instant,
) -> io::Result<()> {
    let mut number = [0; LENGTH as usize];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut number) {
            Ok(_) => {
                let probe = usize::try_from(u64::from_le_bytes(number))
                    .ok()
                    .and_then(|at| probes.get_mut(at));
                if let Some((sent, time)) = probe {
                    time.get_or_insert(sent.elapsed().as_secs_f64() * 1e3);
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_come_back_is_lost_and_has_no_time() {
        let echoes = Echoes::of(&[Some(3.0), None, Some(1.0), Some(2.0)]);
        let of_all = Some(OfAll { p50_ms: Some(2.0), p99_ms: None });
        let expected = Echoes { sent: 4, lost: 1, p50_ms: Some(2.0), p99_ms: Some(3.0), of_all };
        assert_eq!(echoes, expected);
        assert_eq!(Echoes::of(&[None]).p50_ms, None);
    }

    #[test]
    fn what_did_not_come_back_is_slower_than_all_that_did() {
        let echoes = Echoes::of(&[Some(1.0), None, None, Some(9.0), Some(2.0)]);
        assert_eq!(echoes.of_all(), OfAll { p50_ms: Some(9.0), p99_ms: None });
        // Old results lack the quantiles of all probes, so this is what the others allow to tell.
        let told = |lost| Echoes { sent: 10, lost, of_all: None, ..echoes }.of_all();
        assert_eq!(told(0), OfAll { p50_ms: Some(2.0), p99_ms: Some(9.0) });
        assert_eq!(told(5), OfAll { p50_ms: Some(2.0), p99_ms: None });
        assert_eq!(told(6), OfAll { p50_ms: None, p99_ms: None });
    }

    #[test]
    fn a_probe_takes_as_long_as_the_one_who_echoes_it() {
        const DELAY: Duration = Duration::from_millis(20);
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        let prober = Prober::start(near);
        let mut buffer = [0; 64];
        for _ in 0..3 {
            let (length, from) = far.recv_from(&mut buffer).unwrap();
            std::thread::sleep(DELAY);
            far.send_to(&buffer[..length], from).unwrap();
        }
        let echoes = prober.end().unwrap();
        assert!(echoes.sent >= 3 && echoes.sent - echoes.lost == 3, "{echoes:?}");
        assert!(echoes.p50_ms.unwrap() >= 20.0, "{echoes:?}");
    }
}
