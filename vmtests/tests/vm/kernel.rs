//! That this is the kernel which the matrix names, and that it is seen as what it is.

use vmtests::machines::matrix::Kernel;

/// The matrix's entry, from the runner.
fn entry() -> Kernel {
    let text = std::env::var("VMTESTS_KERNEL").expect("VMTESTS_KERNEL: run by `vmtests vm`");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn vm_probes_find_what_the_matrix_expects_of_this_kernel() {
    let entry = entry();
    let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
    assert!(entry.is_release(&release), "{release} is not {}", entry.wanted());
    assert_eq!(kernel::probe::support().unwrap(), entry.expect, "{release}");
    assert_eq!(kernel::probe::tcx(), Ok(entry.tcx), "{release}");
}
