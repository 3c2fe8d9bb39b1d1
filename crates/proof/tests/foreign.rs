//! Guests whose process cannot be seen from the handler's pid namespace: no pidfd tells of their
//! end, and no page map whether a huge page is there.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_guest::snapshot::{self, ZeroPages};
use uffd_proof::{HUGE, HugePages, SMALL, Wanderer};

const PAGES: u64 = 6;

/// A handler in another pid namespace, and what it says.
struct Handler {
    dir: tempfile::TempDir,
    process: Child,
    lines: Receiver<String>,
    pattern: Pattern,
}

impl Handler {
    fn start(page_size: u64) -> Self {
        let (dir, pattern) = (tempfile::tempdir().unwrap(), Pattern::new(5, page_size));
        let (socket, file) = (dir.path().join("uffd.sock"), dir.path().join("mem"));
        snapshot::create(&file, &pattern, PAGES, ZeroPages::Holes).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_uffd-proof-handler"))
            .args([&socket, &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let handler = Self { dir, process, lines, pattern };
        assert_eq!(handler.next(), "ready");
        handler
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("the handler says something")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("uffd.sock")
    }

    /// A guest in our namespace that hands off to whoever listens there.
    fn start_guest(&self, socket: &Path) -> Guest {
        let options = Options::new(socket, [PAGES], self.pattern);
        let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
        GuestBuilder::new(program, options).spawn().unwrap()
    }

    /// A guest in our namespace.
    fn guest(&self) -> Guest {
        let guest = self.start_guest(&self.socket());
        assert_eq!(self.next(), "guest None, killed: false");
        guest
    }

    /// The end of its guest, and how often it woke threads without an install.
    fn end(&self) -> (String, u64) {
        let line = self.next();
        let (end, wakes) = line.strip_prefix("end ").unwrap().split_once(", ").unwrap();
        (end.to_owned(), wakes.strip_suffix(" wakes").unwrap().parse().unwrap())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn a_guest_in_another_pid_namespace_is_served_and_its_end_is_seen() {
    for page_size in [SMALL, HUGE] {
        let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let handler = Handler::start(page_size);
        for close_socket in [false, true] {
            let mut guest = handler.guest();
            let thread = guest.thread(0);
            assert_eq!(thread.verify(0, 3, &[Expect::Source]).unwrap().wrong, 0);
            thread.write(3, 1, 9).unwrap();
            thread.madvise(0, 2).unwrap();
            assert_eq!(thread.verify(0, 2, &[Expect::Zeros]).unwrap().wrong, 0);
            if close_socket {
                // As before Firecracker 1.12: it is no sign of the guest's end.
                guest.close_socket().unwrap();
            }
            assert_eq!(thread.verify(4, 2, &[Expect::Source]).unwrap().wrong, 0);
            assert_eq!(thread.read_page(3).unwrap(), Content::Stamp(9));
            guest.kill().unwrap();
            assert_eq!(handler.end().0, "GuestExited");
        }
    }
}

/// They have no number there, and are told apart all the same.
#[test]
fn a_process_in_another_pid_namespace_hands_off_so_many_guests() {
    const LIMIT: usize = 4;
    let handler = Handler::start(SMALL);
    let wanderers: Vec<_> =
        (0..=LIMIT).map(|_| Wanderer::start(|socket| handler.start_guest(socket))).collect();
    let mut peers = Vec::new();
    for (number, wanderer) in wanderers.iter().enumerate() {
        peers.push(wanderer.hand_off(&handler.socket()).unwrap());
        let line = handler.next();
        match number {
            LIMIT => assert!(line.contains("maxGuestsPerProcess"), "{line}"),
            _ => assert_eq!(line, "guest None, killed: false"),
        }
    }
    let guest = handler.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

/// EEXIST means that a huge page is there, or that there is none to be had. Without a page map the
/// threads have to find out, once; then the page is waited for like any other.
#[test]
fn a_pool_that_is_used_up_is_waited_for_without_a_page_map() {
    let pool = HugePages::reserve(4).unwrap();
    let handler = Handler::start(HUGE);
    let mut guest = handler.guest();
    // Of several threads that miss one page, some may come too late and find it there.
    let all: Vec<_> = (0..4).map(|thread| guest.thread(thread).start_touch(0, 4)).collect();
    all.into_iter().for_each(|touched| assert_eq!(touched.get().unwrap().pages, 4));

    let read = guest.thread(1).start_read(4, 1);
    let write = guest.thread(2).start_write(5, 1, 9);
    let notice = handler.next();
    assert!(notice.starts_with("notice OutOfMemory") && notice.contains("huge: true"), "{notice}");
    assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    assert!(!read.is_done() && !write.is_done());

    // What is given back is taken by one of them, and then missed itself.
    guest.thread(0).madvise(0, 1).unwrap();
    uffd_proof::until("one to be served", || read.is_done() || write.is_done());
    assert!(!read.is_done() || !write.is_done());
    let given_back = guest.thread(0).start_read(0, 1);

    pool.resize(PAGES + 1).unwrap();
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
    write.get().unwrap();
    assert!(given_back.get().unwrap().all(|content| *content == Content::Zeros));
    assert_eq!(guest.thread(0).read_page(5).unwrap(), Content::Stamp(9));
    guest.kill().unwrap();
    let (end, wakes) = handler.end();
    assert_eq!(end, "GuestExited");
    // Waking again and again would be a spin.
    assert!(wakes < 30, "{wakes} wakes");
}
