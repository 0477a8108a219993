//! Entry point: everything is in the library.

use std::process::ExitCode;

// Rows in memory are made by one thread and given back by another, for which an allocator with a
// heap for each thread keeps much of what was given back (docs/decisions/0020).
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    samestate::cli::run()
}
