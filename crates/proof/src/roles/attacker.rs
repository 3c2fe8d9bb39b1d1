//! A process that sends a server what no VMM would, keeps what it has connected until its input
//! ends, and then leaves everything to the kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signalfd::{SigSet, SignalFd};
use nix::sys::socket::{MsgFlags, getsockopt, sockopt::PeerPidfd};
use nix::sys::stat::Mode;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use nix::unistd::pipe;
use uffd_core::kernel::Process;
use uffd_guest::strangers::{self, Lingering, Reader, Registered};

use crate::malice::{Attack, Leaving, Stranger, Visit};
use crate::peer::Peer;

type Failure = Box<dyn std::error::Error>;

/// Between two pieces of somebody who is slow.
const MOMENT: Duration = Duration::from_millis(1);

pub(super) fn play(args: &[String]) -> Result<(), Failure> {
    let [socket, attack, servers, guests] = args else {
        return Err("an attacker needs a socket, an attack, and two descriptors".into());
    };
    let attack: Attack = serde_json::from_str(attack)?;
    // The input is a socket, whose other end is the server's process.
    let mut input = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let server = Process::peer_of(&input)?.ok_or("the server cannot be seen")?;
    let own = Registered::new(4)?;
    let theirs = Theirs {
        own: own.uffd.as_fd().try_clone_to_owned()?,
        servers: server.descriptor(servers.parse()?)?,
        guests: server.descriptor(guests.parse()?)?,
    };
    let begin = |visit: &Visit| Begun::new(visit, Path::new(socket), &theirs, own.base());
    let begun = attack.visits.iter().map(begin).collect::<io::Result<Vec<_>>>()?;
    let sending: Vec<Sending> = begun.into_iter().map(Begun::send).collect();
    let kept = sending.into_iter().map(Sending::end).collect::<io::Result<Vec<Kept>>>()?;
    // Perhaps somebody serves that memory by now; if not, this waits until the process ends.
    thread::spawn(move || own.touch(0));
    input.write_all(b"sent\n")?;
    let _ = input.read_to_end(&mut Vec::new());
    drop(kept);
    Ok(())
}

/// Userfaultfds that there are before anything is sent.
struct Theirs {
    own: OwnedFd,
    servers: OwnedFd,
    guests: OwnedFd,
}

/// A visit with everything it takes.
struct Begun {
    visit: Visit,
    body: Vec<u8>,
    peer: Arc<Peer>,
    sendings: Vec<(usize, Vec<OwnedFd>)>,
    readers: Vec<Reader>,
}

impl Begun {
    fn new(visit: &Visit, socket: &Path, theirs: &Theirs, base: u64) -> io::Result<Self> {
        let peer = Peer::connect(socket)?;
        let mut readers = Vec::new();
        let mut make = |stranger: &Stranger| make(*stranger, &peer, socket, theirs, &mut readers);
        let sendings = visit.sendings.iter().map(|(at, strangers)| {
            Ok((*at, strangers.iter().map(&mut make).collect::<io::Result<Vec<_>>>()?))
        });
        let sendings = sendings.collect::<io::Result<_>>()?;
        let (visit, body) = (visit.clone(), visit.body.bytes(base));
        Ok(Self { visit, body, peer: Arc::new(peer), sendings, readers })
    }

    /// Sends everything on a thread with a table of descriptors of its own, and closes the copies
    /// here meanwhile. The thread's go when it ends, and whoever ends does not linger: so whoever
    /// has received something is the last to have it.
    fn send(self) -> Sending {
        let Self { visit, body, peer, sendings, readers } = self;
        let numbers =
            |(at, fds): &(usize, Vec<OwnedFd>)| (*at, fds.iter().map(AsRawFd::as_raw_fd).collect());
        let numbers: Vec<(usize, Vec<RawFd>)> = sendings.iter().map(numbers).collect();
        let (ready, is_ready) = channel();
        let (go, may_go) = channel();
        let (leaving, sender) = (visit.leaving, Arc::clone(&peer));
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_FILES)?;
            let _ = ready.send(());
            let _: Result<(), _> = may_go.recv();
            say(&visit, &body, &sender, &numbers);
            Ok(())
        });
        // An error is told by the thread.
        let _ = is_ready.recv();
        drop(sendings);
        let _ = go.send(());
        Sending { thread, leaving, peer, readers }
    }
}

/// A visit under way.
struct Sending {
    thread: JoinHandle<io::Result<()>>,
    leaving: Leaving,
    peer: Arc<Peer>,
    readers: Vec<Reader>,
}

/// What has to stay open for as long as the attack lasts.
type Kept = (Option<Arc<Peer>>, Vec<Reader>);

impl Sending {
    fn end(self) -> io::Result<Kept> {
        self.thread.join().map_err(|_| io::Error::other("a sender panicked"))??;
        let peer = match self.leaving {
            Leaving::Stay => Some(self.peer),
            Leaving::Close => None,
            Leaving::HangUp => {
                // Whoever was refused is hung up on already.
                let _ = self.peer.hang_up();
                Some(self.peer)
            }
        };
        Ok((peer, self.readers))
    }
}

/// Says all of it, or as much as whoever refuses it listens to.
fn say(visit: &Visit, body: &[u8], peer: &Peer, sendings: &[(usize, Vec<RawFd>)]) {
    let pieces = visit.pieces(body);
    for (at, piece) in pieces.iter().enumerate() {
        if visit.slowly {
            thread::sleep(MOMENT);
        }
        let with = sendings.iter().filter(|(place, _)| place % pieces.len() == at);
        let fds: Vec<RawFd> = with.flat_map(|(_, fds)| fds).copied().collect();
        let last = visit.out_of_band && at + 1 == pieces.len();
        let flags = if last { MsgFlags::MSG_OOB } else { MsgFlags::empty() };
        if peer.send_all(piece, &fds, flags).is_err() {
            return;
        }
    }
}

fn make(
    stranger: Stranger,
    peer: &Peer,
    socket: &Path,
    theirs: &Theirs,
    readers: &mut Vec<Reader>,
) -> io::Result<OwnedFd> {
    let mut lingering = || {
        let Lingering { socket, reader } = Lingering::new(3600)?;
        readers.push(reader);
        io::Result::Ok(socket)
    };
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
    let directory = |flags| open("/", flags | OFlag::O_DIRECTORY, Mode::empty());
    Ok(match stranger {
        Stranger::Lingering => lingering()?,
        Stranger::Carrier => {
            let (one, other) = UnixStream::pair()?;
            Peer::from(one).send("x", &[lingering()?.as_fd()])?;
            other.into()
        }
        Stranger::Itself => copy(peer.as_fd())?,
        Stranger::Another => UnixStream::connect(socket)?.into(),
        Stranger::Pipe => pipe()?.0,
        Stranger::Directory => directory(OFlag::O_RDONLY)?,
        Stranger::Path => directory(OFlag::O_PATH)?,
        Stranger::Null => File::open("/dev/null")?.into(),
        Stranger::Epoll => Epoll::new(EpollCreateFlags::empty())?.0,
        Stranger::IoUring => strangers::io_uring()?,
        Stranger::Timer => {
            copy(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty())?.as_fd())?
        }
        Stranger::Signals => copy(SignalFd::new(&SigSet::empty())?.as_fd())?,
        Stranger::Event => copy(EventFd::new()?.as_fd())?,
        Stranger::Memory => memfd_create("stranger", MFdFlags::empty())?,
        Stranger::Process => getsockopt(&UnixStream::pair()?.0, PeerPidfd)?,
        Stranger::Listener => TcpListener::bind("127.0.0.1:0")?.into(),
        Stranger::Raw => strangers::raw_userfaultfd()?,
        Stranger::Own => copy(theirs.own.as_fd())?,
        Stranger::Servers => copy(theirs.servers.as_fd())?,
        Stranger::Guests => copy(theirs.guests.as_fd())?,
    })
}
