//! The `foldline` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    foldline::cli::main()
}
