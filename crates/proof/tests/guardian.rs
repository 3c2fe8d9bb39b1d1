//! A guardian beside the server: whoever of the two lives serves the guest, never both, and the guest
//! does not notice.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send,
    sendmsg, socket,
};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use uffd_core::guardian::{self, Answer, Client, GuardianError, News, Post};
use uffd_core::ledger::{Claim, SnapshotPlace, StateDir};
use uffd_core::recovery::{Keep, Prospect, Spares};
use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::Observer;
use uffd_core::source::{Fetcher, FileSource};
use uffd_core::view::View;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{Bench, Expect};
use uffd_guest::snapshot::{self, ZeroPages};
use uffd_proof::killing::Killing;
use uffd_proof::{
    Cast, DEADLINE, Frozen, HUGE, Keeper, Keeping, KeptMode, SMALL, until, waiting_threads,
};

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");
const ROLE: &str = env!("CARGO_BIN_EXE_uffd-proof-role");

const PAGES: u64 = 384;

fn keeping() -> Keeping {
    unguarded().guarded()
}

fn unguarded() -> Keeping {
    let pattern = Pattern::new(71, SMALL).with_zero_runs(50).with_lone_zeros(50);
    let regions = [PAGES / 3, PAGES - PAGES / 3];
    Keeping::new(Cast::new(ROLE), GUEST, pattern, &regions, Some(true))
}

/// Waits until the guardian would serve the keeper's guest at once, and says which process it is.
fn guarded(keeper: &mut Keeper) -> i32 {
    let id = keeper.ask("id");
    until("the guest to be guarded", || keeper.guardian().guarded.contains(&id));
    keeper.guardian().pid.unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Whether there is such a process that has not ended.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn has_ended(pid: i32) {
    until("the guardian to end", || !lives(pid));
}

fn log(keeping: &Keeping) -> String {
    std::fs::read_to_string(keeping.guardian_log()).unwrap_or_default()
}

/// Every page holds what was written to it, or what the snapshot has.
fn holds(guest: &Guest, stamps: std::ops::Range<u64>, stamp: u32) {
    let thread = guest.thread(0);
    let rest = PAGES - stamps.end;
    assert_eq!(thread.verify(0, stamps.start, &[Expect::Source]).unwrap().wrong, 0);
    let len = stamps.end - stamps.start;
    assert_eq!(thread.verify(stamps.start, len, &[Expect::Stamp(stamp)]).unwrap().wrong, 0);
    assert_eq!(thread.verify(stamps.end, rest, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn a_guest_whose_server_was_killed_is_served_and_given_back() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let mut guest = keeping.guest(&keeper, |_| {});
    let id = keeper.ask("id");
    guest.thread(0).write(3, 2, 9).unwrap();
    let guardian = guarded(&mut keeper);
    keeper.kill();
    // By nobody but the guardian.
    holds(&guest, 3..5, 9);
    guest.thread(0).write(3, 3, 10).unwrap();

    let mut keeper = keeping.keeper();
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    assert_eq!(keeper.ask("id"), id);
    holds(&guest, 3..6, 10);
    assert_eq!(keeper.export().dirty, BTreeSet::from([3, 4, 5]));
    assert_eq!(guarded(&mut keeper), guardian);

    // Left to it on purpose.
    assert_eq!(keeper.ask("hand over"), "end HandedOver");
    guest.thread(0).write(7, 1, 11).unwrap();
    keeper.kill();
    assert_eq!(guest.thread(0).read_page(7).unwrap(), Content::Stamp(11));
    assert!(lives(guardian));
    guest.kill().unwrap();
    has_ended(guardian);
    assert!(!keeping.state_dir().join("guardian.sock").exists());
}

/// What is touched while no server is there is in the trace like everything else.
#[test]
fn a_trace_goes_on_while_the_guardian_serves() {
    let keeping = keeping().fill_alone();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let touch = |page| {
        guest.thread(0).touch(page, 1).unwrap();
    };
    [9, 4].into_iter().for_each(touch);
    assert_eq!(keeper.ask("settle"), "Ok(())");
    guarded(&mut keeper);
    keeper.kill();
    [200, 7].into_iter().for_each(touch);
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    touch(3);
    assert_eq!(keeper.ask("settle"), "Ok(())");
    assert_eq!(keeper.trace(), [9, 4, 200, 7, 3]);
}

/// Whoever serves is killed while many guests are at work: each of them is served on.
#[test]
fn many_guests_of_one_server_are_served_on_and_given_back() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guests: Vec<_> = (0..24).map(|_| keeping.guest(&keeper, |_| {})).collect();
    for stamp in [3, 4] {
        until("all to be guarded", || keeper.guardian().guarded.len() == guests.len());
        let touching: Vec<_> =
            guests.iter().map(|guest| guest.thread(1).start_touch(0, PAGES)).collect();
        keeper.kill();
        for touched in touching {
            touched.get().unwrap();
        }
        for guest in &guests {
            guest.thread(0).write(3, 2, stamp).unwrap();
        }
        keeper = keeping.keeper();
        assert_eq!((keeper.recovered(), keeper.left()), (24, &[][..]));
        guests.iter().for_each(|guest| holds(guest, 3..5, stamp));
    }
}

#[test]
fn a_guardian_that_was_killed_is_replaced_and_told_of_all_guests() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let first = guarded(&mut keeper);
    signal(first, Signal::SIGKILL);
    until("another guardian", || keeper.guardian().pid.is_some_and(|pid| pid != first));
    assert_ne!(guarded(&mut keeper), first);
    keeper.kill();
    holds(&guest, 0..0, 0);
}

#[test]
fn when_both_were_killed_the_next_server_serves() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guest.thread(0).write(5, 1, 9).unwrap();
    let guardian = guarded(&mut keeper);
    // In one order and in the other: while the guardian serves as well.
    signal(guardian, Signal::SIGKILL);
    keeper.kill();
    let waiting = guest.thread(1).start_read(PAGES / 2, 1);
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    waiting.get().unwrap();
    let guardian = guarded(&mut keeper);
    keeper.kill();
    guest.thread(0).read(9, 1).unwrap();
    signal(guardian, Signal::SIGKILL);
    has_ended(guardian);
    let mut keeper = keeping.keeper();
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    holds(&guest, 5..6, 9);
    assert_ne!(guarded(&mut keeper), guardian);
}

/// Leaves all guests as a server does that ends, once it is ready for that.
fn let_go(keeper: &mut Keeper, guests: usize) {
    assert_eq!(keeper.ask("get ready"), "is ready");
    keeper.tell("let go");
    has_let_go(keeper, guests);
    assert_eq!(keeper.ask("see to them"), "left 0");
    keeper.kill();
}

fn has_let_go(keeper: &Keeper, guests: usize) {
    for _ in 0..guests {
        assert_eq!(keeper.next().as_deref(), Some("end HandedOver"));
    }
    assert_eq!(keeper.next().as_deref(), Some("has let go"));
}

#[test]
fn a_guardian_that_was_killed_right_before_a_hand_over_is_replaced_before_it() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guests: Vec<_> = (0..3).map(|_| keeping.guest(&keeper, |_| {})).collect();
    signal(guarded(&mut keeper), Signal::SIGKILL);
    let_go(&mut keeper, guests.len());
    guests.iter().for_each(|guest| holds(guest, 0..0, 0));
}

/// Its server serves on until it is there again.
#[test]
fn nobody_is_left_to_a_guardian_that_is_frozen() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let frozen = Frozen::new(guarded(&mut keeper));
    assert_eq!(keeper.ask("get ready"), "stays ERR_UFFD_GUARDIAN_SILENT");
    guest.thread(0).write(3, 2, 9).unwrap();
    holds(&guest, 3..5, 9);
    drop(frozen);
    let_go(&mut keeper, 1);
    holds(&guest, 3..5, 9);
}

#[test]
fn nobody_is_left_to_a_guardian_that_was_killed_and_cannot_be_replaced() {
    let keeping = unguarded();
    let program = keeping.dir().join("role");
    std::fs::copy(ROLE, &program).unwrap();
    let keeping = keeping.guarded_by(program.clone());
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    std::fs::remove_file(&program).unwrap();
    signal(guardian, Signal::SIGKILL);
    assert_eq!(keeper.ask("get ready"), "stays ERR_UFFD_GUARDIAN");
    holds(&guest, 0..0, 0);
}

/// What it was told dies with it.
#[test]
fn a_guest_that_was_left_to_a_guardian_that_is_killed_before_it_hears_so_is_served_by_the_next() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    let frozen = Frozen::new(guardian);
    assert_eq!(keeper.ask("hand over"), "end HandedOver");
    signal(guardian, Signal::SIGKILL);
    holds(&guest, 0..0, 0);
    drop(frozen);
}

/// Dead or frozen from one moment to the next, when the server has found it in good health.
#[test]
fn guests_whose_guardian_is_lost_in_the_middle_of_a_hand_over_are_served_by_another_one() {
    for lost in [Signal::SIGKILL, Signal::SIGSTOP] {
        let keeping = keeping();
        let mut keeper = keeping.keeper();
        let guests: Vec<_> = (0..3).map(|_| keeping.guest(&keeper, |_| {})).collect();
        let guardian = guarded(&mut keeper);
        assert_eq!(keeper.ask("get ready"), "is ready");
        signal(guardian, lost);
        keeper.tell("let go");
        has_let_go(&keeper, guests.len());
        assert_eq!(keeper.ask("see to them"), "left 0", "{lost}");
        has_ended(guardian);
        keeper.kill();
        guests.iter().for_each(|guest| holds(guest, 0..0, 0));
    }
}

/// At whatever step of it.
#[test]
fn guests_whose_guardian_is_killed_at_any_moment_of_a_hand_over_are_served_by_another_one() {
    for micros in [0, 300, 700, 1_100, 1_600, 3_000] {
        let keeping = keeping();
        let mut keeper = keeping.keeper();
        let guests: Vec<_> = (0..3).map(|_| keeping.guest(&keeper, |_| {})).collect();
        let guardian = guarded(&mut keeper);
        assert_eq!(keeper.ask("get ready"), "is ready");
        let touching: Vec<_> =
            guests.iter().map(|guest| guest.thread(1).start_touch(0, PAGES)).collect();
        keeper.tell("let go");
        std::thread::sleep(Duration::from_micros(micros));
        signal(guardian, Signal::SIGKILL);
        has_let_go(&keeper, guests.len());
        // Before the server looks for the last time.
        has_ended(guardian);
        assert_eq!(keeper.ask("see to them"), "left 0");
        for touched in touching {
            touched.get().unwrap();
        }
        guests.iter().for_each(|guest| holds(guest, 0..0, 0));
    }
}

/// Events cannot be read into what was cut off a file, which ends the session; and whoever writes to it is
/// ended by the kernel, and with it everybody that it serves.
#[test]
fn a_ledger_that_somebody_cuts_off_costs_its_guest_and_no_other() {
    for is_all_gone in [true, false] {
        let keeping = keeping();
        let mut keeper = keeping.keeper();
        let other = keeping.guest(&keeper, |_| {});
        let lost = keeping.guest(&keeper, |_| {});
        let id = keeper.ask("id");
        until("both to be guarded", || keeper.guardian().guarded.len() == 2);
        let ledger = keeping.state_dir().join(format!("{id}.ledger"));
        let file = File::options().write(true).open(&ledger).unwrap();
        // The page states are in the last page before the trace.
        let states = file.metadata().unwrap().len() - 16 * PAGES - 4096;
        file.set_len(if is_all_gone { 0 } else { states }).unwrap();
        let _waiting = lost.thread(0).start_read(0, 1);
        let end = keeper.next();
        assert!(end.as_ref().is_none_or(|end| end.starts_with("end Failed(Events")), "{end:?}");
        let refused = format!("cannot serve guest {id}");
        until("it to be refused", || log(&keeping).contains(&refused));
        holds(&other, 0..0, 0);
        keeper.kill();
        other.thread(0).madvise(0, 1).unwrap();
        let keeper = keeping.keeper();
        let left = ["left ERR_UFFD_RECOVERY_LEDGER".to_owned()];
        assert_eq!((keeper.recovered(), keeper.left()), (1, &left[..]));
        other.thread(0).madvise(1, 1).unwrap();
    }
}

/// Nobody waits for it: no handoff, no guest, nobody who stops the server.
#[test]
fn a_frozen_guardian_holds_nothing_up() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let first = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    let frozen = Frozen::new(guardian);
    holds(&first, 0..0, 0);
    let second = keeping.guest(&keeper, |_| {});
    holds(&second, 0..0, 0);
    until("it to be called silent", || {
        keeper.guardian().troubles.iter().any(|code| code == "ERR_UFFD_GUARDIAN_SILENT")
    });
    assert_eq!(keeper.ask("stop"), "end Stopped");
    keeper.kill();
    // The first one's server is dead and its guardian frozen: the next server has it all the same.
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    holds(&first, 0..0, 0);
    drop(frozen);
    guarded(&mut keeper);
    keeper.kill();
    first.thread(0).write(1, 1, 3).unwrap();
    holds(&first, 1..2, 3);
}

/// Each server that came while it was frozen has left a connection there.
#[test]
fn a_frozen_guardian_at_whose_door_many_wait_keeps_no_server_from_starting() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let first = keeping.guest(&keeper, |_| {});
    let frozen = Frozen::new(guarded(&mut keeper));
    let address = UnixAddr::new(&keeping.state_dir().join("guardian.sock")).unwrap();
    let knock = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(socket.as_raw_fd(), &address).map(|()| socket)
    };
    let at_the_door: Vec<_> = std::iter::from_fn(|| knock().ok()).collect();
    assert_eq!(knock().unwrap_err(), Errno::EAGAIN);
    keeper.kill();
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    holds(&first, 0..0, 0);
    assert_eq!(keeper.guardian().troubles, ["ERR_UFFD_GUARDIAN_SILENT"]);
    drop((frozen, at_the_door));
    guarded(&mut keeper);
    keeper.kill();
    first.thread(0).write(1, 1, 3).unwrap();
    holds(&first, 1..2, 3);
}

/// A frozen reader of what it tells is as bad as a disk that does not answer.
#[test]
fn a_guardian_that_can_tell_nobody_what_it_does_serves_all_the_same() {
    let keeping = keeping();
    let path = keeping.guardian_log();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let flags = OFlag::O_NONBLOCK.bits();
    let mut pipe = File::options().read(true).write(true).custom_flags(flags).open(&path).unwrap();
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guest.thread(0).write(3, 2, 9).unwrap();
    guarded(&mut keeper);
    keeper.kill();
    holds(&guest, 3..5, 9);
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    guarded(&mut keeper);
}

/// It may thaw at any moment and go on: its guest stays its own.
#[test]
fn a_frozen_server_is_not_replaced() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guarded(&mut keeper);
    let frozen = keeper.freeze();
    let waiting = guest.thread(0).start_read(0, 1);
    until("the guest to wait", || waiting_threads(guest.pid()) == 1);
    assert!(!log(&keeping).contains("serves guest"), "{}", log(&keeping));
    drop(frozen);
    waiting.get().unwrap();
}

/// A server takes back what a frozen guardian serves as soon as that one thaws, and not before.
#[test]
fn a_guardian_that_is_frozen_while_it_serves_stays_the_owner() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    keeper.kill();
    guest.thread(0).read(0, 1).unwrap();
    let frozen = Frozen::new(guardian);
    let waiting = guest.thread(0).start_read(PAGES / 2, 1);
    let keeper = keeping.keeper();
    assert_eq!(
        (keeper.recovered(), keeper.left()),
        (0, &["left ERR_UFFD_RECOVERY_SERVED".to_owned()][..])
    );
    drop(frozen);
    waiting.get().unwrap();
    holds(&guest, 0..0, 0);
}

/// Servers are killed at random moments beside a guest at work, and now and then the guardian with
/// them.
fn kills(page_size: u64) {
    for mode in KeptMode::ALL.into_iter().filter(|mode| mode.page_size == page_size) {
        let killed =
            Killing::new(Cast::new(ROLE), mode, 60, 20_261_128).guarded().run(|_| {}).unwrap();
        assert!(killed.is_right(), "{mode}: {killed}");
        assert!(killed.guardians > 0 && killed.early > 0 && killed.removes > 0, "{mode}: {killed}");
    }
}

#[test]
fn killed_again_and_again_beside_small_pages() {
    kills(SMALL);
}

#[test]
fn killed_again_and_again_beside_huge_pages() {
    kills(HUGE);
}

/// Nothing of whoever started it keeps a terminal, a pipe, a lock or a folder in use.
#[test]
fn a_guardian_has_nothing_of_whoever_started_it() {
    let keeping = keeping();
    let mut keeper = keeping.keeper_with(|command| {
        command.env("UFFD_TEST_SECRET", "1");
    });
    let _guest = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    let proc = Path::new("/proc").join(guardian.to_string());
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert_eq!((session, terminal), (guardian.to_string().as_str(), "0"));
    assert_eq!(std::fs::read(proc.join("environ")).unwrap(), b"");
    assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let links = |pid: i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
    };
    let pipes: Vec<_> = links(guardian)
        .filter(|link| link.as_os_str().to_string_lossy().starts_with("pipe:"))
        .collect();
    assert_eq!(pipes, Vec::<std::path::PathBuf>::new());
    let standard: Vec<_> =
        (0..3).map(|fd| std::fs::read_link(proc.join(format!("fd/{fd}"))).unwrap()).collect();
    assert_eq!(standard, [Path::new("/dev/null"); 3]);
    // The server's claim is the server's alone.
    let claim = std::fs::metadata(keeping.state_dir().join("server.lock")).unwrap().ino();
    let has_it = |pid: i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries
            .filter_map(|entry| std::fs::metadata(entry.unwrap().path()).ok())
            .any(|about| about.ino() == claim)
    };
    assert!(has_it(keeper.pid()) && !has_it(guardian));
}

/// A guardian of a directory, whose server this process is.
struct Alone {
    process: Child,
    dir: Arc<StateDir>,
    claim: Option<Claim>,
    /// As long as it is there the guardian stays.
    connection: OwnedFd,
}

impl Alone {
    /// Of a directory without guests.
    fn start(folder: &tempfile::TempDir) -> Self {
        Self::by(&folder.path().join("state"), guardian_of)
    }

    fn by(dir: &Path, command: impl FnOnce(&Path) -> Command) -> Self {
        let dir = Arc::new(StateDir::open(dir).unwrap());
        let claim = Some(dir.claim(false).unwrap());
        let process = command(dir.path()).spawn().unwrap();
        let mut connection = None;
        until("it to listen", || {
            connection = connected(&dir).ok();
            connection.is_some()
        });
        Self { process, dir, claim, connection: connection.unwrap() }
    }

    /// One that hears of the guests there from the test alone.
    fn of(keeping: &Keeping) -> Self {
        let alone = Self::by(keeping.state_dir(), guardian_of);
        alone.greet();
        alone
    }

    fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// Says something, with a descriptor.
    fn say(&self, message: &str, fd: Option<&OwnedFd>) {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[] } else { &rights[..] };
        let bytes = [IoSlice::new(message.as_bytes())];
        let socket = self.connection.as_raw_fd();
        sendmsg::<()>(socket, &bytes, rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    }

    fn tell(&self, what: &str, id: &str) {
        self.say(&format!(r#"{{"{what}":{{"id":"{id}"}}}}"#), None);
    }

    fn tell_left(&self, id: &str, soon: bool) {
        self.say(&format!(r#"{{"left":{{"id":"{id}","soon":{soon}}}}}"#), None);
    }

    /// The next that it says.
    fn hear(&self) -> Answer {
        let mut bytes = [0; 4096];
        let len = recv(self.connection.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        serde_json::from_slice(&bytes[..len]).unwrap()
    }

    fn greet(&self) {
        self.say(r#"{"hello":{"version":1}}"#, None);
        assert_eq!(self.hear(), Answer::Welcome { version: 1 });
    }

    /// What it answers to a message.
    fn ask(socket: &OwnedFd, message: &str) -> Vec<Answer> {
        // It may have hung up before.
        let _ = send(socket.as_raw_fd(), message.as_bytes(), MsgFlags::MSG_NOSIGNAL);
        let mut answers = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(0) | Err(Errno::ECONNRESET) => return answers,
                Ok(len) => answers.push(serde_json::from_slice(&bytes[..len]).unwrap()),
                Err(errno) => panic!("{errno}"),
            }
        }
    }
}

fn connected(dir: &StateDir) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(&dir.path().join("guardian.sock"))?)?;
    Ok(socket)
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn guardian_of(dir: &Path) -> Command {
    let mut command = Command::new(ROLE);
    command.args(["guardian", "--state-dir"]).arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Being of the same user is not enough: it takes the claim of the directory.
#[test]
fn whoever_is_not_the_server_is_not_heard() {
    let folder = tempfile::tempdir().unwrap();
    let mut alone = Alone::start(&folder);
    alone.claim = None;
    let hello = r#"{"hello":{"version":1}}"#;
    assert_eq!(Alone::ask(&connected(&alone.dir).unwrap(), hello), []);
    // Another one's claim is of no help either.
    let mut other = Command::new("flock");
    let lock = alone.dir.path().join("server.lock");
    let mut other = other
        .arg("--no-fork")
        .arg(&lock)
        .args(["sleep", "60"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("it to have the claim", || alone.dir.claim(false).is_err());
    assert_eq!(Alone::ask(&connected(&alone.dir).unwrap(), hello), []);
    other.kill().unwrap();
    other.wait().unwrap();
}

/// Run again as another user, which the directory lets in for once.
#[test]
fn another_user_is_not_heard() {
    const STAGE: &str = "UFFD_TEST_SOCKET";
    let name = "another_user_is_not_heard";
    if let Some(path) = std::env::var_os(STAGE) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(Path::new(&path)).unwrap()).unwrap();
        assert_eq!(Alone::ask(&socket, r#"{"hello":{"version":1}}"#), []);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let alone = Alone::start(&folder);
    let path = alone.dir.path().join("guardian.sock");
    for (path, mode) in [(folder.path(), 0o755), (alone.dir.path(), 0o755), (&*path, 0o666)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let program = folder.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(program)
        .args(["--exact", name, "--test-threads=1"])
        .env(STAGE, &path)
        .current_dir("/")
        .uid(65_534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_server_of_another_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let alone = Alone::start(&folder);
    let answers = Alone::ask(&alone.connection, r#"{"hello":{"version":99,"more":[]}}"#);
    let [Answer::Welcome { version: 1 }, Answer::Refused { why }] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(why.contains("version 99") && why.contains("version 1"), "{why}");
    for strange in ["", "{", r#"{"copies":{}}"#, r#"{"left":{"id":"a"}}"#, r#"{"what":1}"#] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Alone::ask(&Alone::start(&folder).connection, strange), [], "{strange}");
    }
}

struct Deaf;

impl guardian::Observer for Deaf {
    fn heard(&self, _: News) {}
}

#[test]
fn a_guardian_of_another_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Arc::new(StateDir::open(folder.path()).unwrap());
    let _claim = dir.claim(false).unwrap();
    let post = Post::open(Arc::clone(&dir)).unwrap();
    let error = std::thread::scope(|scope| {
        let client = scope.spawn(|| Client::start(Arc::clone(&dir), None, Box::new(Deaf)));
        let mut visitor = None;
        until("the server", || {
            visitor = visitor.take().or(post.accept().unwrap());
            visitor.is_some()
        });
        visitor.as_mut().unwrap().channel.send(&Answer::Welcome { version: 7 }, None).unwrap();
        client.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, GuardianError::Version { found: 7 }), "{error}");
    assert_eq!(error.code(), "ERR_UFFD_GUARDIAN_VERSION");
}

#[test]
fn without_a_guardian_and_without_its_program_a_server_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Arc::new(StateDir::open(folder.path()).unwrap());
    let _claim = dir.claim(false).unwrap();
    let start = |program: Option<&str>| {
        let launch = program.map(|program| guardian::Launch {
            program: program.into(),
            cgroup: None,
            log: None,
        });
        Client::start(Arc::clone(&dir), launch, Box::new(Deaf)).unwrap_err().to_string()
    };
    assert!(start(None).contains("no guardian listens"));
    assert!(start(Some("/nowhere/guardian")).contains("/nowhere/guardian"));
    assert!(start(Some("/bin/false")).contains("did not start"), "{}", start(Some("/bin/false")));
    assert!(start(Some("/bin/true")).contains("no guardian listens"));
}

#[test]
fn what_a_dead_guardian_left_is_replaced_and_there_is_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::open(&folder.path().join("state")).unwrap();
    // As a dead one leaves it.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("guardian.sock")).unwrap());
    let first = Alone::start(&folder);
    let mut second = guardian_of(first.dir.path()).spawn().unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("has a guardian already"), "{said}");
}

/// The ledgers are gone, and the guests are not.
#[test]
fn a_state_directory_that_was_removed_costs_no_guest_its_guardian() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guest.thread(0).write(3, 1, 9).unwrap();
    guarded(&mut keeper);
    std::fs::remove_dir_all(keeping.state_dir()).unwrap();
    keeper.kill();
    holds(&guest, 3..4, 9);
}

/// A guest whose server was killed, and its id.
fn orphan() -> (Keeping, Guest, String) {
    let keeping = unguarded();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let id = keeper.ask("id");
    keeper.kill();
    (keeping, guest, id)
}

/// Takes the lock on the only ledger there is, whose owner has ended.
fn hold_the_ledger(keeping: &Keeping) -> Flock<File> {
    let dir = StateDir::open(keeping.state_dir()).unwrap();
    let ledgers = dir.ledgers().unwrap();
    let [ledger] = &ledgers[..] else { panic!("there is one guest: {ledgers:?}") };
    let file = File::options().read(true).write(true).open(ledger).unwrap();
    Flock::lock(file, FlockArg::LockExclusive).unwrap()
}

/// Whoever has its lock is as good as frozen for longer than a new server waits.
#[test]
fn a_guest_that_a_server_gives_up_is_served_by_the_guardian_once_it_is_free() {
    let keeping = unguarded();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    keeper.kill();
    let held = hold_the_ledger(&keeping);
    let keeping = keeping.guarded();
    let keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 0);
    let touched = guest.thread(0).start_touch(5, 1);
    drop(held);
    touched.get().unwrap();
    // It says so a moment after it serves.
    until("the guardian's log", || log(&keeping).contains("serves guest"));
}

/// How often a process was let run since its start.
fn runs(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
    counts.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum()
}

/// It would take a good part of a core for as long as a server is frozen.
#[test]
fn a_guest_that_stays_taken_is_tried_less_and_less_often() {
    let keeping = unguarded();
    let mut keeper = keeping.keeper();
    let mut guest = keeping.guest(&keeper, |_| {});
    keeper.kill();
    let held = hold_the_ledger(&keeping);
    let mut guardian = guardian_of(keeping.state_dir()).spawn().unwrap();
    until("the guardian to listen", || keeping.state_dir().join("guardian.sock").exists());
    let before = runs(guardian.id());
    std::thread::sleep(Duration::from_secs(4));
    let runs = runs(guardian.id()) - before;
    assert!(runs < 200, "it ran {runs} times within seconds");
    let touched = guest.thread(0).start_touch(5, 1);
    drop(held);
    touched.get().unwrap();
    guest.kill().unwrap();
    guardian.wait().unwrap();
}

#[test]
fn another_guardian_is_told_of_guests_that_the_server_has_given_up() {
    let keeping = unguarded();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    keeper.kill();
    let held = hold_the_ledger(&keeping);
    let keeping = keeping.guarded();
    let mut keeper = keeping.keeper();
    let first = keeper.guardian().pid.unwrap();
    signal(first, Signal::SIGKILL);
    until("another guardian", || keeper.guardian().pid.is_some_and(|pid| pid != first));
    let touched = guest.thread(0).start_touch(5, 1);
    drop(held);
    touched.get().unwrap();
}

/// How many guests a process has a thread for.
fn guest_threads(pid: i32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "uffd-guest").count()
}

/// What is ready for it has a copy of its userfaultfd, a thread and a mapping.
#[test]
fn nothing_is_kept_for_a_guest_that_is_forgotten_while_it_is_waited_for() {
    let (keeping, guest, id) = orphan();
    let held = hold_the_ledger(&keeping);
    let alone = Alone::of(&keeping);
    alone.tell("entrust", &id);
    assert_eq!(alone.hear(), Answer::Guarded { id: id.clone() });
    // It gives itself its name.
    until("its thread", || guest_threads(alone.pid()) == 1);
    // Both are there when it looks.
    let frozen = Frozen::new(alone.pid());
    alone.tell_left(&id, true);
    alone.tell("forget", &id);
    drop(frozen);
    until("its thread to end", || guest_threads(alone.pid()) == 0);
    drop((held, guest));
}

/// The first look finds no userfaultfd, which comes with the message.
#[test]
fn a_guest_that_is_entrusted_while_it_is_looked_at_is_looked_at_again() {
    let keeping = unguarded();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let id = keeper.ask("id");
    let ledger = StateDir::open(keeping.state_dir()).unwrap().finished(&id);
    let copy = Prospect::find(&ledger, &mut Spares::new()).unwrap().userfaultfd().unwrap();
    keeper.kill();
    let alone = Alone::by(keeping.state_dir(), |dir| {
        // It may not take one from the guest's process.
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]);
        command.args([ROLE, "guardian", "--state-dir"]).arg(dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    alone.greet();
    alone.tell("entrust", &id);
    assert!(matches!(alone.hear(), Answer::Unguarded { .. }));
    // Both are there when it looks.
    let frozen = Frozen::new(alone.pid());
    alone.tell("left", &id);
    alone.say(&format!(r#"{{"entrust":{{"id":"{id}"}}}}"#), Some(&copy));
    drop(frozen);
    assert_eq!(alone.hear(), Answer::Guarded { id });
    holds(&guest, 0..0, 0);
}

/// Whoever hands over and then ends has left its guests, and not stopped them a moment later.
#[test]
fn a_guest_that_is_being_left_is_not_stopped_any_more() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    for _ in 0..8 {
        let guest = keeping.guest(&keeper, |_| {});
        guarded(&mut keeper);
        keeper.tell("hand over");
        assert_eq!(keeper.ask("stop"), "end HandedOver");
        holds(&guest, 0..0, 0);
    }
}

/// How often the main thread of a process was let run.
fn turns(pid: i32) -> u64 {
    runs(pid.cast_unsigned())
}

/// A server may take its time between what it says before and what it says afterwards, and have stopped
/// the guest in between.
#[test]
fn a_guest_that_has_ended_long_after_it_was_to_be_left_is_not_served_again() {
    let (keeping, guest, id) = orphan();
    let held = hold_the_ledger(&keeping);
    let alone = Alone::of(&keeping);
    alone.tell("entrust", &id);
    assert_eq!(alone.hear(), Answer::Guarded { id: id.clone() });
    alone.tell_left(&id, true);
    let tried_from = |turns_before| {
        until("it to try again", || turns(alone.pid()) > turns_before + 8);
    };
    tried_from(turns(alone.pid()));
    // As a session ends: the server says so next.
    std::fs::remove_file(alone.dir.finished(&id)).unwrap();
    let mut file = Some(held.unlock().unwrap());
    tried_from(turns(alone.pid()));
    until("nobody to have it", || {
        match Flock::lock(file.take().unwrap(), FlockArg::LockExclusiveNonblock) {
            Ok(_) => true,
            Err((back, _)) => {
                file = Some(back);
                false
            }
        }
    });
    alone.tell("forget", &id);
    until("its thread to end", || guest_threads(alone.pid()) == 0);
    drop(guest);
}

/// A server that has all ready for its guest, and gets no further until it may.
struct Slow {
    refused: Mutex<Sender<Refusal>>,
    may: Mutex<Option<Receiver<()>>>,
}

struct OfGuest(Receiver<()>);

impl Observer for OfGuest {
    fn begins(&mut self, _: &Arc<View>) {
        self.0.recv().unwrap();
    }
}

impl ServerObserver for Slow {
    fn arriving(&self) -> Arriving {
        let may = self.may.lock().unwrap().take().unwrap();
        Arriving { observer: Box::new(OfGuest(may)), served: Box::new(|_| panic!("is served")) }
    }

    fn refused(&self, refusal: Refusal) {
        self.refused.lock().unwrap().send(refusal).unwrap();
    }
}

/// Tells all news.
struct Told(Mutex<Sender<News>>);

impl guardian::Observer for Told {
    fn heard(&self, news: News) {
        let _ = self.0.lock().unwrap().send(news);
    }
}

/// Its ledger goes, so that no other server would find it, nor another guardian.
#[test]
fn a_guest_that_is_refused_while_its_server_closes_is_not_served_by_the_guardian() {
    let (folder, pattern) = (tempfile::tempdir().unwrap(), Pattern::new(71, SMALL));
    let [socket, memory] = ["uffd.sock", "mem"].map(|name| folder.path().join(name));
    snapshot::create(&memory, &pattern, PAGES, ZeroPages::Holes).unwrap();
    let dir = Arc::new(StateDir::open(&folder.path().join("state")).unwrap());
    let _claim = dir.claim(false).unwrap();
    let launch = guardian::Launch { program: ROLE.into(), cgroup: None, log: None };
    let ((tells, news), (refuses, refused), (go_on, may)) = (channel(), channel(), channel());
    let told = Box::new(Told(Mutex::new(tells)));
    let client = Client::start(Arc::clone(&dir), Some(launch), told).unwrap();
    let Ok(News::Met { pid }) = news.recv_timeout(DEADLINE) else { panic!("it was met") };
    let source = Arc::new(FileSource::open(&memory).unwrap());
    let snapshot = SnapshotPlace::of(&source).unwrap();
    let guardian = Some(Arc::clone(&client));
    let keep = Some(Keep { dir: Arc::clone(&dir), snapshot, guardian, manager: None });
    let options = ServerOptions { keep, ..ServerOptions::default() };
    let observer = Arc::new(Slow { refused: Mutex::new(refuses), may: Mutex::new(Some(may)) });
    let server = Server::start(&socket, Arc::new(Fetcher::new(source)), options, observer).unwrap();
    let guest = GuestBuilder::new(GUEST, Options::new(socket, [PAGES], pattern)).spawn().unwrap();
    let guarded = news.recv_timeout(DEADLINE);
    assert!(matches!(guarded, Ok(News::Guarded { .. })), "{guarded:?}");
    server.stop();
    assert_eq!(refused.recv_timeout(DEADLINE).unwrap().code(), "ERR_UFFD_HANDOFF_CANCELLED");
    go_on.send(()).unwrap();
    drop(server);
    until("its thread to end", || Arc::strong_count(&client) == 1);
    assert_eq!(dir.ledgers().unwrap(), Vec::<std::path::PathBuf>::new());
    drop(client);
    // It would stay for a guest.
    has_ended(pid);
    drop(guest);
}

/// By a server that has no guardian for its own guests.
#[test]
fn nothing_is_kept_for_a_guest_that_is_forgotten_while_it_is_given_back() {
    let (keeping, guest, id) = orphan();
    let alone = Alone::of(&keeping);
    alone.tell("left", &id);
    guest.thread(0).read(0, 1).unwrap();
    assert!(userfaultfds(alone.pid()) > 0);
    let frozen = Frozen::new(alone.pid());
    alone.tell("give", &id);
    alone.tell("forget", &id);
    drop(frozen);
    assert_eq!(alone.hear(), Answer::Given { id });
    until("its userfaultfds to be closed", || userfaultfds(alone.pid()) == 0);
}

/// How many userfaultfds a process has.
fn userfaultfds(pid: i32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.as_os_str() == "anon_inode:[userfaultfd]").count()
}

/// All of it may be there before the guardian has heard from its own thread that the guest is served
/// by it no more.
#[test]
fn a_guest_that_was_given_back_and_left_again_at_once_is_served() {
    for soon in [false, true] {
        let (keeping, guest, id) = orphan();
        let alone = Alone::of(&keeping);
        alone.tell("entrust", &id);
        assert_eq!(alone.hear(), Answer::Guarded { id: id.clone() });
        alone.tell_left(&id, false);
        guest.thread(0).read(0, 1).unwrap();
        let frozen = Frozen::new(alone.pid());
        alone.tell("give", &id);
        alone.tell("entrust", &id);
        alone.tell_left(&id, soon);
        drop(frozen);
        assert_eq!(alone.hear(), Answer::Given { id: id.clone() });
        assert_eq!(alone.hear(), Answer::Guarded { id });
        holds(&guest, 0..0, 0);
    }
}

/// More than the server reads in one turn, so that there is no news of the rest of them.
#[test]
fn more_faults_at_once_than_are_read_in_a_turn_are_all_served() {
    const THREADS: u64 = 64 * 128 + 200;
    let pattern = Pattern::new(71, SMALL);
    let keeping = Keeping::new(Cast::new(ROLE), GUEST, pattern, &[THREADS], Some(false));
    let keeping = keeping.fill_alone();
    let keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let frozen = keeper.freeze();
    let threads = u32::try_from(THREADS).unwrap();
    let bench = Bench { threads, count: Some(THREADS), ..Bench::default() };
    let touches = guest.thread(0).start_bench(bench);
    until("all to wait", || waiting_threads(guest.pid()) == threads as usize);
    drop(frozen);
    assert_eq!(touches.get().unwrap().touches, THREADS);
    assert_eq!(guest.thread(0).verify(0, THREADS, &[Expect::Source]).unwrap().wrong, 0);
}
