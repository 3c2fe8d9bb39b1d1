//! What a process of a proof can be: the guest, a handler apart, or somebody who gets in the way.

mod attacker;
mod drain;
mod handler;
mod keeper;
mod relay;

use std::ffi::OsString;
use std::process::ExitCode;

/// Plays the part that the first argument names, if it names one.
pub fn play(args: &[OsString]) -> Option<ExitCode> {
    // A guardian is started by its own options.
    if args.first().is_some_and(|arg| arg == "--detach" || arg == "--left-behind") {
        return Some(uffd_guardian::run(args.iter().cloned()));
    }
    let (part, args) = args.split_first()?;
    let texts = || args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let played = match part.to_str()? {
        "guardian" => return Some(uffd_guardian::run(args.iter().cloned())),
        "guest" => return Some(uffd_guest::program::main(args.iter().cloned())),
        "handler" => handler::play(&texts()),
        "keeper" => keeper::play(&texts()),
        "attacker" => attacker::play(&texts()),
        "drain" => drain::play(&texts()),
        "relay" => relay::play(&texts()),
        _ => return None,
    };
    Some(match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", part.to_string_lossy());
            ExitCode::FAILURE
        }
    })
}
