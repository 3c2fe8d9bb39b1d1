//! A server of its own, that is asked and answers over its standard input and output. Ends when
//! its input does, whatever its sessions are doing.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, Write};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use serde::Serialize;
use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{End, Notice, Observer, Reply, Session};
use uffd_core::source::{Fetcher, FileSource, Source};
use uffd_core::stats::Stats;
use uffd_core::units::PageRange;
use uffd_guest::user::become_user;

use crate::apart::{Ask, Line, Request, Role, Sight};
use crate::facts::{Exported, Figures, Prefaulted};
use crate::sources::{Cold, Held};

type Failure = Box<dyn std::error::Error>;

pub(super) fn play(args: &[String]) -> Result<(), Failure> {
    let [role] = args else { return Err("a handler needs to know its role".into()) };
    let mut role: Role = serde_json::from_str(role)?;
    if let Some(cgroup) = role.cgroup.take() {
        fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    match role.sight {
        Sight::Full => {}
        Sight::OtherUser(id) => become_user(id)?,
        Sight::OtherNamespace => {
            role.sight = Sight::Full;
            return play_inside(&role);
        }
    }
    serve(&role)
}

/// A pid namespace is that of the children of whoever asked for it.
fn play_inside(role: &Role) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let role = serde_json::to_string(role)?;
    let status = Command::new(std::env::current_exe()?).args(["handler", &role]).status()?;
    if status.success() { Ok(()) } else { Err(status.to_string().into()) }
}

fn serve(role: &Role) -> Result<(), Failure> {
    let file = FileSource::open(&role.snapshot)?;
    let source: Arc<dyn Source> = match &role.held_by {
        Some(until) => Arc::new(Held { file, until: until.clone() }),
        None if role.cold => Arc::new(Cold(file)),
        None => Arc::new(file),
    };
    let fetcher = Arc::new(Fetcher::new(source));
    let sessions = Arc::new(Sessions::default());
    let options = ServerOptions { session: role.session(), ..ServerOptions::default() };
    // Guests of other users connect as well.
    umask(Mode::empty());
    let server = Server::start(&role.socket, fetcher, options, sessions.clone())?;
    say(&Line::Ready);
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        sessions.obey(serde_json::from_str(&line)?);
    }
    // Nothing is waited for: a session may be frozen, which is for the test to find out.
    std::mem::forget((server, sessions));
    std::process::exit(0);
}

/// All sessions, by the number of the guest.
#[derive(Default)]
struct Sessions {
    running: Arc<Mutex<HashMap<u64, Session>>>,
    arrived: AtomicU64,
}

struct OfGuest(u64);

impl ServerObserver for Sessions {
    fn arriving(&self) -> Arriving {
        let number = self.arrived.fetch_add(1, Ordering::Relaxed);
        let running = Arc::clone(&self.running);
        let served = move |session: Session| {
            let pid = session.pid();
            running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, session);
            say(&Line::Guest { number, pid });
        };
        Arriving { observer: Box::new(OfGuest(number)), served: Box::new(served) }
    }
    fn refused(&self, refusal: Refusal) {
        say(&Line::Refused { code: refusal.code().to_owned(), text: refusal.to_string() });
    }
}

impl Observer for OfGuest {
    fn notice(&mut self, notice: Notice) {
        say(&Line::Notice { guest: self.0, text: format!("{notice:?}") });
    }
    fn ended(&mut self, end: &End, stats: Stats) {
        say(&Line::Ended { guest: self.0, ending: end.into(), figures: stats.into() });
    }
}

impl Sessions {
    fn obey(&self, Request { id, guest, ask }: Request) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = running.get(&guest) else { return answer::<()>(id, None) };
        match ask {
            Ask::Export => session.export_with(reply(id, Exported::from)),
            Ask::Figures => session.stats_with(reply(id, Figures::from)),
            Ask::Settle => session.settle_with(reply(id, |()| ())),
            Ask::Prefault { ranges } => {
                let ranges = ranges.into_iter().map(|(start, end)| PageRange::new(start, end));
                let reply = reply(id, Prefaulted::from);
                if session.prefault_with(ranges.collect(), reply).is_err() {
                    answer::<()>(id, None);
                }
            }
            Ask::Stop => session.begin_stop(),
            Ask::Kill => answer(id, Some(session.kill())),
        }
    }
}

fn reply<T: Send + 'static, A: Serialize>(
    id: u64,
    of: impl FnOnce(T) -> A + Send + 'static,
) -> Reply<T> {
    Reply::new(move |result: Result<T, _>| answer(id, result.ok().map(of)))
}

fn answer<A: Serialize>(id: u64, answer: Option<A>) {
    let value = |answer| serde_json::to_value(answer).expect("answers are plain data");
    say(&match answer.map(value) {
        Some(answer) => Line::Answer { id, answer },
        None => Line::EndedBefore { id },
    });
}

fn say(line: &Line) {
    let mut text = serde_json::to_string(line).expect("lines are plain data");
    text.push('\n');
    // Nobody listens any more: standard input ends then as well.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
