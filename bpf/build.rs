//! Compiles the packet programs, makes their skeleton, and compiles them and their arithmetic for the tests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    println!("cargo::rerun-if-changed=programs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    for name in ["throttle", "adopt", "walk", "files", "follow", "calls"] {
        skeleton(name, &out);
    }
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where libbpf's headers are");
    println!("cargo::rustc-env=LIBBPF_INCLUDE={headers}");
    native(&out);
}

/// Compiles the packet programs and their arithmetic for this machine, which is what the tests call.
///
/// With `CHAD_NATIVE_SHARED` they become a shared library, so that `scripts/mutants-c` can put another one in its place
/// without building anything else.
fn native(out: &Path) {
    println!("cargo::rerun-if-env-changed=CHAD_NATIVE_SHARED");
    let sources = ["programs/native.c", "programs/native_packets.c"];
    let mut build = cc::Build::new();
    build.include("programs/native").files(sources).extra_warnings(false);
    // What only clang's BPF target knows.
    build.flag("-Wno-unknown-pragmas").flag_if_supported("-Wno-attributes");
    if env::var_os("CHAD_NATIVE_SHARED").is_none() {
        build.compile("chad_native");
        return;
    }
    let library = out.join("libchad_native.so");
    let mut compiler = build.get_compiler().to_command();
    let made = compiler.args(["-shared", "-fPIC", "-o"]).arg(library).args(sources).status();
    assert!(made.is_ok_and(|status| status.success()), "the tests' C code does not compile");
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=dylib=chad_native");
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
