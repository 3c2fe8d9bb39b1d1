//! Keepers: servers in processes of their own, whose guests outlive them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use uffd_core::session::{DirtyTracking, FaultAround, SessionOptions};
use uffd_core::units::PageRange;
use uffd_guest::driver::Guest;
use uffd_guest::options::Options;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::ZeroPages;

use crate::cast::Cast;
use crate::facts::{Exported, Figures, Prefaulted};
use crate::frozen::Frozen;
use crate::observe::{DEADLINE, until};
use crate::scenery::{Guests, Scenery};

/// What a keeper is to keep.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) socket: PathBuf,
    pub(crate) snapshot: PathBuf,
    pub(crate) state_dir: PathBuf,
    tracking: Option<bool>,
    fault_around: bool,
    /// The guardian's program, if there is to be one.
    pub(crate) guardian: Option<PathBuf>,
    /// How many descriptors it may have, if fewer than usual.
    pub(crate) files: Option<u64>,
}

impl Kept {
    pub(crate) fn guardian_log(&self) -> PathBuf {
        self.state_dir.with_extension("log")
    }

    pub(crate) fn session(&self) -> SessionOptions {
        let mut options = SessionOptions {
            dirty_tracking: match self.tracking {
                None => DirtyTracking::Auto,
                Some(true) => DirtyTracking::On,
                Some(false) => DirtyTracking::Off,
            },
            ..SessionOptions::default()
        };
        if !self.fault_around {
            options.fault_around = FaultAround::Off;
        }
        options
    }
}

/// A snapshot and a state directory.
#[derive(Debug)]
pub struct Keeping {
    cast: Cast,
    kept: Kept,
    guests: Guests,
    scenery: Scenery,
    pattern: Pattern,
    /// Kept for as long as this is.
    in_memory: Option<TempDir>,
}

impl Keeping {
    /// Guests of the program `guest`, with `regions` (in pages) of `pattern`; `tracking` as by
    /// option, or as the VMM registers.
    pub fn new(
        cast: Cast,
        guest: impl Into<PathBuf>,
        pattern: Pattern,
        regions: &[u64],
        tracking: Option<bool>,
    ) -> Self {
        Self::with(cast, guest.into(), Vec::new(), pattern, regions, tracking)
    }

    /// The same with guests that `cast` plays.
    pub fn by(cast: Cast, pattern: Pattern, regions: &[u64], tracking: Option<bool>) -> Self {
        let (program, leading) = (cast.program().to_owned(), vec!["guest".to_owned()]);
        Self::with(cast, program, leading, pattern, regions, tracking)
    }

    fn with(
        cast: Cast,
        guest: PathBuf,
        leading: Vec<String>,
        pattern: Pattern,
        regions: &[u64],
        tracking: Option<bool>,
    ) -> Self {
        let scenery = Scenery::with(&pattern, regions.iter().sum(), ZeroPages::Holes, false);
        let kept = Kept {
            socket: scenery.socket(),
            snapshot: scenery.snapshot(),
            state_dir: scenery.dir().join("state"),
            tracking,
            fault_around: true,
            guardian: None,
            files: None,
        };
        let options = Options::new(scenery.socket(), regions.to_vec(), pattern);
        let guests = Guests::new(guest, leading, options);
        Self { cast, kept, guests, scenery, pattern, in_memory: None }
    }

    /// The same with a state directory in memory, as it should be.
    ///
    /// # Panics
    /// If there is no room for one.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        self.kept.state_dir = folder.path().join("state");
        self.in_memory = Some(folder);
        self
    }

    /// Has its keepers fill each page alone.
    #[must_use]
    pub fn fill_alone(mut self) -> Self {
        self.kept.fault_around = false;
        self
    }

    /// The same with a guardian beside each keeper.
    pub fn guarded(self) -> Self {
        let program = self.cast.program().to_owned();
        self.guarded_by(program)
    }

    /// The same with a guardian of another program.
    pub fn guarded_by(mut self, program: PathBuf) -> Self {
        self.kept.guardian = Some(program);
        self
    }

    /// The guardian that is there, by the lock that it has.
    pub fn guardian(&self) -> Option<i32> {
        let lock = fs::metadata(self.state_dir().join("guardian.lock")).ok()?.ino();
        let locks = fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (kind, pid) = (words.next()?, words.nth(2)?);
            let inode = words.next()?.rsplit(':').next()?;
            (kind == "FLOCK" && inode == lock.to_string()).then(|| pid.parse().ok())?
        })
    }

    /// Where the guardian writes what it does.
    pub fn guardian_log(&self) -> PathBuf {
        self.kept.guardian_log()
    }

    /// The contents of the snapshot.
    pub const fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The state directory, which the first keeper makes.
    pub fn state_dir(&self) -> &Path {
        &self.kept.state_dir
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Path {
        &self.kept.snapshot
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        self.scenery.dir()
    }

    /// Starts a keeper, and waits until it serves what was left.
    pub fn keeper(&self) -> Keeper {
        self.keeper_with(|_| {})
    }

    /// Starts a keeper that is killed when it comes to the step `point` for the `count`th time, and
    /// waits until it serves what was left.
    pub fn doomed(&self, point: &str, count: u64) -> Keeper {
        self.keeper_with(|command| doom(command, point, count))
    }

    /// Starts a keeper whose fault loop panics when it comes to the step `point` for the `count`th
    /// time, and waits until it serves what was left.
    pub fn panicking(&self, point: &str, count: u64) -> Keeper {
        self.keeper_with(|command| {
            command.env(uffd_core::kill_point::PANICS, format!("{point}:{count}"));
            command.stderr(Stdio::null());
        })
    }

    /// As [`doomed`](Self::doomed), and does not wait for it: it may be killed before it is ready.
    pub fn begin_doomed(&self, point: &str, count: u64) -> Keeper {
        self.begin_keeper(|command| doom(command, point, count))
    }

    /// Starts a keeper of the snapshot at `snapshot`, and waits until it serves what was left.
    pub fn keeper_of(&self, snapshot: &Path) -> Keeper {
        let kept = Kept { snapshot: snapshot.to_owned(), ..self.kept.clone() };
        let mut keeper = self.begin(&kept, |_| {});
        assert!(keeper.gets_ready(), "a keeper gets ready");
        keeper
    }

    /// Starts a keeper of the snapshot at `snapshot` that goes no further than to the step `point`.
    pub fn parked_keeper_of(&self, snapshot: &Path, point: &str) -> Keeper {
        let kept = Kept { snapshot: snapshot.to_owned(), ..self.kept.clone() };
        self.begin(&kept, |command| {
            command.env(uffd_core::kill_point::PARKS, format!("{point}:1"));
        })
    }

    /// Starts a keeper of another program, and waits until it serves what was left.
    pub fn keeper_by(&self, program: &Path) -> Keeper {
        let mut keeper = Self::start(program, &self.kept, |_| {});
        assert!(keeper.gets_ready(), "a keeper gets ready");
        keeper
    }

    /// Starts a keeper with another idea of tracking than the one that took the guests in, and waits
    /// until it serves what was left.
    pub fn keeper_that_tracks(&self, tracking: Option<bool>) -> Keeper {
        let mut keeper = self.begin(&Kept { tracking, ..self.kept.clone() }, |_| {});
        assert!(keeper.gets_ready(), "a keeper gets ready");
        keeper
    }

    /// Starts a keeper that may have so many descriptors, and waits until it is ready or has ended.
    pub fn limited_keeper(&self, files: u64) -> Keeper {
        let kept = Kept { files: Some(files), ..self.kept.clone() };
        let mut keeper = self.begin(&kept, |command| {
            command.stderr(Stdio::null());
        });
        keeper.gets_ready();
        keeper
    }

    /// Starts a keeper whose process is made in another way.
    pub fn keeper_with(&self, change: impl FnOnce(&mut Command)) -> Keeper {
        let mut keeper = self.begin_keeper(change);
        assert!(keeper.gets_ready(), "a keeper gets ready");
        keeper
    }

    /// Starts a keeper, and does not wait for it: it may be killed before it is ready.
    pub fn begin_keeper(&self, change: impl FnOnce(&mut Command)) -> Keeper {
        self.begin(&self.kept, change)
    }

    /// The program that plays keepers.
    pub fn program(&self) -> &Path {
        self.cast.program()
    }

    fn begin(&self, kept: &Kept, change: impl FnOnce(&mut Command)) -> Keeper {
        Self::start(self.cast.program(), kept, change)
    }

    fn start(program: &Path, kept: &Kept, change: impl FnOnce(&mut Command)) -> Keeper {
        let role = serde_json::to_string(kept).expect("a role is plain data");
        let mut command = Command::new(program);
        command.args(["keeper", &role]).stdin(Stdio::piped()).stdout(Stdio::piped());
        change(&mut command);
        let mut process = command.spawn().expect("a keeper");
        let said = BufReader::new(process.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let input = process.stdin.take().expect("its input");
        Keeper { process, input, lines, recovered: None, left: Vec::new() }
    }

    /// A guest that hands off to whoever keeps by then.
    pub fn guest_of_anybody(&self, change: impl FnOnce(&mut Options)) -> Guest {
        self.guests.spawn(change)
    }

    /// A guest that hands off to `keeper`.
    pub fn guest(&self, keeper: &Keeper, change: impl FnOnce(&mut Options)) -> Guest {
        let guest = self.guests.spawn(change);
        assert_eq!(keeper.next().as_deref(), Some("guest"));
        guest
    }
}

fn doom(command: &mut Command, point: &str, count: u64) {
    command.env(uffd_core::kill_point::VARIABLE, format!("{point}:{count}"));
}

/// What a keeper has heard of its guardian.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its process, once it has answered.
    pub pid: Option<i32>,
    /// The guests that it would serve at once.
    pub guarded: BTreeSet<String>,
    /// The guests that it could not serve, and why.
    pub unguarded: BTreeMap<String, String>,
    /// The codes of all troubles, in order.
    pub troubles: Vec<String>,
}

/// A process that keeps guests.
#[derive(Debug)]
pub struct Keeper {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    recovered: Option<u64>,
    left: Vec<String>,
}

impl Keeper {
    /// Waits until it serves what was left; not so if it ends before.
    pub fn gets_ready(&mut self) -> bool {
        while self.recovered.is_none() {
            let Some(line) = self.next() else { return false };
            match line.split_once(' ') {
                Some(("ready", count)) => self.recovered = count.parse().ok(),
                Some(("awaits", _)) => {}
                _ => self.left.push(line),
            }
        }
        true
    }

    /// Waits until it is ready to take over so many guests, which another keeper has.
    ///
    /// # Panics
    /// If it ends, or has them, before.
    pub fn awaits(&self, count: usize) {
        let awaits = format!("awaits {count}");
        loop {
            let line = self.next().expect("a keeper that waits");
            if line == awaits {
                return;
            }
            assert!(line.starts_with("awaits "), "{line}");
        }
    }

    /// Whether it said that it serves what was left.
    pub const fn is_ready(&self) -> bool {
        self.recovered.is_some()
    }

    /// How many guests it took over.
    pub fn recovered(&self) -> u64 {
        self.recovered.unwrap_or_default()
    }

    /// What it said of those that it did not take over.
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    /// The next line it says; none if it has ended.
    pub fn next(&self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(error) => {
                assert_eq!(error, std::sync::mpsc::RecvTimeoutError::Disconnected, "it hangs");
                None
            }
        }
    }

    /// Asks it, and waits for the answer.
    pub fn ask(&mut self, word: &str) -> String {
        self.tell(word);
        self.next().expect("an answer")
    }

    /// Tells it something.
    pub fn tell(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("it listens");
    }

    /// What it has heard of its guardian.
    pub fn guardian(&mut self) -> Heard {
        serde_json::from_str(&self.ask("guardian")).expect("what it has heard")
    }

    /// What it says of the pages of its guest.
    pub fn export(&mut self) -> Exported {
        serde_json::from_str(&self.ask("export")).expect("an export")
    }

    /// What its session has counted.
    pub fn figures(&mut self) -> Figures {
        serde_json::from_str(&self.ask("figures")).expect("figures")
    }

    /// Has pages installed before they are asked for.
    pub fn prefault(&mut self, ranges: &[PageRange]) -> Prefaulted {
        let ranges: Vec<_> = ranges.iter().map(|pages| (pages.start.0, pages.end.0)).collect();
        let ranges = serde_json::to_string(&ranges).expect("plain numbers");
        serde_json::from_str(&self.ask(&format!("prefault {ranges}"))).expect("a report")
    }

    /// Sends SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The pages that its guest touched first, in order, as its session traced them.
    pub fn trace(&mut self) -> Vec<u64> {
        serde_json::from_str(&self.ask("trace")).expect("a trace")
    }

    /// Stops all of its threads, wherever they are, until what is returned is dropped.
    pub fn freeze(&self) -> Frozen {
        Frozen::new(self.pid())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    /// Waits until it was killed by itself, at the step it was doomed to.
    pub fn killed(&mut self) {
        until("the end of a keeper", || self.has_ended());
        let status = self.process.wait().expect("it has ended");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill();
    }
}
