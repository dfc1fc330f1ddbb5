//! Compiles the programs that the bench `packet_path` runs. They contain the real packet programs, but are no
//! part of what is loaded on anybody's host, so they are not in the crate `bpf`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "programs/packet_path.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed=programs");
    for folder in ["../bpf/programs", "../kernel/programs"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // As the crate `bpf` compiles them: what is measured must be what runs.
    let mut args =
        vec!["-mcpu=v3".to_owned(), "-Wall".to_owned(), "-I../kernel/programs".to_owned()];
    args.extend(multiarch_include());
    SkeletonBuilder::new()
        .source(SOURCE)
        .obj(out.join("packet_path.bpf.o"))
        .clang_args(args)
        .build()
        .unwrap_or_else(|error| {
            panic!("{SOURCE} does not compile; is clang installed? Run scripts/setup: {error:?}")
        });
}

/// Debian and Ubuntu keep `asm/types.h` below a folder named after the machine, which `-target bpf`
/// does not look into.
fn multiarch_include() -> Option<String> {
    let output = Command::new("cc").arg("-print-multiarch").output().ok()?;
    let triple = String::from_utf8(output.stdout).ok()?;
    let triple = triple.trim();
    (!triple.is_empty()).then(|| format!("-I/usr/include/{triple}"))
}
