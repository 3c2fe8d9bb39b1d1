//! What a service manager is told and keeps, by a socket of the test's own.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use uffd_core::handoff::{Handoff, Limits, Listener, SocketAccess};
use uffd_core::kernel::Waker;
use uffd_core::server::{Arriving, Bound, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::service_manager::{Environment, Phase, ServiceManager, Trouble};
use uffd_core::session::{NoObserver, Observer, Session, SessionOptions};
use uffd_core::source::{Fetcher, FileSource, Source};
use uffd_core::stats::Stats;
use uffd_core::watchdog;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::{self, ZeroPages};
use uffd_proof::{DEADLINE, SMALL, threads_named, until};

fn told_at(address: impl AsRef<OsStr>) -> Environment {
    Environment { notify_socket: Some(address.as_ref().into()), ..Environment::default() }
}

/// What is wrong with it.
fn troubles(manager: &ServiceManager) -> Arc<Mutex<Vec<Trouble>>> {
    let heard = Arc::<Mutex<Vec<_>>>::default();
    let hears = Arc::clone(&heard);
    manager.on_trouble(Box::new(move |trouble| {
        hears.lock().unwrap().push(trouble);
        Ok(())
    }));
    heard
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let len = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn it_is_told_of_each_phase() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = ServiceManager::of(&told_at(&path)).unwrap();
    manager.tell(Phase::Ready);
    assert_eq!(next(&socket), format!("READY=1\nMAINPID={}", std::process::id()));
    manager.status("serves\n3 guests");
    assert_eq!(next(&socket), "STATUS=serves 3 guests");
    manager.tell(Phase::Stopping);
    assert_eq!(next(&socket), "STOPPING=1");
    assert_eq!((manager.store_limit(), manager.watchdog()), (None, None));
}

#[test]
fn there_is_none_where_the_environment_tells_of_none() {
    assert!(ServiceManager::of(&Environment::default()).is_none());
    let others = Environment {
        listen_pid: Some("1".into()),
        listen_fds: Some("1".into()),
        watchdog_usec: Some("1000000".into()),
        fd_store: Some("10".into()),
        ..Environment::default()
    };
    assert!(ServiceManager::of(&others).is_none(), "what is passed to another process is not ours");
}

#[test]
fn it_may_have_an_abstract_name() {
    let name = format!("uffd-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    ServiceManager::of(&told_at(format!("@{name}"))).unwrap().tell(Phase::Stopping);
    assert_eq!(next(&socket), "STOPPING=1");
}

#[test]
fn one_that_cannot_be_told_anything_is_no_reason_not_to_serve_and_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let stream = folder.path().join("stream");
    let _listener = UnixListener::bind(&stream).unwrap();
    let nobody = folder.path().join("nobody");
    drop(UnixDatagram::bind(&nobody).unwrap());
    let long = format!("/{}", "x".repeat(200));
    let wrong: [&OsStr; 6] = [
        stream.as_os_str(),
        nobody.as_os_str(),
        OsStr::new("/nowhere/at/all"),
        OsStr::new("relative/path"),
        OsStr::new("vsock:2:1234"),
        OsStr::from_bytes(long.as_bytes()),
    ];
    for address in wrong {
        let manager = ServiceManager::of(&told_at(address)).unwrap();
        let heard = troubles(&manager);
        (0..3).for_each(|_| manager.status("serves"));
        let heard = heard.lock().unwrap();
        let [trouble] = &heard[..] else { panic!("{address:?}: {heard:?}") };
        assert_eq!(trouble.code(), "ERR_UFFD_SERVICE_MANAGER");
        assert!(trouble.to_string().contains(&*address.to_string_lossy()), "{trouble}");
    }
}

/// It takes nothing in: whoever tells it goes on at once, and it is told all of it later, but what is
/// out of date by then.
#[test]
fn one_that_hangs_holds_nobody_up() {
    const MESSAGES: usize = 5000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = ServiceManager::of(&told_at(&path)).unwrap();
    let heard = troubles(&manager);
    // Its queue has room for some hundreds at most, whatever the host allows.
    for _ in 0..MESSAGES {
        manager.tell(Phase::Stopping);
    }
    (0..MESSAGES).for_each(|number| manager.status(&number.to_string()));
    manager.tell(Phase::Ready);
    let mut said = Vec::new();
    while !said.last().is_some_and(|text: &String| text.starts_with("READY=1")) {
        said.push(next(&socket));
    }
    assert_eq!(said.iter().filter(|text| *text == "STOPPING=1").count(), MESSAGES);
    let statuses: Vec<_> = said.iter().filter(|text| text.starts_with("STATUS=")).collect();
    assert_eq!(**statuses.last().unwrap(), format!("STATUS={}", MESSAGES - 1));
    assert!(statuses.len() < MESSAGES, "{}", statuses.len());
    assert!(heard.lock().unwrap().is_empty());
}

const PAGES: u64 = 8;

/// An observer that stops its fault loop, in the middle of a turn, for as long as it is wanted.
struct Stops {
    stops: Sender<()>,
    goes_on: Receiver<()>,
}

impl Observer for Stops {
    fn stats(&mut self, _: Stats) {
        self.stops.send(()).unwrap_or_default();
        self.goes_on.recv().unwrap_or_default();
    }
}

/// A guest that was handed off, and nobody serves yet.
fn handed_off(folder: &Path) -> (Handoff, Guest, FileSource) {
    let [file, at] = ["mem", "uffd.sock"].map(|name| folder.join(name));
    let pattern = Pattern::new(5, SMALL);
    snapshot::create(&file, &pattern, PAGES, ZeroPages::Holes).unwrap();
    let listener = Listener::bind(&at).unwrap();
    let options = Options::new(at, [PAGES], pattern);
    let guest = GuestBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), options);
    let guest = std::thread::spawn(|| guest.spawn().unwrap());
    let source = FileSource::open(&file).unwrap();
    let limits = Limits::new(source.len());
    let mut connection = None;
    until("a guest", || {
        connection = listener.accept().unwrap();
        connection.is_some()
    });
    let never = Waker::new().unwrap();
    let handoff = connection.unwrap().receive(&limits, never.as_fd()).unwrap();
    (handoff, guest.join().unwrap(), source)
}

fn served(handoff: Handoff, source: FileSource, observer: impl Observer) -> Arc<Session> {
    let fetcher = Arc::new(Fetcher::new(Arc::new(source)));
    let options = SessionOptions::default();
    Arc::new(Session::start(handoff, fetcher, options, Box::new(observer)).unwrap())
}

#[test]
fn it_gets_signs_of_life_for_as_long_as_every_fault_loop_turns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let (stops, has_stopped) = channel();
    let (goes_on, wait) = channel();
    let (handoff, _guest, source) = handed_off(folder.path());
    let session = served(handoff, source, Stops { stops, goes_on: wait });

    let environment = Environment { watchdog_usec: Some("30000".into()), ..told_at(&path) };
    let manager = ServiceManager::of(&environment).unwrap();
    let watched = Arc::clone(&session);
    watchdog::watch(&manager, Box::new(move || vec![Arc::clone(&watched)])).unwrap();
    // On a busy machine it may not be let run in time now and then.
    in_a_row(&socket, 3, "WATCHDOG=1");

    session.report(Some(Duration::from_millis(1)), false);
    has_stopped.recv().unwrap();
    // What was on its way, and a check whose question was answered before, come first.
    let silent = format!("STATUS=The fault loop of the guest {} does not answer", session.id());
    in_a_row(&socket, 4, &silent);
    drop(goes_on);
    while next(&socket) != "WATCHDOG=1" {}
}

/// Waits until the manager is told the same so often in a row.
fn in_a_row(socket: &UnixDatagram, times: usize, text: &str) {
    let mut told = 0;
    until("it to be told the same again and again", || {
        told = if next(socket) == text { told + 1 } else { 0 };
        told == times
    });
}

/// An observer that looks into the memory of another guest, in the middle of a turn.
struct Looks {
    pid: i32,
    base: usize,
}

impl Observer for Looks {
    fn stats(&mut self, _: Stats) {
        let mut byte = [0];
        let remote = [RemoteIoVec { base: self.base, len: 1 }];
        let _ =
            process_vm_readv(Pid::from_raw(self.pid), &mut [IoSliceMut::new(&mut byte)], &remote);
    }
}

/// Whoever serves the guest next would be held up as well.
#[test]
fn it_gets_signs_of_life_while_the_kernel_holds_a_fault_loop_up() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let path = folders[0].path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let (unserved, mut other, _) = handed_off(folders[1].path());
    let base = usize::try_from(unserved.layout.regions()[0].base.0).unwrap();
    let (handoff, _guest, source) = handed_off(folders[0].path());
    let session = served(handoff, source, Looks { pid: other.pid(), base });
    // In a wait that nothing but its end interrupts: nobody serves that fault.
    let is_held_up = || {
        threads_named("uffd-guest").into_iter().any(|thread| {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
            stat.is_ok_and(|stat| stat.contains(") D ")) && waits_in_userfaultfd(thread)
        })
    };
    session.report(Some(Duration::from_millis(1)), false);
    until("it to be held up", is_held_up);
    let environment = Environment { watchdog_usec: Some("30000".into()), ..told_at(&path) };
    let manager = ServiceManager::of(&environment).unwrap();
    let watched = Arc::clone(&session);
    watchdog::watch(&manager, Box::new(move || vec![Arc::clone(&watched)])).unwrap();
    (0..5).for_each(|_| assert_eq!(next(&socket), "WATCHDOG=1"));
    assert!(is_held_up());
    // Both have the userfaultfd, and the loop has a hold on the memory.
    drop(unserved);
    other.kill().unwrap();
    until("it to go on", || !is_held_up());
}

fn waits_in_userfaultfd(thread: i32) -> bool {
    let function = std::fs::read_to_string(format!("/proc/self/task/{thread}/wchan"));
    function.is_ok_and(|function| function.contains("userfault"))
}

#[test]
fn signs_of_life_are_for_whom_they_are_wanted_from() {
    let wanted = |pid: Option<u32>, every: &str| {
        let environment = Environment {
            watchdog_pid: pid.map(|pid| pid.to_string()),
            watchdog_usec: Some(every.into()),
            ..told_at("/nowhere")
        };
        let manager = ServiceManager::of(&environment).unwrap();
        (manager.watchdog().is_some(), troubles(&manager).lock().unwrap().len())
    };
    assert_eq!(wanted(None, "1000"), (true, 0));
    assert_eq!(wanted(Some(std::process::id()), "1000"), (true, 0));
    assert_eq!(wanted(Some(1), "1000"), (false, 0));
    assert_eq!(wanted(None, "0"), (false, 1));
    assert_eq!(wanted(None, "soon"), (false, 1));
}

/// Runs one test of this program again, by a shell that opens descriptors as a service manager does.
fn again(name: &str, redirections: &str, stdin: Stdio) {
    let output = Command::new("sh")
        .args(["-c", &format!("exec \"$0\" --exact \"$1\" --test-threads=1 {redirections}")])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(STAGE, name)
        .stdin(stdin)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

const STAGE: &str = "UFFD_TEST_INHERITED";

fn is_again(name: &str) -> bool {
    std::env::var_os(STAGE).is_some_and(|stage| stage == name)
}

fn passed(count: &str, names: Option<&str>) -> Environment {
    Environment {
        listen_pid: Some(std::process::id().to_string()),
        listen_fds: Some(count.into()),
        listen_fd_names: names.map(str::to_owned),
        ..Environment::default()
    }
}

fn is_open(number: i32) -> bool {
    Path::new(&format!("/proc/self/fd/{number}")).symlink_metadata().is_ok()
}

/// The flags of a descriptor as the kernel has them, in octal.
fn is_passed_on(number: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 == 0
}

#[test]
fn what_is_inherited_is_found_once_and_nothing_that_may_be_anothers_is_closed() {
    let name = "what_is_inherited_is_found_once_and_nothing_that_may_be_anothers_is_closed";
    if is_again(name) {
        assert!((3..6).all(is_passed_on));
        let names = "uffd-rs-01234567-no-userfaultfd:mine:vms.socket";
        let manager = ServiceManager::of(&passed("3", Some(names))).unwrap();
        let sockets = manager.unused_sockets();
        assert!(sockets.len() == 1 && sockets[0].ends_with("vms.socket"), "{sockets:?}");
        assert!(troubles(&manager).lock().unwrap().is_empty());
        let again = ServiceManager::of(&passed("3", Some(names))).unwrap();
        let heard = troubles(&again);
        assert!(heard.lock().unwrap()[0].to_string().contains("taken already"));
        drop((manager, again));
        assert!((3..6).all(|number| is_open(number) && !is_passed_on(number)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixListener::bind(folder.path().join("vms.socket")).unwrap();
    again(name, "3</dev/null 4</dev/zero 5<&0", Stdio::from(OwnedFd::from(socket)));
}

#[test]
fn a_lie_about_what_is_inherited_takes_nothing() {
    let name = "a_lie_about_what_is_inherited_takes_nothing";
    if is_again(name) {
        // Few processes have so many; number 4 is closed.
        for (count, names) in [
            ("4294967295", None),
            ("2147483647", None),
            ("900", None),
            ("2", None),
            ("-1", None),
            ("", None),
            ("1", Some("one:two")),
        ] {
            let manager = ServiceManager::of(&passed(count, names)).unwrap();
            let heard = troubles(&manager);
            let heard = heard.lock().unwrap();
            let [trouble @ Trouble::Inherited { .. }] = &heard[..] else {
                panic!("{count}: {heard:?}")
            };
            assert_eq!(trouble.code(), "ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT");
            assert!(manager.unused_sockets().is_empty());
        }
        assert!(is_open(3) && !is_open(4));
        return;
    }
    again(name, "3</dev/null 4<&-", Stdio::null());
}

struct Nobody;

impl ServerObserver for Nobody {
    fn arriving(&self) -> Arriving {
        Arriving { observer: Box::new(NoObserver), served: Box::new(drop) }
    }

    fn refused(&self, _: Refusal) {}
}

/// A socket as a manager could have bound it, of any kind.
fn bound(path: &Path, kind: SocketType, listens: bool) -> OwnedFd {
    let socket = net::socket(AddressFamily::UNIX, kind, None).unwrap();
    net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    if listens {
        net::listen(&socket, 16).unwrap();
    }
    socket
}

#[test]
fn a_socket_of_the_manager_is_used_as_it_is_or_refused_by_name() {
    let name = "a_socket_of_the_manager_is_used_as_it_is_or_refused_by_name";
    if !is_again(name) {
        return again(name, "", Stdio::null());
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let [good, datagram, silent, sequential] = ["good", "datagram", "silent", "seq"].map(at);
    let sockets = [
        bound(&good, SocketType::STREAM, true),
        bound(&datagram, SocketType::DGRAM, false),
        bound(&silent, SocketType::STREAM, false),
        bound(&sequential, SocketType::SEQPACKET, true),
    ];
    // They have the lowest numbers that were free.
    let count = (3..).take_while(|&number| is_open(number)).count();
    let manager = ServiceManager::of(&passed(&count.to_string(), None)).unwrap();
    assert_eq!(manager.unused_sockets().len(), sockets.len());

    snapshot::create(&at("mem"), &Pattern::new(5, SMALL), PAGES, ZeroPages::Holes).unwrap();
    let source = Arc::new(FileSource::open(&at("mem")).unwrap());
    let bind = |path: &Path, mode: Option<u32>| {
        let access = SocketAccess { owner: None, mode };
        let manager = Some(Arc::clone(&manager));
        let options = ServerOptions { access, manager, ..ServerOptions::default() };
        let fetcher = Arc::new(Fetcher::new(source.clone()));
        Server::bind(path, fetcher, options, Arc::new(Nobody)).map(Bound::open)
    };
    let refused = |path: &Path, mode, code: &str, why: &str| {
        let error = bind(path, mode).unwrap_err();
        let text = error.to_string();
        assert!(error.code() == code && text.contains(why), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    };
    let inherited = "ERR_UFFD_SOCKET_INHERITED";
    refused(&datagram, None, inherited, "ListenDatagram=");
    refused(&silent, None, inherited, "does not listen");
    refused(&sequential, None, inherited, "ListenSequentialPacket=");
    refused(&good, Some(0o600), inherited, "SocketMode=");

    // By another name of its folder, as /var/run is one of /run.
    let link = at("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    for path in [&good, &link.join("good"), &good] {
        let server = bind(path, None).unwrap();
        assert_eq!(manager.unused_sockets().len(), sockets.len() - 1);
        refused(&good, None, "ERR_UFFD_SOCKET_IN_USE", "already listens");
        drop(server);
        // The manager listens on, and whoever comes now waits for the next server.
        drop(UnixStream::connect(&good).unwrap());
    }
    std::fs::remove_file(&good).unwrap();
    refused(&good, None, inherited, "its file is gone");
}
