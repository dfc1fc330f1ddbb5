//! Whether the programs compile for each architecture, whichever this one is: libbpf's headers differ.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What clang says against it, with what the build gives clang for that architecture.
fn faults(source: &Path, architecture: &str) -> String {
    // The C library's folder for the host: the types that are read there are the same on both.
    let host = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let output = Command::new("clang")
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-fsyntax-only"])
        .arg(format!("-D__TARGET_ARCH_{architecture}"))
        .args(["-I", env!("LIBBPF_INCLUDE"), "-I", env!("KERNEL_INCLUDE"), &host])
        .arg(source)
        .output()
        .expect("clang builds the programs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn every_program_compiles_for_x86_and_for_arm64() {
    let mut sources: Vec<_> =
        fs::read_dir("programs").unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.to_string_lossy().ends_with(".bpf.c"));
    assert!(sources.len() >= 3, "{sources:?}");
    for source in sources {
        for architecture in ["x86", "arm64"] {
            assert_eq!(faults(&source, architecture), "", "{}, {architecture}", source.display());
        }
    }
}
