//! A service manager for tests. It starts one service as systemd does, again and again: with sockets
//! that it listens on, with the descriptors that the service has had it keep, and with a socket of its
//! own where it is told what becomes of the service (`sd_notify(3)`, `sd_listen_fds(3)`).
//!
//! It is asked by a line of JSON each, and tells what happens by lines of JSON.
//!
//! `uffd-manager guardian DIR VERSION` plays a guardian of another version instead.

mod activation;
mod guardian;
mod orders;
mod store;
mod voice;

use std::error::Error;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::Arc;

use orders::{Options, Order};
use store::Store;

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((word, program)) if word == "exec" => activation::become_service(program),
        Some((word, [dir, version])) if word == "guardian" => match version.parse() {
            Ok(version) => guardian::stand_in(dir.as_ref(), version).map_err(Into::into),
            Err(_) => Err(format!("{version} is no version").into()),
        },
        Some((options, [])) => manage(options),
        _ => Err("usage: uffd-manager OPTIONS, as one object of JSON".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uffd-manager: {error}");
            ExitCode::FAILURE
        }
    }
}

fn manage(options: &str) -> Result<(), Failure> {
    let options: Options = serde_json::from_str(options)?;
    let store = Arc::new(Store::new(&options)?);
    let listening = Arc::clone(&store);
    std::thread::spawn(move || listening.listen());
    let mut service = None;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Start { program, env } => {
                service = Some(activation::start(&store, &options, &program, &env)?);
            }
            Order::Kill { signal } => {
                let pid = service.ok_or("there is no service")?;
                let signal = rustix::process::Signal::from_named_raw(signal).ok_or("no signal")?;
                rustix::process::kill_process(pid, signal)?;
            }
            Order::Keep { name } => store.keep(name, std::fs::File::open("/dev/null")?.into()),
            Order::Rename { from, to } => store.rename(&from, &to),
            Order::Store => {
                store.catch_up()?;
                voice::say(&serde_json::json!({ "store": store.names() }));
            }
            Order::Deaf { deaf } => store.be_deaf(deaf)?,
        }
    }
    // Whoever asked is gone, and the service with it.
    if let Some(pid) = service {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    Ok(())
}
