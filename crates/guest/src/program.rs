//! The guest process, from its command line to its exit status.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::Arc;

use crate::flags::play;
use crate::guest::Guest;
use crate::handoff::{HandedOff, hand_off};
use crate::memory::Memory;
use crate::options::{HELP, Options};
use crate::protocol::{Line, Op, Ready, Refusal, Request};
use crate::raw::recover_from_sigbus;
use crate::user::become_user;
use crate::voice::{reply, say};
use crate::workers::{Workers, execute};

/// Runs a guest in this process until it is told to exit or standard input ends.
///
/// `args` is the command line without the name of the program. Threads of the guest may still be
/// waiting for pages when this returns: exit the process then.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(error) => return fail(error, 2),
    };
    let guest = match start(&options) {
        Ok(guest) => guest,
        Err(error) => return fail(error.message, 1),
    };
    obey(&guest);
    ExitCode::SUCCESS
}

fn fail(error: impl Display, status: u8) -> ExitCode {
    let message = error.to_string();
    eprintln!("uffd-guest: {message}");
    say(&Line::Failed(Refusal::new(message)));
    ExitCode::from(status)
}

/// Allocates memory, hands it off and says so.
fn start(options: &Options) -> Result<Arc<Guest>, Refusal> {
    let page_size = options.pattern.page_size;
    if let Some(id) = options.user {
        let refused = |errno| Refusal::new(format!("cannot become user {id}: {errno}"));
        become_user(id).map_err(refused)?;
    }
    let memory = match &options.map_file {
        Some(file) => Memory::map_file(&options.pages, &File::open(file)?),
        None => Memory::map(&options.pages, page_size, options.place),
    };
    let memory = memory.map_err(|errno| Refusal::new(format!("cannot map the memory: {errno}")))?;
    recover_from_sigbus()?;
    let handed = hand_off(options, &memory).map_err(|error| Refusal::new(error.to_string()))?;
    let ready = Ready {
        pid: std::process::id().cast_signed(),
        page_size,
        regions: memory.regions.clone(),
        user_mode_only: handed.user_mode_only,
    };
    let HandedOff { uffd, socket, storm, .. } = handed;
    let guest = Arc::new(Guest::new(memory, options.pattern, uffd, socket, storm));
    if options.play_flags {
        play(Arc::clone(&guest))?;
    }
    say(&Line::Ready(ready));
    Ok(guest)
}

/// Executes requests until there are no more.
fn obey(guest: &Arc<Guest>) {
    let mut workers = Workers::new(Arc::clone(guest));
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        if line.trim().is_empty() {
            continue;
        }
        let request: Request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                say(&Line::Failed(Refusal::new(format!("not a request: {error}: {line}"))));
                continue;
            }
        };
        let Request { id, thread, op } = request;
        if op.is_immediate() {
            reply(id, execute(guest, &op));
            if op == Op::Exit {
                return;
            }
        } else if let Err(error) = workers.submit(thread, id, op) {
            reply(id, Err(error.into()));
        }
    }
}
