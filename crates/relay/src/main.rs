//! The program `posthouse`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_pages_small();
    relay::cli::main()
}

/// Memory is what this program says it uses: with huge pages, which the allocator asks the kernel for, a process that needs 60 MB
/// holds 150, and more the longer it runs.
#[cfg(target_os = "linux")]
fn keep_pages_small() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        eprintln!("huge pages stay on ({error}): more memory will be in use than needed");
    }
}

#[cfg(not(target_os = "linux"))]
fn keep_pages_small() {}
