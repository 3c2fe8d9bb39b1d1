//! The guest program; `--help` tells how to use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    uffd_guest::program::main(std::env::args_os().skip(1))
}
