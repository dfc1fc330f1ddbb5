//! The engine as a process for the gate: see `vmtests::gate::agent`.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    vmtests::gate::agent::serve()
}
