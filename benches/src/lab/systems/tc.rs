//! Limits with traffic control: qdiscs and the policer.

use anyhow::Result;
use bpf::limits::Rate;

use super::super::cell::Way;
use super::super::expect::Counted;
use super::super::network::{ALL, NEAR, Network, redirect};
use super::super::setup::{Refusal, Setup};
use super::{Installed, System, policer_burst};

/// The interface that gives incoming traffic a queue. Incoming traffic has none of its own.
const NEAR_IN: &str = "chadtest3";

/// Returns the burst of a shaper, in bytes: 10 ms, and at least two packets.
fn shaper_burst(rate: Rate) -> u64 {
    (rate.bytes_per_second() / 100).max(3_200)
}

/// The queue length of the ifb, in packets, as on an ordinary interface. The default of an `ifb` is 32, which the
/// classes of `htb` would inherit.
const QUEUE: u32 = 1000;

/// Creates the interface that shapes this direction at its root.
fn shaped(setup: &mut Setup, way: Way) -> Result<&'static str, Refusal> {
    if way == Way::Up {
        return Ok(NEAR);
    }
    let delete = format!("ip link del {NEAR_IN}");
    setup.run(&format!("ip link add {NEAR_IN} txqueuelen {QUEUE} type ifb"), Some(&delete))?;
    setup.run(&format!("ip link set {NEAR_IN} up"), None)?;
    clsact(setup)?;
    setup.run(&format!("tc {}", redirect(NEAR, NEAR_IN)), None)?;
    Ok(NEAR_IN)
}

fn clsact(setup: &mut Setup) -> Result<(), Refusal> {
    let delete = format!("tc qdisc del dev {NEAR} clsact");
    setup.run(&format!("tc qdisc add dev {NEAR} clsact"), Some(&delete))
}

#[derive(Debug)]
pub(super) struct Htb;

impl System for Htb {
    fn note(&self) -> &'static str {
        "`tc htb`, one class, burst 10 ms; downloads are redirected through an `ifb` with a queue of 1,000 \
         packets. Counts the Ethernet header too. Limits the interface."
    }

    fn counted(&self, _: Way) -> Counted {
        Counted::Ethernet
    }

    fn install(&self, _: &Network, way: Way, rate: Rate) -> Result<Box<dyn Installed>, Refusal> {
        let mut setup = Setup::default();
        let device = shaped(&mut setup, way)?;
        let (burst, rate) = (shaper_burst(rate), rate.bytes_per_second());
        setup.run(
            &format!("tc qdisc add dev {device} root handle 1: htb default 1"),
            Some(&format!("tc qdisc del dev {device} root")),
        )?;
        setup.run(
            &format!(
                "tc class add dev {device} parent 1: classid 1:1 htb rate {rate}bps burst {burst} cburst {burst}"
            ),
            None,
        )?;
        Ok(Box::new(setup))
    }
}

#[derive(Debug)]
pub(super) struct Tbf;

impl System for Tbf {
    fn note(&self) -> &'static str {
        "`tc tbf`, latency 50 ms, burst 10 ms; downloads are redirected through an `ifb` with a queue of 1,000 \
         packets. Counts the Ethernet header too. Limits the interface."
    }

    fn counted(&self, _: Way) -> Counted {
        Counted::Ethernet
    }

    fn install(&self, _: &Network, way: Way, rate: Rate) -> Result<Box<dyn Installed>, Refusal> {
        let mut setup = Setup::default();
        let device = shaped(&mut setup, way)?;
        let (burst, rate) = (shaper_burst(rate), rate.bytes_per_second());
        setup.run(
            &format!(
                "tc qdisc add dev {device} root tbf rate {rate}bps burst {burst} latency 50ms"
            ),
            Some(&format!("tc qdisc del dev {device} root")),
        )?;
        Ok(Box::new(setup))
    }
}

#[derive(Debug)]
pub(super) struct Police;

impl System for Police {
    fn note(&self) -> &'static str {
        "`tc police`, burst 250 ms and at least 128 KiB, at clsact. Counts the Ethernet header of what is sent, \
         and of what is received the headers once for all segments that GRO has put together, and is held to a \
         range for that. Limits the interface."
    }

    fn counted(&self, way: Way) -> Counted {
        match way {
            Way::Up => Counted::Ethernet,
            Way::Down => Counted::IpOncePerPacket,
        }
    }

    fn install(&self, _: &Network, way: Way, rate: Rate) -> Result<Box<dyn Installed>, Refusal> {
        let mut setup = Setup::default();
        let hook = match way {
            Way::Up => "egress",
            Way::Down => "ingress",
        };
        let (burst, rate) = (policer_burst(rate), rate.bytes_per_second());
        clsact(&mut setup)?;
        setup.run(
            &format!(
                "tc filter add dev {NEAR} {hook} protocol all prio 1 {ALL} action police rate {rate}bps burst {burst} conform-exceed drop"
            ),
            None,
        )?;
        Ok(Box::new(setup))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shaper_can_always_send_a_packet() {
        let burst = |rate| shaper_burst(Rate::from_bytes_per_second(rate).unwrap());
        assert_eq!(burst(125_000), 3_200);
        assert_eq!(burst(125_000_000), 1_250_000);
    }
}
