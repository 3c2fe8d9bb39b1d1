//! Ledgers that are not what they were: each is refused by name, its guest is left alone, and whoever
//! has the right one serves it on.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use uffd_core::ledger::{SnapshotPlace, StateDir};
use uffd_core::recovery::{Awaited, Keep, Left, Prospect, Spares, take_over};
use uffd_core::session::{End, NoObserver, Session, SessionError, SessionOptions};
use uffd_core::source::{Fetcher, FileSource};
use uffd_guest::driver::Guest;
use uffd_guest::pattern::{Content, Pattern};
use uffd_proof::{Cast, Keeping, SMALL};

const PAGES: u64 = 24;

/// A guest that was left, and its ledger as it was.
struct Scene {
    keeping: Keeping,
    guest: Guest,
    path: PathBuf,
    good: Vec<u8>,
}

/// Bytes before the text of a header: magic, version, length of the text, checksum, length of all.
const PRELUDE: usize = 28;

/// Where the header of a ledger ends, and where its text does.
fn ends(ledger: &[u8]) -> (usize, usize) {
    let text = PRELUDE + u32::from_le_bytes(ledger[12..16].try_into().unwrap()) as usize;
    (text.next_multiple_of(4096), text)
}

/// The ledger with another text, which is right in every other way.
fn forged(good: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (header, end) = ends(good);
    let mut text = serde_json::from_slice(&good[PRELUDE..end]).unwrap();
    change(&mut text);
    let text = serde_json::to_vec(&text).unwrap();
    let mut bytes = good[..PRELUDE].to_vec();
    bytes[12..16].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes[16..20].copy_from_slice(&crc32fast::hash(&text).to_le_bytes());
    bytes.extend(text);
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    bytes.extend(&good[header..]);
    let len = bytes.len() as u64;
    bytes[20..28].copy_from_slice(&len.to_le_bytes());
    bytes
}

impl Scene {
    fn new() -> Self {
        Self::of(|keeping| keeping)
    }

    fn of(place: impl FnOnce(Keeping) -> Keeping) -> Self {
        let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
        let pattern = Pattern::new(29, SMALL).with_lone_zeros(100);
        let keeping = place(Keeping::by(cast, pattern, &[10, PAGES - 10], Some(true)));
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |_| {});
        guest.thread(0).touch(0, 12).unwrap();
        guest.thread(0).write(1, 2, 9).unwrap();
        guest.thread(0).madvise(4, 3).unwrap();
        // That it gave them back is written down.
        assert_eq!(keeper.ask("settle"), "Ok(())");
        keeper.kill();
        let entries = fs::read_dir(keeping.state_dir()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let path = paths.into_iter().find(|path| path.extension().is_some_and(|it| it == "ledger"));
        let path = path.unwrap();
        let good = fs::read(&path).unwrap();
        Self { keeping, guest, path, good }
    }

    /// Puts these bytes in the ledger's place, in a file that was never any other.
    fn put(&self, bytes: &[u8]) {
        let _ = fs::remove_file(&self.path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path);
        file.unwrap().write_all_at(bytes, 0).unwrap();
    }

    /// What a server says that would take over what is there, and takes nothing.
    fn refusals(&self) -> Vec<String> {
        let source = FileSource::open(self.keeping.snapshot()).unwrap();
        let keep = Keep {
            dir: Arc::new(StateDir::open(self.keeping.state_dir()).unwrap()),
            snapshot: SnapshotPlace::of(&source).unwrap(),
            guardian: None,
            manager: None,
        };
        let mut taken = Vec::new();
        let ready = |prospect| Ok(Box::new(prospect));
        let take = |prospect: Box<Prospect>, _| prospect.take().map(|left| taken.push(left));
        let others = take_over(&keep, &mut Spares::new(), Awaited::default(), ready, take).unwrap();
        assert_eq!(taken.len(), 0, "{taken:?}");
        others
            .iter()
            .map(|other| {
                assert!(other.to_string().contains(&*self.path.to_string_lossy()), "{other}");
                other.why.code().to_owned()
            })
            .collect()
    }

    fn is_refused(&self, what: &str, bytes: &[u8], code: &str) {
        self.put(bytes);
        assert_eq!(self.refusals(), [code], "{what}");
        let kept = code != "ERR_UFFD_RECOVERY_ENDED";
        assert_eq!(self.path.exists(), kept, "{what}");
    }

    /// With the right ledger everything is as it was.
    fn is_served_on(&self) {
        self.put(&self.good);
        let mut keeper = self.keeping.keeper();
        assert_eq!(keeper.recovered(), 1, "{:?}", keeper.left());
        let export = keeper.export();
        assert!(export.exact);
        assert_eq!(export.dirty.iter().copied().collect::<Vec<_>>(), [1, 2]);
        for page in 0..PAGES {
            let expected = match page {
                1 | 2 => Content::Stamp(9),
                4..7 => Content::Zeros,
                page => self.keeping.pattern().source(page),
            };
            assert_eq!(self.guest.thread(0).read_page(page).unwrap(), expected, "page {page}");
        }
    }
}

const LEDGER: &str = "ERR_UFFD_RECOVERY_LEDGER";

#[test]
fn a_header_that_lies_is_refused_by_what_the_kernel_says() {
    let scene = Scene::new();
    type Lie = (&'static str, fn(&mut Value), &'static str);
    let lies: [Lie; 26] = [
        ("another boot", |it| it["boot"] = json!("0"), "ERR_UFFD_RECOVERY_ENDED"),
        ("another start", |it| it["started"] = json!(1), "ERR_UFFD_RECOVERY_ENDED"),
        ("nobody", |it| it["pid"] = json!(i32::MAX), "ERR_UFFD_RECOVERY_ENDED"),
        ("another namespace", |it| it["pidNamespace"] = json!(1), "ERR_UFFD_RECOVERY_NAMESPACE"),
        ("another time", |it| it["timeNamespace"] = json!(1), "ERR_UFFD_RECOVERY_NAMESPACE"),
        ("no number", |it| it["uffd"] = json!(null), "ERR_UFFD_RECOVERY_DESCRIPTOR"),
        ("a number of another file", |it| it["uffd"] = json!(0), "ERR_UFFD_RECOVERY_DESCRIPTOR"),
        ("a number of no file", |it| it["uffd"] = json!(4000), "ERR_UFFD_RECOVERY_DESCRIPTOR"),
        ("a negative number", |it| it["uffd"] = json!(-1), "ERR_UFFD_RECOVERY_DESCRIPTOR"),
        ("other addresses", |it| shift(it, 1 << 40), "ERR_UFFD_RECOVERY_MEMORY"),
        ("addresses nearby", |it| shift(it, 1 << 20), "ERR_UFFD_RECOVERY_MEMORY"),
        (
            "another snapshot",
            |it| it["snapshot"]["fingerprint"] = json!("0123456789abcdef0123456789abcdef"),
            "ERR_UFFD_RECOVERY_SNAPSHOT",
        ),
        (
            "a longer snapshot",
            |it| it["snapshot"]["length"] = json!(1 << 30),
            "ERR_UFFD_RECOVERY_SNAPSHOT",
        ),
        (
            "another file",
            |it| it["snapshot"]["file"]["inode"] = json!(1),
            "ERR_UFFD_RECOVERY_SNAPSHOT",
        ),
        (
            "a file that was written to since",
            |it| it["snapshot"]["file"]["modified"] = json!(1),
            "ERR_UFFD_RECOVERY_SNAPSHOT",
        ),
        (
            "an older file with the same inode",
            |it| it["snapshot"]["file"]["made"] = json!(1),
            "ERR_UFFD_RECOVERY_SNAPSHOT",
        ),
        ("no fingerprint", |it| it["snapshot"]["fingerprint"] = json!("xyz"), LEDGER),
        ("another id", |it| it["id"] = json!("somebody"), LEDGER),
        ("addresses in a page", |it| shift(it, 8), LEDGER),
        ("no regions", |it| it["regions"] = json!([]), LEDGER),
        ("a region of nothing", |it| it["regions"][0]["end"] = json!(0), LEDGER),
        ("regions that overlap", |it| it["regions"][0]["end"] = json!(11), LEDGER),
        ("more than the snapshot", |it| it["regions"][1]["end"] = json!(PAGES + 1), LEDGER),
        ("fewer pages", |it| it["regions"][1]["end"] = json!(PAGES - 1), LEDGER),
        ("a page size that is none", |it| it["pageSize"] = json!(8192), LEDGER),
        ("something else as well", |it| it["more"] = json!(true), LEDGER),
    ];
    for (what, lie, code) in lies {
        scene.is_refused(what, &forged(&scene.good, lie), code);
    }
    scene.put(&forged(&scene.good, |_| {}));
    scene.is_served_on();
}

fn shift(text: &mut Value, by: u64) {
    for region in text["regions"].as_array_mut().unwrap() {
        region["base"] = json!(region["base"].as_u64().unwrap() + by);
    }
}

/// The parts without a checksum, which change all the time: note, what was decided, events, states,
/// trace.
#[test]
fn what_nobody_can_have_written_is_refused() {
    let scene = Scene::new();
    let (note, _) = ends(&scene.good);
    let (live, count, events) = (note + 512, note + 4096 - 64, note + 4096);
    let states = note + 8192;
    let words = |words: [u64; 4]| words.map(u64::to_ne_bytes).concat();
    for (what, at, bytes) in [
        ("a note of too many", note, words([17, 2, 3, 0])),
        ("a note of pages there are not", note, words([1, 23, 25, 0])),
        ("a note of nothing", note, words([1, 3, 3, 0])),
        ("a note of a filling there is not", note, words([1, 2, 3, 3])),
        ("a way of tracking there is not", live, vec![9]),
        ("a release that is none", live + 1, vec![2]),
        ("an event there is not", events + 32, vec![0x77]),
        ("a REMOVE of nothing", events + 64, words([0x15, 0x1000, 0x1000, 0])),
        ("a state there is not", states + 3, vec![6]),
        ("a trace of more than all", count, words([PAGES + 1, 0, 0, 0])),
        ("a trace with something else", count + 8, vec![1]),
    ] {
        let mut bad = scene.good.clone();
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        scene.is_refused(what, &bad, LEDGER);
    }
    scene.is_served_on();
}

/// Nobody is hung for the sake of a trace.
#[test]
fn what_nobody_can_have_noted_of_the_trace_costs_its_order_alone() {
    let scene = Scene::new();
    let entries = ends(&scene.good).0 + 12_288;
    let trace = |bytes: &[u8]| {
        scene.put(bytes);
        let mut keeper = scene.keeping.keeper();
        assert_eq!(keeper.recovered(), 1, "{:?}", keeper.left());
        let trace = keeper.trace();
        keeper.kill();
        trace
    };
    let mut trace_of_all = trace(&scene.good);
    assert!(trace_of_all.len() > 1, "{trace_of_all:?}");
    trace_of_all.rotate_left(1);
    for (what, at, bytes) in [
        ("a page there is not", entries, PAGES.to_ne_bytes().to_vec()),
        ("a filling there is not", entries + 7, vec![8]),
    ] {
        let mut bad = scene.good.clone();
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        assert_eq!(trace(&bad), trace_of_all, "{what}");
    }
    scene.is_served_on();
}

#[test]
fn what_is_no_ledger_is_refused() {
    let scene = Scene::new();
    scene.is_refused("nothing", &[], LEDGER);
    scene.is_refused("a byte", &scene.good[..1], LEDGER);
    scene.is_refused("half", &scene.good[..scene.good.len() / 2], LEDGER);
    scene.is_refused("zeros", &vec![0; scene.good.len()], LEDGER);
    scene.put(&scene.good);
    let file = OpenOptions::new().write(true).open(&scene.path).unwrap();
    file.set_len(4 << 30).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "4 GiB");
    // And with a header that says so.
    file.write_all_at(&(4_u64 << 30).to_le_bytes(), 20).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "4 GiB");
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "nobody fills it");
    drop(file);

    fs::remove_file(&scene.path).unwrap();
    fs::create_dir(&scene.path).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "a directory");
    fs::remove_dir(&scene.path).unwrap();
    nix::unistd::mkfifo(&scene.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "a FIFO");
    fs::remove_file(&scene.path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &scene.path).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "a link to a device");
    fs::remove_file(&scene.path).unwrap();

    scene.put(&scene.good);
    fs::set_permissions(&scene.path, Permissions::from_mode(0o620)).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "others may write to it");
    scene.put(&scene.good);
    nix::unistd::chown(&scene.path, Some(65_534.into()), None).unwrap();
    assert_eq!(scene.refusals(), [LEDGER], "somebody else's");
    scene.is_served_on();
}

/// Two ledgers of one guest would give it two owners.
#[test]
fn a_copy_under_another_name_is_refused() {
    let scene = Scene::new();
    let copy = scene.path.with_file_name("copy.ledger");
    fs::copy(&scene.path, &copy).unwrap();
    let keeper = scene.keeping.keeper();
    assert_eq!(
        (keeper.recovered(), keeper.left()),
        (1, &["left ERR_UFFD_RECOVERY_LEDGER".into()][..])
    );
    drop(keeper);
    fs::remove_file(copy).unwrap();
    scene.is_served_on();
}

/// One that was copied without its zeros is as good as the other, once there is room for them.
#[test]
fn a_ledger_with_holes_gets_its_blocks_back() {
    // In memory, where a file's blocks are its pages: a disk's file system may add its own to them.
    let scene = Scene::of(Keeping::in_memory);
    scene.put(&[]);
    let file = OpenOptions::new().write(true).open(&scene.path).unwrap();
    file.set_len(scene.good.len() as u64).unwrap();
    for (at, page) in (0..).step_by(4096).zip(scene.good.chunks(4096)) {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, at).unwrap();
        }
    }
    let blocks = |file: &fs::File| file.metadata().unwrap().blocks() * 512;
    assert!(blocks(&file) < scene.good.len() as u64, "{} of {}", blocks(&file), scene.good.len());
    let left = Left::find(&scene.path, &mut Spares::new()).unwrap();
    assert!(blocks(&file) >= scene.good.len() as u64, "{} of {}", blocks(&file), scene.good.len());
    drop(left);
    scene.is_served_on();
}

/// Bytes of a valid ledger are changed at random. Whatever comes of it, nothing panics, and no guest
/// is served by a header that says something else.
#[test]
fn any_other_bytes_are_refused_or_do_no_harm() {
    let scene = Scene::new();
    let source = Arc::new(FileSource::open(scene.keeping.snapshot()).unwrap());
    let fetcher = Arc::new(Fetcher::new(source));
    let len = scene.good.len();
    let (_, text) = ends(&scene.good);
    let somewhere = prop_oneof![0..text, 0..len];
    let changes = prop::collection::vec((somewhere, any::<u8>()), 1..6);
    let length = prop::option::weighted(0.1, 0..len + 5000);
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let done = runner.run(&(changes, length), |(changes, length)| {
        let mut bytes = scene.good.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.resize(length.unwrap_or(len), 0);
        scene.put(&bytes);
        let Ok(left) = Left::find(&scene.path, &mut Spares::new()) else { return Ok(()) };
        prop_assert_eq!(&bytes[..text], &scene.good[..text]);
        let options = SessionOptions { kill_on_failure: false, ..left.options() };
        match Session::recover(left, Arc::clone(&fetcher), options, Box::new(NoObserver)) {
            Ok(session) => {
                let _ = session.settle();
                let _ = session.export();
                session.begin_hand_over();
                let end = session.wait();
                prop_assert!(!matches!(end, End::Failed(SessionError::Panicked(_))), "{end:?}");
            }
            Err(error) => prop_assert!(!matches!(error, SessionError::Panicked(_)), "{error}"),
        }
        Ok(())
    });
    done.unwrap();
    drop(fetcher);
    assert!(scene.guest.pid() > 0 && Path::new(&format!("/proc/{}", scene.guest.pid())).exists());
}
