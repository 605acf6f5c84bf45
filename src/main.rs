//! The `foldline` binary.

use std::process::ExitCode;

/// Has glibc give back what is freed (mallopt(3)), so that a worker stays within its memory.
///
/// - Large allocations are mapped on their own. As it goes along glibc raises the bound to 32 MiB, and then holes that a
///   growing table leaves in the heap count for a fifth of a worker's memory.
/// - All threads share one arena. Each arena keeps what it once held, and what one request needs is taken from another
///   arena each time it runs on another thread: up to a third of a worker's memory lay freed in arenas, more on more cores.
///   Threads keep small blocks to themselves (tcache), so that CPU time does not change measurably.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_memory_back() {
    const MAPPED_FROM: libc::c_int = 256 << 10;
    // SAFETY: it takes two numbers, and no other thread runs yet.
    #[expect(unsafe_code, reason = "there is no other way to glibc's settings from within")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    give_memory_back();
    foldline::cli::main()
}
