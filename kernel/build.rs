//! Compiles this crate's BPF programs, makes their skeletons, and tells dependent crates where its headers are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    println!("cargo::rerun-if-changed=programs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in ["walk", "files", "calls"] {
        skeleton(name, &out);
    }
    let own = env::current_dir().expect("cargo runs this in the crate").join("programs");
    println!("cargo::metadata=include={}", own.display());
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where libbpf's headers are");
    println!("cargo::rustc-env=LIBBPF_INCLUDE={headers}");
}

/// Compiles a BPF object and makes the Rust code that loads it.
fn skeleton(name: &str, out: &Path) {
    let source = format!("programs/{name}.bpf.c");
    let mut args = vec!["-mcpu=v3".to_owned(), "-Wall".to_owned()];
    args.extend(multiarch_include());
    SkeletonBuilder::new()
        .source(&source)
        .clang_args(args)
        .reference_obj(false)
        .build_and_generate(out.join(format!("{name}.skel.rs")))
        .unwrap_or_else(|error| {
            panic!("{source} does not compile; is clang installed? Run scripts/setup: {error:?}")
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
