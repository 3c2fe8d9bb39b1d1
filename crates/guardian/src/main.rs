//! The program of the guardian.

use std::process::ExitCode;

fn main() -> ExitCode {
    uffd_guardian::run(std::env::args_os().skip(1))
}
