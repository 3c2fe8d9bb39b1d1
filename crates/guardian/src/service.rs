//! Whom to listen to, and what is to be done: one thread that waits for the server's end, for what it
//! says, and for what this process's other threads have to tell.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use uffd_core::guardian::{
    Answer, Channel, ChannelError, PROTOCOL, Post, PostError, Request, Visitor,
};
use uffd_core::kernel::{Process, Waker};
use uffd_core::ledger::{LedgerError, StateDir};
use uffd_core::recovery::{NotRecovered, Obstruction, Prospect};
use uffd_core::session::{End, SessionError, Standby, Taken};

use super::failure::Failure;
use super::guest::{Guest, Watch};
use super::log::Log;
use super::ready::{Bell, Event, Ready};
use super::snapshots::Snapshots;

/// How long the first server may take to come.
const FIRST_COMES_WITHIN: Duration = Duration::from_secs(10);

/// The pause before it is tried again to take a guest that somebody has; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a server may take to let go of a guest that it is about to leave, before it is asked for
/// again later.
const LETS_GO_WITHIN: Duration = Duration::from_millis(20);

/// How often it is tried to send what there was no room for.
const SEND_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Service {
    dir: Arc<StateDir>,
    post: Post,
    log: Log,
    bell: Bell,
    events: Receiver<Event>,
    ready: Ready,
    snapshots: Snapshots,
    guests: BTreeMap<String, Guest>,
    server: Option<Server>,
    /// Servers that have hung up and live: what they still have is free when they end.
    former: Vec<Process>,
    /// When the first server has to have come.
    until: Option<Instant>,
    /// When it is tried again to serve guests that could not be served.
    again: Option<Instant>,
    /// The pause before the next time after that.
    pause: Duration,
    /// Why nobody can be let in for now.
    shut: Option<String>,
}

/// The server that is connected.
struct Server {
    channel: Channel,
    process: Process,
    /// It speaks our version: it is heard.
    is_welcome: bool,
}

impl Service {
    pub(crate) fn new(dir: Arc<StateDir>, post: Post, log: Log) -> Result<Self, Failure> {
        let (sender, events) = unbounded();
        let bell = Bell { sender, waker: Arc::new(Waker::new()?) };
        let ready = Ready::new(bell.clone())?;
        Ok(Self {
            dir,
            post,
            log,
            bell,
            events,
            ready,
            snapshots: Snapshots::default(),
            guests: BTreeMap::new(),
            server: None,
            former: Vec::new(),
            until: Some(Instant::now() + FIRST_COMES_WITHIN),
            again: None,
            pause: FIRST_PAUSE,
            shut: None,
        })
    }

    /// Until no server is there and no guest is left.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        self.log.line(&format!("guards the guests of {}", self.dir.path().display()));
        if !self.post.server_is_there() {
            self.sweep();
        }
        while !self.is_over() {
            let ready = self.wait();
            if ready.server {
                self.attend();
            }
            if ready.former {
                self.former.retain(|process| !process.has_exited());
                self.hurry();
                self.sweep();
            }
            if ready.post {
                self.answer_the_door();
            }
            self.bell.waker.clear();
            while let Ok(event) = self.events.try_recv() {
                self.learn(event);
            }
            if self.again.is_some_and(|at| at <= Instant::now()) {
                self.try_again();
            }
        }
        self.log.line("no server is there and no guest is left");
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_waited_for = self.until.is_some_and(|until| Instant::now() < until);
        self.server.is_none() && !is_waited_for && !self.guests.values().any(Guest::is_pending)
    }

    fn wait(&self) -> ReadyFor {
        let mut fds = vec![
            PollFd::new(self.post.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.waker.as_fd(), PollFlags::POLLIN),
        ];
        let server = self.server.as_ref();
        let servers = server.map_or(0, |_| 2);
        if let Some(server) = server {
            fds.push(PollFd::new(server.process.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(server.channel.as_fd(), PollFlags::POLLIN));
        }
        let former = self.former.iter();
        fds.extend(former.map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)));
        let unsent = server.filter(|server| server.channel.has_waiting()).map(|_| SEND_EVERY);
        let timeout = self.due(Instant::now()).into_iter().chain(unsent).min();
        let timeout = timeout.map_or(PollTimeout::NONE, |time| {
            // A little later, so that it is over by then.
            PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
        let has = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        ReadyFor {
            post: has(&fds[0]),
            server: unsent.is_some() || fds[2..2 + servers].iter().any(has),
            former: fds[2 + servers..].iter().any(has),
        }
    }

    /// How long until there is something to do, if nothing happens before.
    fn due(&self, now: Instant) -> Option<Duration> {
        // A first server that has not come in time is not waited for any more.
        let until = self.until.filter(|until| *until > now);
        let times = until.into_iter().chain(self.again);
        times.map(|at| at.saturating_duration_since(now)).min()
    }

    fn answer_the_door(&mut self) {
        match self.post.accept() {
            Ok(Some(Visitor { channel, process })) => {
                // Only one can have the claim: who had it before is a server no more.
                if let Some(before) = self.server.take() {
                    self.is_former(before.process);
                }
                (self.until, self.shut) = (None, None);
                self.log.line(&format!("server {} is there", process.pid()));
                self.server = Some(Server { channel, process, is_welcome: false });
                self.attend();
            }
            Ok(None) => {}
            Err(error @ PostError::Unproven(_)) => self.log.line(&error.to_string()),
            Err(error) => {
                // Said once: whoever is at the door stays there.
                if self.shut.replace(error.to_string()).is_none() {
                    self.log.line(&error.to_string());
                }
                // Until there are descriptors again.
                std::thread::sleep(FIRST_PAUSE);
            }
        }
    }

    /// Hears the server, and finds out whether it is still there.
    fn attend(&mut self) {
        // Before it is heard: what it said before its end is there by then.
        let has_exited = self.server.as_ref().is_some_and(|server| server.process.has_exited());
        let heard = self.hear();
        if !has_exited && heard.is_ok() {
            return;
        }
        let Some(server) = self.server.take() else { return };
        let pid = server.process.pid();
        match heard {
            _ if has_exited => self.log.line(&format!("server {pid} has ended")),
            Err(ChannelError::Ended) | Ok(()) => self.log.line(&format!("server {pid} has left")),
            Err(error) => self.log.line(&format!("server {pid} is not heard any more: {error}")),
        }
        if !server.process.has_exited() {
            self.is_former(server.process);
        }
        if server.is_welcome {
            self.sweep();
        }
    }

    /// A process may have been the server before, and may be it again.
    fn is_former(&mut self, process: Process) {
        self.former.retain(|other| other.pid() != process.pid());
        self.former.push(process);
    }

    fn hear(&mut self) -> Result<(), ChannelError> {
        while let Some(server) = &mut self.server {
            server.channel.flush()?;
            let Some((request, fd)) = server.channel.receive()? else { break };
            match request {
                Request::Hello { version } => self.greet(version)?,
                request if self.server.as_ref().is_some_and(|server| server.is_welcome) => {
                    self.obey(request, fd);
                }
                _ => return Err(ChannelError::Strange("it comes before the greeting".to_owned())),
            }
        }
        Ok(())
    }

    fn greet(&mut self, version: u32) -> Result<(), ChannelError> {
        self.say(&Answer::Welcome { version: PROTOCOL }, None);
        if version != PROTOCOL {
            let why = format!(
                "it speaks version {version} of the guardian's protocol, and this is uffd-rs {} \
                 with version {PROTOCOL}",
                env!("CARGO_PKG_VERSION")
            );
            self.say(&Answer::Refused { why: why.clone() }, None);
            return Err(ChannelError::Strange(why));
        }
        if let Some(server) = &mut self.server {
            server.is_welcome = true;
        }
        // From now on they are the server's, as far as it can have them.
        (self.again, self.pause) = (None, FIRST_PAUSE);
        self.guests.values_mut().for_each(|guest| guest.is_wanted = false);
        Ok(())
    }

    fn say(&mut self, answer: &Answer, fd: Option<OwnedFd>) {
        if let Some(server) = &mut self.server {
            // Whether it is still there is found out when it is heard.
            let _ = server.channel.send(answer, fd);
        }
    }

    fn obey(&mut self, request: Request, fd: Option<OwnedFd>) {
        match request {
            // It was greeted.
            Request::Hello { .. } => {}
            Request::Entrust { id } => {
                let guest = self.guest(&id);
                guest.copy = fd.or(guest.copy.take());
                (guest.is_entrusted, guest.is_unanswered) = (true, true);
                (guest.is_forgotten, guest.is_being_left) = (false, false);
                if guest.session.is_none() {
                    // Of what was seen before nothing need be true any more.
                    (guest.prospect, guest.standby) = (None, None);
                    guest.is_seen_too_early = guest.is_looked_at;
                    self.look_at(&id);
                }
            }
            Request::Forget { id } => {
                if let Some(guest) = self.guests.get_mut(&id) {
                    (guest.is_entrusted, guest.is_wanted) = (false, false);
                    guest.is_forgotten = true;
                    self.drop_if_forgotten(&id);
                }
            }
            Request::Left { id, soon } => {
                let guest = self.guest(&id);
                (guest.is_forgotten, guest.is_being_left) = (false, soon);
                if guest.session.is_some() {
                    // It was told before that it is about to be left. Or it was given back and entrusted
                    // again, and how that session of ours ended is still to be learned.
                    guest.is_wanted = guest.is_unanswered;
                    return;
                }
                guest.is_wanted = true;
                self.hurry();
                self.begin(&id, if soon { LETS_GO_WITHIN } else { Duration::ZERO });
            }
            Request::Copies => {
                let copies = self.guests.iter().filter_map(|(id, guest)| {
                    Some((id.clone(), guest.copy.as_ref()?.try_clone().ok()?))
                });
                for (id, copy) in copies.collect::<Vec<_>>() {
                    self.say(&Answer::Copy { id }, Some(copy));
                }
                self.say(&Answer::AllCopies, None);
            }
            Request::Give { id } => match self.guests.get_mut(&id) {
                Some(Guest { session: Some(session), is_awaited, is_wanted, .. }) => {
                    (*is_awaited, *is_wanted) = (true, false);
                    session.begin_hand_over();
                }
                // It is known in a moment whether there is anything to give.
                Some(guest) if guest.is_ordered => guest.is_awaited = true,
                _ => self.say(&Answer::Given { id }, None),
            },
        }
    }

    /// The guest `id`, known or new.
    fn guest(&mut self, id: &str) -> &mut Guest {
        let path = || Guest::new(self.dir.finished(id));
        self.guests.entry(id.to_owned()).or_insert_with(path)
    }

    fn those_that(&self, is_meant: impl Fn(&Guest) -> bool) -> Vec<String> {
        let meant = self.guests.iter().filter(|(_, guest)| is_meant(guest));
        meant.map(|(id, _)| id.clone()).collect()
    }

    fn look_at(&mut self, id: &str) {
        let Some(guest) = self.guests.get_mut(id).filter(|guest| !guest.is_looked_at) else {
            return;
        };
        let copy = guest.copy.as_ref().and_then(|copy| copy.try_clone().ok());
        guest.is_looked_at = true;
        self.ready.look(id, guest.path.clone(), copy, guest.known.clone());
    }

    fn learn(&mut self, event: Event) {
        match event {
            Event::Looked { id, found } => {
                let Some(guest) = self.guests.get_mut(&id) else { return };
                guest.is_looked_at = false;
                if std::mem::take(&mut guest.is_seen_too_early) {
                    // It was entrusted meanwhile, and a copy of its userfaultfd came with it.
                    self.look_at(&id);
                    return;
                }
                match found {
                    Ok(prospect) => self.is_ready(&id, *prospect),
                    Err(error) if is_over(&error) => drop(self.guests.remove(&id)),
                    Err(error) => {
                        guest.is_wanted &= passes(&error.why);
                        self.cannot(&id, error.to_string());
                        self.soon();
                    }
                }
            }
            Event::Opened { place, result } => {
                let has_it = |guest: &Guest| guest.snapshot.as_ref() == Some(&place);
                let ids = self.those_that(has_it);
                let (fetcher, error) = match result {
                    Ok(fetcher) => (Some(fetcher), None),
                    Err(error) => (None, Some(error)),
                };
                self.snapshots.opened(place, fetcher);
                for id in ids {
                    match &error {
                        None => self.proceed(&id),
                        Some(error) => {
                            self.cannot(&id, error.clone());
                            self.soon();
                        }
                    }
                }
            }
            Event::Taken { id, taken } => self.conclude(&id, taken),
            Event::Ended { id, end } => self.has_ended(&id, &end),
        }
    }

    fn is_ready(&mut self, id: &str, prospect: Prospect) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        if guest.copy.is_none() {
            guest.copy = prospect.userfaultfd().ok();
        }
        guest.snapshot = Some(prospect.snapshot().clone());
        guest.known = prospect.known();
        guest.prospect = Some(prospect);
        self.proceed(id);
    }

    /// Everything may be at hand for a guest: it is served, or the server told that it would be.
    fn proceed(&mut self, id: &str) {
        if !self.stand_by(id) {
            return;
        }
        let Some(guest) = self.guests.get_mut(id) else { return };
        if std::mem::take(&mut guest.is_unanswered) {
            guest.obstacle = None;
            self.say(&Answer::Guarded { id: id.to_owned() }, None);
        }
        if self.guests.get(id).is_some_and(|guest| guest.is_wanted) {
            self.serve(id);
        }
    }

    /// Has all ready for a guest that was looked at, once its snapshot is open; whether all is.
    fn stand_by(&mut self, id: &str) -> bool {
        let Some(guest) = self.guests.get_mut(id) else { return false };
        let Some(prospect) = guest.prospect.take() else { return guest.standby.is_some() };
        let place = prospect.snapshot().clone();
        let ready = &self.ready;
        let Some(fetcher) = self.snapshots.get(&place, || ready.open(place.clone())) else {
            guest.prospect = Some(prospect);
            return false;
        };
        let options = prospect.options();
        let watch = Watch { id: id.to_owned(), bell: self.bell.clone() };
        match Standby::new(prospect, fetcher, options, Box::new(watch)) {
            Ok(standby) => {
                guest.standby = Some(standby);
                true
            }
            Err(error) => {
                self.cannot(id, error.to_string());
                self.soon();
                false
            }
        }
    }

    /// Something is in the way of serving a guest: the server is told, or the log.
    fn cannot(&mut self, id: &str, why: String) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        let is_unanswered = std::mem::take(&mut guest.is_unanswered);
        if guest.obstacle.as_ref() != Some(&why) {
            self.log.line(&format!("cannot serve guest {id}: {why}"));
            guest.obstacle = Some(why.clone());
        }
        if is_unanswered {
            self.say(&Answer::Unguarded { id: id.to_owned(), why }, None);
        }
    }

    /// No server is heard: whatever is left is served.
    fn sweep(&mut self) {
        if self.server.as_ref().is_some_and(|server| server.is_welcome) {
            return;
        }
        self.hurry();
        // First those that all is at hand for.
        self.guests.values_mut().for_each(|guest| {
            // Nobody will say any more whether it was.
            (guest.is_wanted, guest.is_being_left) = (true, false);
        });
        self.those_that(|_| true).iter().for_each(|id| self.serve(id));
        match self.dir.ledgers() {
            Ok(paths) => {
                for path in paths {
                    let id = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
                    let Some(id) = id.filter(|id| !self.guests.contains_key(id)) else { continue };
                    self.guest(&id).is_wanted = true;
                    self.serve(&id);
                }
            }
            Err(error) => self.log.line(&format!("cannot look for ledgers: {error}")),
        }
    }

    /// Tries again after a pause, which grows from time to time: what comes of a try is known later.
    fn soon(&mut self) {
        if self.again.is_none() && self.guests.values().any(|guest| guest.is_wanted) {
            self.again = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Something has changed, so that there may be no more need to wait.
    fn hurry(&mut self) {
        self.pause = FIRST_PAUSE;
        let soon = Instant::now() + FIRST_PAUSE;
        self.again = self.again.map(|at| at.min(soon));
    }

    fn try_again(&mut self) {
        self.again = None;
        self.those_that(|guest| guest.is_wanted).iter().for_each(|id| self.serve(id));
    }

    /// Serves a guest here, if it is free and all is at hand. What comes of it is told later.
    fn serve(&mut self, id: &str) {
        self.begin(id, Duration::ZERO);
    }

    /// The same if it is free within so long.
    fn begin(&mut self, id: &str, within: Duration) {
        let Some(guest) = self.guests.get_mut(id).filter(|guest| !guest.may_be_served()) else {
            return;
        };
        let (Some(standby), bell) = (&guest.standby, self.bell.clone()) else {
            return self.get_ready(id);
        };
        guest.is_ordered = true;
        let unnamed = guest.if_unnamed();
        let ordered = id.to_owned();
        standby.begin(unnamed, within, move |taken| {
            bell.ring(Event::Taken { id: ordered, taken });
        });
    }

    /// Something is still missing that it takes to serve a guest.
    fn get_ready(&mut self, id: &str) {
        let prospect = self.guests.get(id).and_then(|guest| guest.prospect.as_ref());
        match prospect.map(Prospect::has_ended) {
            None => self.look_at(id),
            // Its snapshot may never be open.
            Some(true) => {
                let guest = self.guests.remove(id);
                drop(guest.and_then(|guest| guest.prospect).map(Prospect::take));
                self.close_unused_snapshots();
            }
            Some(false) => {
                if self.stand_by(id) {
                    self.serve(id);
                }
            }
        }
    }

    /// A guest was taken over, or could not be.
    fn conclude(&mut self, id: &str, taken: Taken) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.is_ordered = false;
        if let Taken::Served(session) = taken {
            (guest.session, guest.standby) = (Some(session), None);
            guest.is_wanted = false;
            guest.obstacle = None;
            self.log.line(&format!("serves guest {id}"));
            self.give_if_awaited(id);
            return;
        }
        if std::mem::take(&mut guest.is_awaited) {
            self.say(&Answer::Given { id: id.to_owned() }, None);
        }
        match taken {
            Taken::Not(error) => {
                self.cannot_serve(id, &error);
            }
            _ => self.soon(),
        }
        self.drop_if_forgotten(id);
    }

    /// Nothing is kept ready for a guest that the server has said to be none of the guardian's, unless
    /// it is the guardian's by now.
    fn drop_if_forgotten(&mut self, id: &str) {
        let is_meant = |guest: &Guest| guest.is_forgotten && !guest.may_be_served();
        if self.guests.get(id).is_some_and(is_meant) {
            self.guests.remove(id);
            self.close_unused_snapshots();
        }
    }

    /// A server may have asked for a guest while it was being taken over.
    fn give_if_awaited(&mut self, id: &str) {
        let Some(guest) = self.guests.get(id).filter(|guest| guest.is_awaited) else { return };
        guest.session.iter().for_each(uffd_core::session::Session::begin_hand_over);
    }

    fn cannot_serve(&mut self, id: &str, error: &NotRecovered) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.standby = None;
        if passes(&error.why) {
            self.cannot(id, error.to_string());
            self.soon();
            return;
        }
        if !is_over(error) {
            self.cannot(id, error.to_string());
        }
        self.guests.remove(id);
        self.close_unused_snapshots();
    }

    fn has_ended(&mut self, id: &str, end: &End) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.session = None;
        let is_awaited = std::mem::take(&mut guest.is_awaited);
        if is_awaited {
            self.say(&Answer::Given { id: id.to_owned() }, None);
        }
        match end {
            End::HandedOver => {
                self.log.line(&format!("gives guest {id} back"));
                let is_unanswered = self.guest(id).is_unanswered;
                // The server that it was for may be gone by now.
                if self.server.as_ref().is_none_or(|server| !server.is_welcome) {
                    self.guest(id).is_wanted = true;
                    self.serve(id);
                } else if is_unanswered {
                    // It has the guest, and has entrusted it already.
                    self.look_at(id);
                } else {
                    self.drop_if_forgotten(id);
                }
            }
            end => {
                let why = match end {
                    End::Failed(error) => error.to_string(),
                    other => format!("{other:?}"),
                };
                self.log.line(&format!("guest {id} has ended: {why}"));
                self.guests.remove(id);
                self.close_unused_snapshots();
            }
        }
    }

    fn close_unused_snapshots(&mut self) {
        let used = self.guests.values().filter_map(|guest| guest.snapshot.as_ref());
        self.snapshots.keep_only(used);
    }
}

/// Whether the guest has ended: the ledger may be gone with it.
const fn is_over(error: &NotRecovered) -> bool {
    error.why.is_ended() || matches!(error.why, Obstruction::Ledger(LedgerError::Gone))
}

/// Whether it may go better later: descriptors, memory and threads are had again, and an address space
/// does not change for ever.
const fn passes(why: &Obstruction) -> bool {
    matches!(why, Obstruction::Session(SessionError::Resources { .. } | SessionError::Busy { .. }))
}

/// What there is to do.
struct ReadyFor {
    post: bool,
    server: bool,
    former: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_server_that_does_not_come_is_waited_for_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = Arc::new(StateDir::open(parent.path()).unwrap());
        let post = Post::open(Arc::clone(&dir)).unwrap();
        let mut service = Service::new(dir, post, Log::nowhere()).unwrap();
        let now = Instant::now();
        assert!(service.due(now).is_some_and(|time| !time.is_zero()));
        assert_eq!(service.due(now + 2 * FIRST_COMES_WITHIN), None);
        service.again = Some(now);
        assert_eq!(service.due(now + 2 * FIRST_COMES_WITHIN), Some(Duration::ZERO));
    }
}
