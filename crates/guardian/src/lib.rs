//! The guardian of a state directory: it waits beside the server, and serves its guests whenever the
//! server cannot.
//!
//! | module | knows |
//! |---|---|
//! | `options` | the command line |
//! | `detach` | how it outlives whoever started it |
//! | `log` | what it tells |
//! | `failure` | why it gives up |
//! | `snapshots` | the snapshots of its guests, open and proved to be theirs |
//! | `ready` | getting ready for guests, beside everything else |
//! | `guest` | one guest: served here, or by the server |
//! | `service` | whom to listen to, and what is to be done |

mod detach;
mod failure;
mod guest;
mod log;
mod options;
mod ready;
mod service;
mod snapshots;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uffd_core::guardian::Post;
use uffd_core::kernel::serve_guests;
use uffd_core::ledger::StateDir;

use failure::{Failure, NAMED};
use log::Log;
use options::{Command, HELP, Options, Way};
use service::Service;

/// The whole program: obeys its arguments, and says how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match options::parse(args) {
        Ok(Command::Help) => {
            print!("{HELP}");
            Ok(())
        }
        Ok(Command::Version) => {
            println!("uffd-rs-guardian {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Ok(Command::Run(options)) => match options.way {
            Way::Detach => detach::leave_behind(&options),
            Way::LeftBehind => guard(&options),
            Way::Here => guard(&options),
        },
        Err(error) => {
            eprintln!("{NAMED}{error}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAMED}{error}");
            ExitCode::FAILURE
        }
    }
}

fn guard(options: &Options) -> Result<(), Failure> {
    let is_left_behind = options.way == Way::LeftBehind;
    if is_left_behind {
        detach::own_session()?;
    }
    if let Some(cgroup) = &options.cgroup {
        detach::enter(cgroup)?;
    }
    use_all_that_is_allowed();
    serve_guests();
    let log = match &options.log {
        Some(path) => Log::file(path)?,
        None if is_left_behind => Log::nowhere(),
        None => Log::stderr()?,
    };
    let dir = Arc::new(StateDir::open(&options.state_dir)?);
    let post = Post::open(Arc::clone(&dir))?;
    let service = Service::new(dir, post, log)?;
    if is_left_behind {
        detach::tell_that_it_listens()?;
    }
    service.run()
}

/// It may have to serve many guests at once: the limits that programs begin with are for others.
fn use_all_that_is_allowed() {
    for limit in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_MEMLOCK] {
        if let Ok((_, hard)) = getrlimit(limit) {
            let _ = setrlimit(limit, hard, hard);
        }
    }
}
