//! A server that keeps its guests in a state directory, and takes over those that were left there:
//! to be killed at any moment. Asked a word a line, it answers a line; it ends with its input.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use uffd_core::guardian::{self, Client, Launch, News};
use uffd_core::kernel::{Waker, stay_behind};
use uffd_core::ledger::{SnapshotPlace, StateDir};
use uffd_core::recovery::{Awaited, Keep, NotRecovered, Spares};
use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{End, Observer, Reply, Session};
use uffd_core::source::{Fetcher, FileSource};
use uffd_core::stats::Stats;
use uffd_core::units::PageRange;

use crate::facts::{Exported, Figures, Prefaulted};
use crate::keeping::{Heard, Kept};

/// How long it may take to have a guardian that is ready, and to have guests taken by it.
const READY_WITHIN: Duration = Duration::from_secs(5);
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

pub(super) fn play(args: &[String]) -> Result<(), Failure> {
    let [role] = args else { return Err("a keeper needs to know its role".into()) };
    let role: Kept = serde_json::from_str(role)?;
    if let Some(files) = role.files {
        setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    }
    let dir = Arc::new(StateDir::open(&role.state_dir)?);
    let source = Arc::new(FileSource::open(&role.snapshot)?);
    let snapshot = SnapshotPlace::of(&source)?;
    let fetcher = Arc::new(Fetcher::new(source));
    let behind = stay_behind();
    let mut awaited = Awaited::default();
    let never = Waker::new()?;
    let mut claim = Some(dir.claim_unless(&never, || {
        let _ = awaited.look(&dir);
        say(&format!("awaits {}", awaited.count()));
    })?);
    let sessions = Arc::new(Sessions::default());
    let heard = Listener::default();
    let launch = role.guardian.as_ref().map(|program| Launch {
        program: program.clone(),
        cgroup: None,
        log: Some(role.guardian_log()),
    });
    let guardian = match &launch {
        Some(_) => Some(Client::start(Arc::clone(&dir), launch, Box::new(heard.clone()))?),
        None => None,
    };
    let mut client = guardian.clone();
    let keep = Some(Keep { dir, snapshot, guardian, manager: None });
    let options = ServerOptions { session: role.session(), keep, ..ServerOptions::default() };
    let bound = Server::bind(&role.socket, fetcher, options, sessions.clone())?;
    bound.take_over_awaited(&mut Spares::new(), awaited)?;
    let recovered = sessions.count();
    let mut server = Some(bound.open());
    drop(behind);
    say(&format!("ready {recovered}"));
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "hoard" => hoard(),
            "leave" => {
                sessions.leave();
                drop(server.take());
                drop(claim.take());
                say("left");
            }
            // As a server hands over to its guardian: what comes before, and then the rest.
            "get ready" => match client.as_ref().map(|client| client.is_ready(READY_WITHIN)) {
                Some(Err(error)) => say(&format!("stays {}", error.code())),
                _ => say("is ready"),
            },
            "let go" => {
                sessions.leave();
                drop(server.take());
                say("has let go");
            }
            "see to them" => {
                let ownerless = client.take().map(|client| client.see_to_those_left(TAKEN_WITHIN));
                drop(claim.take());
                say(&format!("left {}", ownerless.unwrap_or_default().len()));
            }
            "guardian" => say(&serde_json::to_string(&*heard.lock())?),
            line => sessions.obey(line),
        }
    }
    // Its sessions go as if it had been killed.
    std::process::exit(0);
}

/// Writes down what is heard of the guardian.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Heard>>);

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl guardian::Observer for Listener {
    fn heard(&self, news: News) {
        let mut heard = self.lock();
        match news {
            News::Met { pid } => heard.pid = Some(pid),
            News::Troubled(error) => {
                heard.pid = None;
                heard.guarded.clear();
                heard.troubles.push(error.code().to_owned());
            }
            News::Guarded { id } => drop(heard.guarded.insert(id)),
            News::Unguarded { id, why } => drop(heard.unguarded.insert(id, why)),
        }
    }
}

#[derive(Default)]
struct Sessions(Arc<Mutex<Vec<Session>>>);

impl Sessions {
    fn add(&self, session: Session) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Leaves all guests to the next.
    fn leave(&self) {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().for_each(Session::begin_hand_over);
        sessions.iter().for_each(|session| drop(session.wait()));
    }

    fn obey(&self, line: &str) {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = sessions.last() else { return say("no guest") };
        match line {
            "id" => say(session.id()),
            "export" => match session.export().map(Exported::from) {
                Ok(export) => say(&serde_json::to_string(&export).unwrap_or_default()),
                Err(error) => say(&error.to_string()),
            },
            "settle" => say(&format!("{:?}", session.settle())),
            "release" => say(&format!("{:?}", session.release(false))),
            "prefault" => {
                let regions = session.layout().regions();
                let ranges = regions.iter().map(|region| region.pages).collect();
                // Whoever told it does not wait for what becomes of it.
                let _ = session.prefault_with(ranges, Reply::new(|_| {}));
            }
            "figures" => match session.stats().map(Figures::from) {
                Ok(figures) => say(&serde_json::to_string(&figures).unwrap_or_default()),
                Err(error) => say(&error.to_string()),
            },
            "trace" => match session.trace(0) {
                Ok(trace) => {
                    let pages: Vec<_> = trace.iter().map(|entry| entry.page().0).collect();
                    say(&serde_json::to_string(&pages).unwrap_or_default());
                }
                Err(error) => say(&error.to_string()),
            },
            "hand over" => session.begin_hand_over(),
            "stop" => session.begin_stop(),
            other => match other.strip_prefix("prefault ").map(serde_json::from_str) {
                Some(Ok(ranges)) => prefault(session, ranges),
                _ => say(&format!("what is {other:?}?")),
            },
        }
    }
}

/// Takes memory until somebody ends it.
fn hoard() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1 << 20]);
    }
}

fn prefault(session: &Session, ranges: Vec<(u64, u64)>) {
    let ranges = ranges.into_iter().map(|(start, end)| PageRange::new(start, end)).collect();
    match session.prefault(ranges).map(Prefaulted::from) {
        Ok(report) => say(&serde_json::to_string(&report).unwrap_or_default()),
        Err(error) => say(&error.to_string()),
    }
}

struct OfGuest;

impl Observer for OfGuest {
    fn ended(&mut self, end: &End, _: Stats) {
        say(&format!("end {end:?}"));
    }
}

impl ServerObserver for Sessions {
    fn arriving(&self) -> Arriving {
        let sessions = Self(Arc::clone(&self.0));
        let served = move |session| {
            sessions.add(session);
            say("guest");
        };
        Arriving { observer: Box::new(OfGuest), served: Box::new(served) }
    }

    fn recovering(&self) -> Arriving {
        let sessions = Self(Arc::clone(&self.0));
        Arriving {
            observer: Box::new(OfGuest),
            served: Box::new(move |session| sessions.add(session)),
        }
    }

    fn not_recovered(&self, other: NotRecovered) {
        say(&format!("left {}", other.why.code()));
    }

    fn refused(&self, refusal: Refusal) {
        say(&format!("refused {refusal}"));
    }
}

fn say(line: &str) {
    // Whoever listened may be gone.
    let _ = writeln!(io::stdout(), "{line}");
}
