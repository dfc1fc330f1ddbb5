//! Loads the programs of `programs/packet_path.bpf.c` and runs them on a packet.

use std::time::Duration;

use anyhow::{Context, ensure};
use bpf::limits::Limits;
use bpf::state::ThrottleState;
use libbpf_rs::btf::types::DataSec;
use libbpf_rs::btf::{Btf, BtfType};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput, ProgramType};
use nix::time::{ClockId, clock_gettime};

use crate::packet::Packet;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/packet_path.bpf.o"));

/// Any value except 0. With 0 the verifier removes the code that sets and checks marks.
const MARK: u32 = 0x6368_6164;

/// The most repetitions that the kernel accepts in one call.
const MOST_REPEATS: u64 = 1 << 31;

/// The loaded programs, attached nowhere. The kernel unloads them when this is dropped or the process ends.
pub struct Programs {
    object: Object,
    limits: MapHandle,
}

impl Programs {
    /// Loads the programs. Needs Linux 5.12, `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn load() -> anyhow::Result<Self> {
        let mut open =
            ObjectBuilder::default().open_memory(OBJECT).context("cannot read the object")?;
        for mut program in open.progs_mut() {
            // The kernel has no test run for the other programs. The module `tcp` measures those.
            let is_run = matches!(program.prog_type(), ProgramType::CgroupSkb);
            program.set_autoload(is_run);
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_owned();
            if name == "chad_sockets" {
                map.set_autocreate(false)?;
            } else if name.to_string_lossy().ends_with(".rodata") {
                let data = map.initial_value_mut().context("the read-only data has no value")?;
                for (variable, offset) in read_only_variables()? {
                    if variable == "dropped_mark" || variable == "dropped_priority" {
                        let place = data.get_mut(offset..offset + 4).context("outside the data")?;
                        place.copy_from_slice(&MARK.to_ne_bytes());
                    }
                }
            }
        }
        let object = open.load().context("the kernel does not load the programs")?;
        let limits = object
            .maps()
            .find(|map| map.name().to_string_lossy().ends_with(".bss"))
            .context("the object has no variables")?;
        let limits = MapHandle::try_from(&limits)?;
        Ok(Self { object, limits })
    }

    /// Sets the limits of both directions, with the whole burst available. `None` disarms them.
    ///
    /// # Errors
    /// Fails if the limits cannot be written.
    pub fn limit(&self, limits: Option<&Limits>) -> anyhow::Result<()> {
        let state = match limits {
            Some(limits) => {
                let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
                ThrottleState::armed(limits, u64::try_from(now.as_nanos())?)
            }
            None => ThrottleState::disarmed(),
        };
        let value = state.as_bytes().repeat(2);
        ensure!(
            value.len() == self.limits.value_size() as usize,
            "the variables are not the two limits alone"
        );
        Ok(self.limits.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY)?)
    }

    /// Runs a program on a packet `times` times, and returns the processor time. It checks the verdict, because another
    /// verdict means that the wrong case was measured.
    ///
    /// # Errors
    /// Fails if the kernel refuses or the verdict differs.
    pub fn run(
        &self,
        program: &str,
        packet: &Packet,
        repeats: u64,
        verdict: u32,
    ) -> anyhow::Result<Duration> {
        let found = self.object.progs_mut().find(|it| it.name() == program);
        let found = found.with_context(|| format!("there is no program {program}"))?;
        let repeats = u32::try_from(repeats.clamp(1, MOST_REPEATS))?;
        let input = ProgramInput {
            data_in: Some(packet.frame()),
            repeat: repeats,
            ..ProgramInput::default()
        };
        let start = processor_time()?;
        let output = found.test_run(input).with_context(|| format!("cannot run {program}"))?;
        let time = processor_time()?.saturating_sub(start);
        ensure!(
            output.return_value == verdict,
            "{program} returned {}, not {verdict}: it was not in the state that was to be measured",
            output.return_value
        );
        Ok(time)
    }
}

/// Returns the processor time of this thread, which excludes what others do on a busy machine. The kernel's own figure
/// excludes that too, but only has whole nanoseconds.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Returns the names and offsets of the variables that become constants when the programs are loaded.
fn read_only_variables() -> anyhow::Result<Vec<(String, usize)>> {
    let btf = Btf::from_raw("packet_path", OBJECT)?.context("the object has no types")?;
    let section: DataSec<'_> =
        btf.type_by_name(".rodata").context("the object has no constants")?;
    section
        .iter()
        .map(|variable| {
            let found: BtfType<'_> = btf.type_by_id(variable.ty).context("an unknown type")?;
            let name = found.name().context("a variable without a name")?;
            Ok((name.to_string_lossy().into_owned(), variable.offset as usize))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_the_mark_are_found_in_the_object() {
        let variables = read_only_variables().unwrap();
        for name in ["dropped_mark", "dropped_priority"] {
            assert_eq!(variables.iter().filter(|(found, _)| found == name).count(), 1, "{name}");
        }
    }
}
