//! Runs the engine as a process for the sequences: see `vmtests::sequences::agent`.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    vmtests::sequences::agent::serve()
}
