//! Benchmarks: what a page fault costs under uffd-rs, beside the least handler there can be, the
//! kernel's own mapping of the file, and the speed of copying.
//!
//! Contenders take turns in one process, so that what is compared ran within the same second; what
//! counts is the ratio of two contenders in one round. `docs/benchmarks.md` says how to read it.
//!
//! - [`workloads`] says what is measured, as plain data; [`boot`] makes the boot-like order;
//! - [`stand`] sets up a guest and whoever serves it; [`plain`] is the least handler;
//! - [`run`] carries a plan out and [`measure`] is what comes of it;
//! - [`suite`] runs everything, [`results`] keeps it, [`targets`] says what has to be reached and
//!   [`report`] tells it.

mod boot;
mod host;
mod interrupt;
mod measure;
mod memory;
mod options;
mod packed;
mod plain;
mod plan;
mod report;
mod results;
mod run;
mod snapshots;
mod stand;
mod suite;
mod target;
mod targets;
mod workloads;

use std::process::ExitCode;

use options::{Command, HELP, Options};

/// The first argument of the guest processes, which are this program too.
const AS_GUEST: &str = "--as-guest";

/// Anything that keeps a benchmark from being carried out.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // Servers that are killed, their guests and their guardians are this program too.
    if let Some(status) = uffd_proof::roles::play(&args) {
        return status;
    }
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|arg| arg == AS_GUEST) {
        return uffd_guest::program::main(args.skip(1));
    }
    match Options::parse(args) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::List) => {
            report::list();
            ExitCode::SUCCESS
        }
        Ok(Command::Run(options)) => match suite::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("uffd-bench: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("uffd-bench: {error}");
            ExitCode::from(2)
        }
    }
}
