//! Whoever serves is killed at each step of what it does: of a turn, of taking a guest in, of taking
//! one over, of leaving, releasing and exporting it. The next keeper goes on, and every byte, every
//! page state and the set of written pages are as if nothing had happened.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

mod short_life;

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use uffd_guest::driver::{Guest, Pending};
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{Expect, Op, ProgramReport};
use uffd_proof::{Cast, HUGE, HugePages, Keeper, Keeping, KeptMode, SMALL, State, Tracks, until};

use short_life::Life;

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");

const OFF: KeptMode = KeptMode { page_size: SMALL, tracks: Tracks::Nobody };
const ON: KeptMode = KeptMode { tracks: Tracks::Handler, ..OFF };
const KERNEL: KeptMode = KeptMode { tracks: Tracks::Kernel, ..OFF };

const fn huge(mode: KeptMode) -> KeptMode {
    KeptMode { page_size: HUGE, ..mode }
}

/// A state directory, and a snapshot of a few pages of which some are zeros.
struct Scene {
    mode: KeptMode,
    pattern: Pattern,
    pages: u64,
    keeping: Keeping,
    is_guarded: bool,
    _pool: Option<HugePages>,
}

impl Scene {
    fn new(mode: KeptMode) -> Self {
        let pages = if mode.is_huge() { 12 } else { 48 };
        let pool = mode.is_huge().then(|| HugePages::reserve(pages).unwrap());
        let pattern = Pattern::new(73, mode.page_size).with_lone_zeros(150);
        let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
        let keeping = Keeping::new(cast, GUEST, pattern, &[5, pages - 5], Some(mode.is_tracked()));
        Self { mode, pattern, pages, keeping, is_guarded: false, _pool: pool }
    }

    /// With a guardian beside each keeper.
    fn guarded(self) -> Self {
        Self { keeping: self.keeping.guarded(), is_guarded: true, ..self }
    }

    fn guest(&self, keeper: &Keeper) -> Guest {
        self.keeping.guest(keeper, |options| self.mode.guest(options))
    }

    fn life(&self) -> Life {
        Life::new(self.pattern, self.pages)
    }

    /// A guest in the middle of its life, whose keeper was killed at `point`.
    fn left(&self, point: &str) -> (Life, Guest, Pending<ProgramReport>) {
        let mut life = self.life();
        let mut keeper = self.keeping.doomed(point, 2);
        let guest = self.guest(&keeper);
        let living = guest.thread(0).start_program(life.live());
        keeper.killed();
        (life, guest, living)
    }

    /// What the guest holds, and what is said of it, after `life`.
    fn check(&self, keeper: &mut Keeper, guest: &Guest, life: &Life) {
        assert_eq!(keeper.recovered(), 1, "{:?}", keeper.left());
        assert_eq!(keeper.ask("settle"), "Ok(())");
        life.check_export(&keeper.export(), self.mode.is_tracked());
        life.check_contents(guest);
        assert_eq!(keeper.ask("settle"), "Ok(())");
        life.check_written(&keeper.export());
        let trace = keeper.trace();
        let pages: HashSet<_> = trace.iter().collect();
        assert!(!trace.is_empty() && pages.len() == trace.len(), "{trace:?}");
    }
}

/// Kills a keeper at `point`, each time later, until the guest's life is over before it.
fn killed_at(mode: KeptMode, point: &str, counts: &[u64]) {
    for (number, count) in counts.iter().enumerate() {
        let scene = Scene::new(mode);
        let mut life = scene.life();
        let mut keeper = scene.keeping.doomed(point, *count);
        let guest = scene.guest(&keeper);
        let living = guest.thread(0).start_program(life.live());
        until("the keeper's end or that of the guest's life", || {
            keeper.has_ended() || living.is_done()
        });
        if !keeper.has_ended() {
            assert!(number > 0, "{mode}: nothing comes to {point}");
            return;
        }
        keeper.killed();
        let mut next = scene.keeping.keeper();
        let report = living.get().unwrap();
        assert_eq!((report.refused, report.verified.wrong), (0, 0), "{point}:{count} {report:?}");
        scene.check(&mut next, &guest, &life);
    }
}

/// The steps of a turn that every mode comes to.
const TURN: [&str; 11] = [
    "read",
    "removed",
    "event done",
    "noted",
    "planned",
    "executed",
    "accounting",
    "accounted",
    "touch noted",
    "settled",
    "note ended",
];

/// A fault loop that panics is as good as one that was killed, and its process lives: with a
/// guardian its guest is served at once, and without one by the next server.
#[test]
fn a_guest_whose_fault_loop_panics_in_a_turn_is_left() {
    TURN.iter().for_each(|point| panics_at(&Scene::new(ON), point));
    for mode in [OFF, KERNEL, huge(ON)] {
        TURN.iter().step_by(3).for_each(|point| panics_at(&Scene::new(mode), point));
        TURN.iter().step_by(4).for_each(|point| panics_at(&Scene::new(mode).guarded(), point));
    }
}

fn panics_at(scene: &Scene, point: &str) {
    let mut life = scene.life();
    let mut keeper = scene.keeping.panicking(point, 2);
    let guest = scene.guest(&keeper);
    let living = guest.thread(0).start_program(life.live());
    let end = keeper.next().unwrap();
    assert!(end.starts_with("end Failed(Panicked("), "{}: {point}: {end}", scene.mode);
    if scene.is_guarded {
        // By the guardian alone, its server being there and having nobody.
        until("the end of its life", || living.is_done());
    }
    keeper.kill();
    let mut next = scene.keeping.keeper();
    let report = living.get().unwrap();
    assert_eq!((report.refused, report.verified.wrong), (0, 0), "{point}: {report:?}");
    scene.check(&mut next, &guest, &life);
}

/// Early, and then more and more apart.
const COUNTS: [u64; 5] = [1, 2, 4, 7, 12];

#[test]
fn in_a_turn_of_small_pages() {
    TURN.iter().for_each(|point| killed_at(OFF, point, &COUNTS));
}

#[test]
fn in_a_turn_of_small_pages_that_are_tracked() {
    TURN.iter().for_each(|point| killed_at(ON, point, &COUNTS));
    for point in ["unprotect", "unprotected"] {
        killed_at(ON, point, &COUNTS);
    }
}

#[test]
fn in_a_turn_of_small_pages_that_the_kernel_tracks() {
    TURN.iter().for_each(|point| killed_at(KERNEL, point, &COUNTS));
}

#[test]
fn in_a_turn_of_huge_pages() {
    TURN.iter().for_each(|point| killed_at(huge(OFF), point, &COUNTS[..3]));
}

#[test]
fn in_a_turn_of_huge_pages_that_are_tracked() {
    TURN.iter().for_each(|point| killed_at(huge(ON), point, &COUNTS[..3]));
    for point in ["unprotect", "unprotected"] {
        killed_at(huge(ON), point, &COUNTS[..3]);
    }
}

#[test]
fn in_a_turn_of_huge_pages_that_the_kernel_tracks() {
    TURN.iter().for_each(|point| killed_at(huge(KERNEL), point, &COUNTS[..3]));
}

/// The guardian goes on where the server was killed, and gives the guest to the next.
#[test]
fn in_a_turn_beside_a_guardian() {
    for (mode, points) in KeptMode::ALL.into_iter().zip([0, 1, 2].into_iter().cycle()) {
        for point in TURN.iter().skip(points).step_by(3) {
            let scene = Scene::new(mode).guarded();
            let mut life = scene.life();
            let mut keeper = scene.keeping.doomed(point, 2);
            let guest = scene.guest(&keeper);
            let living = guest.thread(0).start_program(life.live());
            keeper.killed();
            until("the end of its life", || living.is_done());
            let mut next = scene.keeping.keeper();
            let report = living.get().unwrap();
            assert_eq!(
                (report.refused, report.verified.wrong),
                (0, 0),
                "{mode} {point} {report:?}"
            );
            scene.check(&mut next, &guest, &life);
        }
    }
}

/// A guardian that is killed at `point`, whenever it comes there.
struct Doomed(Child);

impl Doomed {
    fn guardian(scene: &Scene, point: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
        command.args(["guardian", "--state-dir"]).arg(scene.keeping.state_dir());
        command.env(uffd_core::kill_point::VARIABLE, format!("{point}:1"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn killed(&mut self) {
        until("the end of a guardian", || self.0.try_wait().unwrap().is_some());
        let status = self.0.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{status}");
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its server was killed, and it is killed as well: while it takes the guest over, while it serves it,
/// and while it gives it back.
#[test]
fn in_the_middle_of_what_a_guardian_does() {
    for (mode, steps) in KeptMode::ALL.into_iter().zip([0, 1].into_iter().cycle()) {
        for (first, points) in [
            ("removed", &["removed again", "left events", "left installs", "woken"][..]),
            ("executed", &["left removes", "found out", "woken", "event done", "accounting"][..]),
            ("executed", &["handing over", "let go"][..]),
        ] {
            for point in points.iter().skip(steps).step_by(2) {
                let scene = Scene::new(mode);
                let (life, guest, living) = scene.left(first);
                let scene = scene.guarded();
                let mut guardian = Doomed::guardian(&scene, point);
                let mut next = if matches!(*point, "handing over" | "let go") {
                    until("the end of its life", || living.is_done());
                    let next = scene.keeping.keeper();
                    guardian.killed();
                    next
                } else {
                    guardian.killed();
                    scene.keeping.keeper()
                };
                let report = living.get().unwrap();
                assert_eq!(report.verified.wrong, 0, "{mode}: {first}, then {point}: {report:?}");
                scene.check(&mut next, &guest, &life);
            }
        }
    }
}

/// A step that no proof here names is one that may not be survived.
#[test]
fn every_step_is_aimed_at() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let tests = ["kill_points", "which_snapshot"];
    let tests =
        tests.map(|name| read(&here.join("tests").join(name).with_extension("rs"))).concat();
    let (mut folders, mut steps) = (vec![here.join("../core/src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            let text = read(&path);
            let named = text.split("kill_point!(\"").skip(1);
            steps.extend(named.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    assert!(steps.len() > 40, "{steps:?}");
    steps.retain(|step| !tests.contains(&format!("\"{step}\"")));
    assert_eq!(steps, Vec::<String>::new());
}

/// Two threads give memory back before anybody reads of it: the keeper dies between the two.
#[test]
fn between_two_removes() {
    for mode in KeptMode::ALL {
        for point in ["read", "removed", "event done"] {
            let scene = Scene::new(mode);
            let mut life = scene.life();
            let served = scene.keeping.keeper();
            let guest = scene.guest(&served);
            guest.thread(0).program(life.live()).unwrap();
            drop(served);

            let mut keeper = scene.keeping.doomed(point, 1);
            let frozen = keeper.freeze();
            let removing = [(2, 1), (6, 2)].map(|(page, count)| {
                life.removed(page, count);
                guest.thread(1 + u32::try_from(page).unwrap()).start_madvise(page, count)
            });
            until("both threads to wait", || uffd_proof::waiting_threads(guest.pid()) == 2);
            drop(frozen);
            keeper.killed();
            let mut next = scene.keeping.keeper();
            for removed in removing {
                removed.get().unwrap();
            }
            scene.check(&mut next, &guest, &life);
        }
    }
}

/// The steps of taking a guest in, before anything says that it is there: it is lost, as it would be
/// had it not got through, and nothing is left of it.
#[test]
fn before_a_ledger_has_its_name() {
    for point in ["ledger made", "ledger reserved", "ledger written"] {
        let scene = Scene::new(OFF);
        let mut keeper = scene.keeping.doomed(point, 1);
        let _guest = scene.keeping.guest_of_anybody(|_| {});
        keeper.killed();
        let next = scene.keeping.keeper();
        assert_eq!((next.recovered(), next.left()), (0, &[][..]), "{point}");
        let left: Vec<_> = std::fs::read_dir(scene.keeping.state_dir()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the lock of the server: {left:?}");
    }
}

/// And after it: what was asked for is done by the next, whatever of it was done already.
#[test]
fn between_a_ledger_and_what_was_decided() {
    for mode in KeptMode::ALL {
        let by_us = if mode.tracks == Tracks::Nobody { 0 } else { 4 };
        let registers = ["registering", "registered"].map(|point| [(point, 1), (point, 2)]);
        let registers = registers.into_iter().flatten().take(by_us);
        let points = [("ledger named", 1), ("deciding", 1), ("decided", 1)];
        for (point, count) in points.into_iter().chain(registers) {
            let scene = Scene::new(mode);
            let mut life = scene.life();
            let mut keeper = scene.keeping.doomed(point, count);
            let guest = scene.keeping.guest_of_anybody(|options| mode.guest(options));
            keeper.killed();
            let living = guest.thread(0).start_program(life.live());
            let mut next = scene.keeping.keeper();
            assert_eq!(living.get().unwrap().verified.wrong, 0, "{mode}: {point}");
            scene.check(&mut next, &guest, &life);
        }
    }
}

/// What was asked for is in the ledger before anything is done about it: whoever comes next need not
/// be asked for the same.
#[test]
fn between_a_ledger_and_what_was_decided_by_somebody_with_other_options() {
    for mode in [ON, huge(ON)] {
        for (point, count) in [("ledger named", 1), ("registering", 2), ("deciding", 1)] {
            let scene = Scene::new(mode);
            let mut life = scene.life();
            let mut keeper = scene.keeping.doomed(point, count);
            let guest = scene.keeping.guest_of_anybody(|options| mode.guest(options));
            keeper.killed();
            let mut next = scene.keeping.keeper_that_tracks(None);
            guest.thread(0).program(life.live()).unwrap();
            scene.check(&mut next, &guest, &life);
        }
    }
}

/// A keeper that takes over what another has left in the middle of a step is killed too.
#[test]
fn in_the_middle_of_taking_over() {
    for mode in KeptMode::ALL {
        for (first, points) in [
            ("removed", &["removed again", "left events", "left installs", "woken"][..]),
            ("executed", &["left removes", "found out", "left installs", "woken"][..]),
        ] {
            for point in points {
                let scene = Scene::new(mode);
                let (life, guest, living) = scene.left(first);
                scene.keeping.begin_doomed(point, 1).killed();
                let mut next = scene.keeping.keeper();
                let report = living.get().unwrap();
                assert_eq!(report.verified.wrong, 0, "{mode}: {first}, then {point}: {report:?}");
                scene.check(&mut next, &guest, &life);
            }
        }
    }
}

#[test]
fn in_the_middle_of_a_hand_over_and_of_an_export() {
    let ways = [
        ("hand over", "handing over"),
        ("hand over", "let go"),
        ("export", "export copied"),
        ("export", "exporting"),
    ];
    for mode in KeptMode::ALL {
        for (word, point) in ways {
            let scene = Scene::new(mode);
            let mut life = scene.life();
            let mut keeper = scene.keeping.doomed(point, 1);
            let guest = scene.guest(&keeper);
            guest.thread(0).program(life.live()).unwrap();
            keeper.tell(word);
            keeper.killed();
            let mut next = scene.keeping.keeper();
            scene.check(&mut next, &guest, &life);
        }
    }
}

/// Before everything is installed, whoever comes next serves the guest as if nothing had been asked.
#[test]
fn among_the_installs_of_a_release() {
    for mode in [OFF, huge(OFF)] {
        for point in ["noted", "executed", "accounting"] {
            let scene = Scene::new(mode);
            let mut life = scene.life();
            let mut keeper = scene.keeping.keeper();
            let guest = scene.guest(&keeper);
            guest.thread(0).program(life.live()).unwrap();
            keeper.kill();
            let mut keeper = scene.keeping.doomed(point, 1);
            keeper.tell("release");
            keeper.killed();
            let mut next = scene.keeping.keeper();
            scene.check(&mut next, &guest, &life);
            let mut answers = [next.ask("release"), next.next().unwrap()];
            answers.sort();
            assert_eq!(answers, ["Ok(Ok(()))", "end Released"]);
            next.kill();
            life.check_contents(&guest);
        }
    }
}

/// Whoever comes next releases the guest to its end.
#[test]
fn in_the_middle_of_a_release() {
    for mode in [OFF, huge(OFF)] {
        for (point, count) in [("releasing", 1), ("release", 1), ("release", 2), ("released", 1)] {
            let scene = Scene::new(mode);
            let mut life = scene.life();
            let mut keeper = scene.keeping.doomed(point, count);
            let guest = scene.guest(&keeper);
            guest.thread(0).program(life.live()).unwrap();
            keeper.tell("release");
            keeper.killed();
            // Killed before it said so, it was not about to release anything.
            let mut next = scene.keeping.keeper();
            assert_eq!(next.recovered(), 1, "{point}: {:?}", next.left());
            if point == "releasing" {
                let mut answers = [next.ask("release"), next.next().unwrap()];
                answers.sort();
                assert_eq!(answers, ["Ok(Ok(()))", "end Released"]);
            } else if next.left().is_empty() {
                assert_eq!(next.next().as_deref(), Some("end Released"));
            } else {
                assert_eq!(next.left(), ["end Released"]);
            }
            next.kill();
            life.check_contents(&guest);
            guest.thread(0).madvise(6, 2).unwrap();
            assert_eq!(guest.thread(0).verify(6, 2, &[Expect::Zeros]).unwrap().wrong, 0);
        }
    }
}

/// The write was read of before the REMOVE, and answered after it.
#[test]
fn around_a_write_to_a_protected_page_that_is_given_back() {
    for mode in [ON, huge(ON)] {
        let scene = Scene::new(mode);
        let mut keeper = scene.keeping.doomed("zeros protected", 1);
        let guest = scene.guest(&keeper);
        guest.thread(0).touch(2, 4).unwrap();
        let frozen = keeper.freeze();
        let write = Op::Write { page: 2, count: 1, stamp: 5, at: Some(0) };
        let writing = guest.thread(1).start_program(vec![write]);
        until("the writer to wait", || uffd_proof::waiting_threads(guest.pid()) == 1);
        let removing = guest.thread(2).start_madvise(2, 1);
        until("both threads to wait", || uffd_proof::waiting_threads(guest.pid()) == 2);
        drop(frozen);
        keeper.killed();
        let mut next = scene.keeping.keeper();
        writing.get().unwrap();
        removing.get().unwrap();
        assert_eq!(next.ask("settle"), "Ok(())");
        let is_written = guest.thread(0).verify(2, 1, &[Expect::Zeros]).unwrap().wrong == 1;
        let export = next.export();
        assert!(!is_written || export.dirty.contains(&2), "{mode}: {export:?}");
        assert_eq!(guest.thread(0).verify(3, 3, &[Expect::Source]).unwrap().wrong, 0);
        assert!(export.dirty.iter().all(|page| *page == 2), "{mode}: {export:?}");
    }
}

/// What was decided of a page whose bytes cannot be had is not decided otherwise by the next.
#[test]
fn around_a_page_that_is_poisoned() {
    for mode in [OFF, ON, huge(OFF)] {
        for point in ["poison", "poisoned"] {
            let scene = Scene::new(mode);
            let mut keeper = scene.keeping.doomed(point, 1);
            let guest = scene.guest(&keeper);
            let snapshot = scene.keeping.dir().join("mem");
            let whole = std::fs::read(&snapshot).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(&snapshot).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_len(9 * mode.page_size).unwrap();
            let waiting = guest.thread(0).start_read(10, 1);
            keeper.killed();
            std::fs::write(&snapshot, whole).unwrap();
            // One that was written to since is none that anybody takes a guest over from.
            file.set_modified(written).unwrap();
            let mut next = scene.keeping.keeper();
            assert_eq!(next.recovered(), 1, "{:?}", next.left());
            assert_eq!(waiting.get().unwrap().0[0].is, Content::Poisoned, "{mode}: {point}");
            assert_eq!(next.export().states[10], State::Poisoned);
        }
    }
}
