//! Limits with nftables.

use anyhow::Result;
use bpf::limits::Rate;

use super::super::cell::Way;
use super::super::expect::Counted;
use super::super::network::{NEAR, Network};
use super::super::setup::{Refusal, Setup};
use super::{Installed, System, policer_burst};

#[derive(Debug)]
pub(super) struct Nft;

impl System for Nft {
    fn note(&self) -> &'static str {
        "`nft limit rate over … drop` in the output or input hook, burst 250 ms and at least 128 KiB. Counts \
         the headers once for all segments that GSO or GRO has put together, and is held to a range for that. Who sends datagrams above the limit gets \
         `EPERM`, at which iperf3 gives up. Limits the interface."
    }

    fn counted(&self, _: Way) -> Counted {
        Counted::IpOncePerPacket
    }

    fn install(&self, _: &Network, way: Way, rate: Rate) -> Result<Box<dyn Installed>, Refusal> {
        let (hook, interface) = match way {
            Way::Up => ("output", "oifname"),
            Way::Down => ("input", "iifname"),
        };
        let (burst, rate) = (policer_burst(rate), rate.bytes_per_second());
        let mut setup = Setup::default();
        setup.run("nft add table inet chadtest", Some("nft delete table inet chadtest"))?;
        for command in [
            format!(
                "nft add chain inet chadtest policer {{ type filter hook {hook} priority 0 ; }}"
            ),
            format!(
                "nft add rule inet chadtest policer {interface} {NEAR} limit rate over {rate} bytes/second burst {burst} bytes drop"
            ),
        ] {
            setup.run(&command, None)?;
        }
        Ok(Box::new(setup))
    }
}
