//! Random programs of several threads, checked byte by byte against a model of what each page may
//! hold. A program is a list of phases; the threads of a phase run at the same time, and all of
//! them end before the next. A failing program is made smaller and kept beside this file's crate.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

mod model_of_pages;

use std::collections::BTreeSet;
use std::sync::mpsc;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use uffd_core::session::{End, Export, FaultAround, Reply};
use uffd_core::states::PublicState;
use uffd_core::units::PageRange;
use uffd_guest::options::Register;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::{Death, Expect, Op};
use uffd_proof::{Case, HUGE, SMALL, Served};
use userfaultfd_sys as sys;

use model_of_pages::{Act, Model, Modes, Seen};

const THREADS: usize = 3;
const PAGES: u64 = 6;

/// What a thread does with pages, one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(u64),
    WriteWord(u64),
    WriteWhole(u64),
    Remove(u64, u64),
}

#[derive(Clone, Debug)]
struct Phase {
    threads: Vec<Vec<Step>>,
    /// Pages prefaulted at the same time.
    prefault: Option<(u64, u64)>,
    /// Whether the guest is looked at afterwards: that touches its pages.
    look: bool,
}

#[derive(Clone, Debug)]
struct Program {
    phases: Vec<Phase>,
    fault_around: bool,
    /// Whether the kernel does the tracking, where there is any.
    by_kernel: bool,
    zeros: bool,
    split: u64,
    /// What ends it in the middle of a last phase, if anything does.
    end: Option<(Phase, Ending)>,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The session is stopped.
    Stop,
    /// The guest dies after so many touches more, or is killed when it did not make them.
    Death(Death, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..PAGES;
    prop_oneof![
        3 => page.clone().prop_map(Step::Read),
        3 => page.clone().prop_map(Step::WriteWord),
        1 => page.clone().prop_map(Step::WriteWhole),
        3 => (page, 1..4_u64).prop_map(|(page, count)| Step::Remove(page, count.min(PAGES - page))),
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    let threads = prop::collection::vec(prop::collection::vec(step(), 0..4), THREADS);
    let prefault = prop::option::weighted(0.3, (0..PAGES, 1..=PAGES));
    (threads, prefault, any::<bool>()).prop_map(|(threads, prefault, look)| Phase {
        threads,
        prefault: prefault.map(|(page, count)| (page, (page + count).min(PAGES))),
        look,
    })
}

fn ending() -> impl Strategy<Value = Ending> {
    let how = prop_oneof![Just(Death::Exit), Just(Death::Kill), Just(Death::Abort)];
    prop_oneof![
        1 => Just(Ending::Stop),
        2 => (how, 0..10_u64).prop_map(|(how, touches)| Ending::Death(how, touches)),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    let phases = prop::collection::vec(phase(), 1..6);
    let end = prop::option::weighted(0.5, (phase(), ending()));
    (phases, any::<bool>(), any::<bool>(), any::<bool>(), 1..PAGES, end).prop_map(
        |(phases, fault_around, by_kernel, zeros, split, end)| Program {
            phases,
            fault_around,
            by_kernel,
            zeros,
            split,
            end,
        },
    )
}

impl Phase {
    /// What this phase does to `page`, thread by thread.
    fn acts_on(&self, page: u64, stamps: &Stamps) -> Vec<Vec<Act>> {
        let act = |thread: usize, at: usize, step: &Step| match *step {
            Step::Read(it) if it == page => Some(Act::Touch),
            Step::WriteWord(it) if it == page => Some(Act::WriteWord(stamps.of(thread, at))),
            Step::WriteWhole(it) if it == page => {
                // Written word by word, which only nobody else's business keeps whole.
                let stamp = stamps.of(thread, at);
                Some(match self.is_alone(thread, page) {
                    true => Act::WriteWhole(stamp),
                    false => Act::WriteWord(stamp),
                })
            }
            Step::Remove(it, count) if (it..it + count).contains(&page) => Some(Act::Remove),
            _ => None,
        };
        let of_thread = |(thread, steps): (usize, &Vec<Step>)| {
            steps.iter().enumerate().filter_map(|(at, step)| act(thread, at, step)).collect()
        };
        self.threads.iter().enumerate().map(of_thread).collect()
    }

    /// Whether no other thread has to do with `page` in this phase.
    fn is_alone(&self, thread: usize, page: u64) -> bool {
        let others = self.threads.iter().enumerate().filter(|(other, _)| *other != thread);
        !others.flat_map(|(_, steps)| steps).any(|step| step.concerns(page))
    }

    fn is_changed(&self, page: u64) -> bool {
        let changes = |step: &Step| !matches!(step, Step::Read(_)) && step.concerns(page);
        self.threads.iter().flatten().any(changes)
    }

    fn touches(&self, page: u64) -> bool {
        self.threads.iter().flatten().any(|step| step.concerns(page))
    }

    /// The steps as the guest is told them, each thread's behind a barrier for all.
    fn ops(&self, number: usize, stamps: &Stamps, model: &Model) -> Vec<Vec<Op>> {
        let barrier = Op::Barrier { name: format!("phase {number}"), parties: THREADS };
        let op = |thread: usize, at: usize, step: &Step| match *step {
            Step::Read(page) => match model.certain(page).filter(|_| !self.is_changed(page)) {
                Some(expect) => Op::Verify { page, count: 1, expect: vec![expect] },
                None => Op::Touch { page, count: 1 },
            },
            Step::WriteWord(page) => {
                Op::Write { page, count: 1, stamp: stamps.of(thread, at), at: Some(0) }
            }
            Step::WriteWhole(page) => {
                let at_word = (!self.is_alone(thread, page)).then_some(0);
                Op::Write { page, count: 1, stamp: stamps.of(thread, at), at: at_word }
            }
            Step::Remove(page, count) => Op::Madvise { page, count },
        };
        let steps = |(thread, steps): (usize, &Vec<Step>)| {
            let ops = steps.iter().enumerate().map(|(at, step)| op(thread, at, step));
            std::iter::once(barrier.clone()).chain(ops).collect()
        };
        self.threads.iter().enumerate().map(steps).collect()
    }
}

impl Step {
    fn concerns(&self, page: u64) -> bool {
        match *self {
            Self::Read(it) | Self::WriteWord(it) | Self::WriteWhole(it) => it == page,
            Self::Remove(it, count) => (it..it + count).contains(&page),
        }
    }
}

/// Every write of a program has a stamp of its own.
struct Stamps(u32);

impl Stamps {
    fn of(&self, thread: usize, at: usize) -> u32 {
        1 + self.0 * 100 + u32::try_from(thread * 10 + at).expect("few steps")
    }
}

fn run(case: Case, program: &Program) -> Result<(), TestCaseError> {
    let per_mille = if program.zeros { 350 } else { 0 };
    let pattern = case.pattern().with_lone_zeros(per_mille);
    let regions = [program.split, PAGES - program.split];
    let setting = case.open_with(pattern, &regions, |stage| {
        stage.session(|options| {
            options.fault_around = match program.fault_around {
                true => FaultAround::Adaptive,
                false => FaultAround::Off,
            };
        })
    });
    let by_kernel = case.tracking && program.by_kernel;
    let mut guest = setting.guest_with(|options| {
        if by_kernel {
            options.register = Register::WriteProtect;
            options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
                | sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM
                | sys::UFFD_FEATURE_WP_UNPOPULATED
                | sys::UFFD_FEATURE_WP_ASYNC;
        }
    });
    let modes = Modes { tracking: case.tracking, fault_around: program.fault_around };
    let mut model = Model::new(pattern, PAGES, modes);
    for (number, phase) in program.phases.iter().enumerate() {
        let stamps = Stamps(u32::try_from(number).expect("few phases"));
        one_phase(&guest, phase, number, &stamps, &mut model)?;
        look(&guest, phase, &mut model)?;
    }
    if let Some((phase, ending)) = &program.end {
        last_phase(&mut guest, phase, *ending, program.phases.len(), &model)?;
        if let Ending::Death(..) = ending {
            // Its death is nothing to others.
            let next = setting.guest();
            let verified = next.thread(0).verify(0, PAGES, &[Expect::Source]);
            prop_assert_eq!(verified.expect("the guest answers").wrong, 0);
        }
        return Ok(());
    }
    for page in 0..PAGES {
        let found = guest.thread(0).read_page(page).expect("the guest answers");
        prop_assert!(model.allows(page, &found), "page {} holds {}: {:?}", page, found, model);
    }
    prop_assert_eq!(guest.stats().faults_in_hand, 0);
    Ok(())
}

/// A phase in the middle of which the session ends: exactly once, for the right reason, and with
/// an answer to whoever waits for a prefault.
fn last_phase(
    guest: &mut Served,
    phase: &Phase,
    ending: Ending,
    number: usize,
    model: &Model,
) -> Result<(), TestCaseError> {
    if let Ending::Death(how, touches) = ending {
        guest.die_after(how, touches).expect("the guest answers");
    }
    let ops = phase.ops(number, &Stamps(99), model);
    let running: Vec<_> =
        (0..).zip(ops).map(|(thread, ops)| guest.thread(thread).start_program(ops)).collect();
    let (reply, report) = mpsc::channel();
    let (start, end) = phase.prefault.unwrap_or((0, PAGES));
    let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
    guest.session.prefault_with(vec![PageRange::new(start, end)], reply).expect("its pages");
    let expected = match ending {
        Ending::Stop => {
            prop_assert_eq!(guest.session.stop(), End::Stopped);
            // Its threads may wait for ever now: they go with the guest.
            End::Stopped
        }
        Ending::Death(..) => {
            for program in running {
                // Done, or cut off by its death.
                if let Ok(report) = program.get() {
                    prop_assert_eq!(report.verified.wrong, 0, "{:?} {:?}", report, model);
                }
            }
            guest.guest.kill().expect("the guest ends");
            End::GuestExited
        }
    };
    let (end_told, stats) = guest.end();
    prop_assert_eq!(end_told, expected);
    prop_assert_eq!(stats.counters.faults(), stats.latency.count);
    if let Ok(report) = report.recv().expect("an answer") {
        prop_assert_eq!(report.requested(), end - start, "{:?}", report);
    }
    Ok(())
}

fn one_phase(
    guest: &Served,
    phase: &Phase,
    number: usize,
    stamps: &Stamps,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let ops = phase.ops(number, stamps, model);
    let running: Vec<_> =
        (0..).zip(ops).map(|(thread, ops)| guest.thread(thread).start_program(ops)).collect();
    let (reply, report) = mpsc::channel();
    if let Some((start, end)) = phase.prefault {
        let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
        guest.session.prefault_with(vec![PageRange::new(start, end)], reply).expect("its pages");
        let report = report.recv().expect("a report").expect("the session runs");
        prop_assert_eq!(report.requested(), end - start);
        prop_assert_eq!(report.failed + report.skipped, 0);
    }
    for program in running {
        let report = program.get().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(report.refused, 0, "{:?}", report);
        prop_assert_eq!(report.verified.wrong, 0, "{:?} {:?}", report, model);
    }
    for page in 0..PAGES {
        model.play(page, &phase.acts_on(page, stamps));
    }
    if let Some((start, end)) = phase.prefault {
        (start..end).for_each(|page| model.prefault(page));
    }
    Ok(())
}

/// Compares the states, and where the program says so the contents, with the model.
fn look(guest: &Served, phase: &Phase, model: &mut Model) -> Result<(), TestCaseError> {
    let export = guest.session.export().expect("the session runs");
    check_export(&export, model)?;
    if phase.look {
        for page in (0..PAGES).filter(|page| phase.touches(*page)) {
            let found = guest.thread(0).read_page(page).expect("the guest answers");
            prop_assert!(model.allows(page, &found), "page {} holds {}: {:?}", page, found, model);
            model.found(page, &found);
        }
        let export = guest.session.export().expect("the session runs");
        check_export(&export, model)?;
    }
    Ok(())
}

fn check_export(export: &Export, model: &Model) -> Result<(), TestCaseError> {
    prop_assert!(export.dirty.is_disjoint(&export.empty));
    let states: Vec<PublicState> =
        export.regions.iter().flat_map(|region| region.states.iter().copied()).collect();
    for (page, state) in (0..).zip(states) {
        let number = u32::try_from(page).expect("few pages");
        let seen = Seen {
            state,
            dirty: export.dirty.contains(number),
            empty: export.empty.contains(number),
        };
        let legal: BTreeSet<Seen> = model.legal(page);
        prop_assert!(
            legal.contains(&seen),
            "page {page}: {seen:?} is none of {legal:?}: {model:?}"
        );
    }
    prop_assert_eq!(export.exact, model.modes().tracking);
    Ok(())
}

fn config(cases: u32) -> Config {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model.txt");
    Config {
        cases,
        max_shrink_iters: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..Config::default()
    }
}

const fn case(page_size: u64, tracking: bool) -> Case {
    Case { guest: env!("CARGO_BIN_EXE_uffd-proof-guest"), page_size, tracking }
}

proptest! {
    #![proptest_config(config(120))]

    #[test]
    fn small_pages(program in program()) {
        run(case(SMALL, false), &program)?;
    }

    #[test]
    fn small_pages_tracked(program in program()) {
        run(case(SMALL, true), &program)?;
    }
}

proptest! {
    #![proptest_config(config(30))]

    #[test]
    fn huge_pages(program in program()) {
        run(case(HUGE, false), &program)?;
    }

    #[test]
    fn huge_pages_tracked(program in program()) {
        run(case(HUGE, true), &program)?;
    }
}

/// The model itself has to tell right from wrong.
#[test]
fn the_model_allows_what_can_be_and_nothing_else() {
    use uffd_guest::pattern::Content::{Patched, Source, Stamp, Zeros};
    let modes = Modes { tracking: true, fault_around: false };
    let mut model = Model::new(Pattern::new(1, SMALL), 2, modes);
    assert!(model.allows(0, &Source) && !model.allows(0, &Zeros));
    assert_eq!(model.certain(0), Some(Expect::Source));
    model.play(0, &[vec![Act::Remove], vec![Act::WriteWord(5)]]);
    let patched = |base| Patched { base: Box::new(base), at: 0, stamp: 5 };
    assert!(model.allows(0, &Zeros) && model.allows(0, &patched(Zeros)));
    assert!(!model.allows(0, &Source) && !model.allows(0, &patched(Source)));
    model.found(0, &Zeros);
    assert!(!model.allows(0, &patched(Zeros)));
    model.play(0, &[vec![Act::WriteWhole(7), Act::WriteWord(5)]]);
    assert!(model.allows(0, &patched(Stamp(7))) && !model.allows(0, &Stamp(7)));
    let dirty = Seen { state: PublicState::Faulted, dirty: true, empty: false };
    assert_eq!(model.legal(0), BTreeSet::from([dirty]));
    let unfaulted = Seen { state: PublicState::Unfaulted, dirty: false, empty: false };
    assert_eq!(model.legal(1), BTreeSet::from([unfaulted]));
    model.play(1, &[vec![Act::Remove]]);
    let removed = Seen { state: PublicState::Removed, dirty: false, empty: true };
    assert_eq!(model.legal(1), BTreeSet::from([removed]));
}
