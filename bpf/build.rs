//! Compiles the packet programs and makes their skeletons.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    println!("cargo::rerun-if-changed=programs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    for name in ["throttle", "adopt", "follow"] {
        skeleton(name, &out);
    }
    as_plain_bytes(&out.join("throttle.skel.rs"));
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where libbpf's headers are");
    println!("cargo::rustc-env=LIBBPF_INCLUDE={headers}");
    println!("cargo::rustc-env=KERNEL_INCLUDE={}", kernel_headers());
}

/// The structures of maps' keys and values, which the crate reads and writes as bytes.
const PLAIN: [&str; 8] = [
    "throttle_traffic",
    "throttle_flow",
    "throttle_state",
    "throttle_cgroup",
    "throttle_counters",
    "throttle_waiting",
    "throttle_socket",
    "bpf_cgroup_storage_key",
];

/// Has the compiler prove of these structures that they are plain bytes: numbers without padding between them.
fn as_plain_bytes(skeleton: &Path) {
    let mut text = fs::read_to_string(skeleton).expect("the skeleton was just made");
    for name in PLAIN {
        let at = ["#[repr(C)]", "#[repr(transparent)]"].iter().find_map(|shape| {
            let head = format!("pub struct {name}");
            text.match_indices(shape).map(|(at, _)| at).find(|&at| {
                let item = text[at + shape.len()..].trim_start();
                item.strip_prefix(&*head).is_some_and(|rest| rest.starts_with([' ', '(']))
            })
        });
        let at = at.unwrap_or_else(|| panic!("the skeleton has no {name}"));
        text.insert_str(
            at,
            "#[derive(zerocopy::IntoBytes, zerocopy::FromBytes, zerocopy::Immutable)]\n",
        );
    }
    fs::write(skeleton, text).expect("the skeleton can be written again");
}

/// Where the crate below keeps its headers for BPF programs.
fn kernel_headers() -> String {
    env::var("DEP_CGROUP_BPF_INCLUDE").expect("cgroup-bpf says where its headers are")
}

/// Compiles a BPF object and makes the Rust code that loads it.
fn skeleton(name: &str, out: &Path) {
    let source = format!("programs/{name}.bpf.c");
    let kernel = kernel_headers();
    let mut args = vec!["-mcpu=v3".to_owned(), "-Wall".to_owned(), format!("-I{kernel}")];
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
