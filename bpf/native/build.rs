//! Compiles the packet programs and their arithmetic for this machine.

use std::env;
use std::path::PathBuf;

/// Compiles the packet programs and their arithmetic for this machine, which is what the tests call.
///
/// With `CHAD_NATIVE_SHARED` they become a shared library, so that `scripts/mutants-c` can put another one in its place
/// without building anything else.
fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-env-changed=CHAD_NATIVE_SHARED");
    let includes = ["c", "../programs", "../../kernel/programs"];
    for folder in includes {
        println!("cargo::rerun-if-changed={folder}");
    }
    let sources = ["c/arithmetic.c", "c/packets.c"];
    let mut build = cc::Build::new();
    build.includes(includes).files(sources).extra_warnings(false);
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
