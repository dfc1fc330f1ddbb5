//! One owner of the gate on the kernel: an engine that does what it is told on standard input.
#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    vmtests::gate::agent::serve(std::io::stdin().lock(), std::io::stdout().lock())
}
