//! The guest of the tests in this package: they find it by its name.

use std::process::ExitCode;

fn main() -> ExitCode {
    uffd_guest::program::main(std::env::args_os().skip(1))
}
