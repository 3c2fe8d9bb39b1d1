//! The guardian that proofs have beside their keepers.

use std::process::ExitCode;

fn main() -> ExitCode {
    uffd_guardian::run(std::env::args_os().skip(1))
}
