//! The `foldline` binary.

use std::process::ExitCode;

/// Has glibc map large allocations on their own, and so give them back: as it goes along it raises the bound to 32 MiB,
/// and then holes that a growing table leaves in the heap count for a fifth of a worker's memory (mallopt(3)).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn map_large_allocations() {
    const FROM: libc::c_int = 256 << 10;
    // SAFETY: it takes two numbers, and no other thread runs yet.
    #[expect(unsafe_code, reason = "there is no other way to glibc's settings from within")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM);
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    map_large_allocations();
    foldline::cli::main()
}
