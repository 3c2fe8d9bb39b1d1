//! A handler in a pid namespace of its own, from which its guests cannot be seen: as in a
//! container that does not share the host's processes. Prints a line for whatever happens, and
//! ends when its standard input does.

use std::io::{Read, Write};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};

use nix::sched::{CloneFlags, unshare};
use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{End, Notice, Observer, Session};
use uffd_core::source::{Fetcher, FileSource};
use uffd_core::stats::Stats;

type Failure = Box<dyn std::error::Error>;

/// The third argument of the process that is inside.
const INSIDE: &str = "inside";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [socket, snapshot] => enter(socket, snapshot),
        [socket, snapshot, INSIDE] => serve(socket, snapshot),
        _ => Err("usage: uffd-proof-handler SOCKET SNAPSHOT".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("uffd-proof-handler: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The namespace is that of the children of whoever asked for it.
fn enter(socket: &str, snapshot: &str) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let status =
        Command::new(std::env::current_exe()?).args([socket, snapshot, INSIDE]).status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}

fn serve(socket: &str, snapshot: &str) -> Result<(), Failure> {
    let source = FileSource::open(snapshot.as_ref())?;
    let fetcher = Arc::new(Fetcher::new(Arc::new(source)));
    let sayer = Arc::new(Sayer::default());
    let _server = Server::start(socket.as_ref(), fetcher, ServerOptions::default(), sayer.clone())?;
    say("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    sayer.sessions.lock().map_err(|error| error.to_string())?.clear();
    Ok(())
}

/// Prints what it is told.
#[derive(Default)]
struct Sayer {
    sessions: Arc<Mutex<Vec<Session>>>,
}

struct OfGuest;

impl ServerObserver for Sayer {
    fn arriving(&self) -> Arriving {
        let sessions = Arc::clone(&self.sessions);
        let served = move |session: Session| {
            say(&format!("guest {:?}, killed: {}", session.pid(), session.kill()));
            if let Ok(mut sessions) = sessions.lock() {
                sessions.push(session);
            }
        };
        Arriving { observer: Box::new(OfGuest), served: Box::new(served) }
    }
    fn refused(&self, refusal: Refusal) {
        say(&format!("refused {refusal}"));
    }
}

impl Observer for OfGuest {
    fn notice(&mut self, notice: Notice) {
        say(&format!("notice {notice:?}"));
    }
    fn ended(&mut self, end: &End, stats: Stats) {
        let counters = stats.counters;
        say(&format!("end {end:?}, {} wakes", counters.wakes));
    }
}

fn say(line: &str) {
    // Nobody listens any more: standard input ends then as well.
    let _ = writeln!(std::io::stdout(), "{line}");
}
