//! A program is run by a guest, whoever serves it and wherever, and looked at after each phase.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uffd_core::units::PageRange;
use uffd_guest::options::Register;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::{Ending as End, Exported, HUGE, Prefaulted, Serving, Staged, Unanswered};
use userfaultfd_sys as sys;

use super::pages::{Model, Modes, Seen};
use super::program::{Ending, PAGES, Phase, Program, Stamps};

type Checked<T = ()> = Result<T, TestCaseError>;

/// The snapshot of a program.
pub(crate) const fn pattern(program: &Program, pattern: Pattern) -> Pattern {
    pattern.with_lone_zeros(if program.zeros { 350 } else { 0 })
}

/// Its regions, in pages.
pub(crate) const fn regions(program: &Program) -> [u64; 2] {
    [program.split, PAGES - program.split]
}

/// What it is run against.
pub(crate) struct Setting<'a> {
    pub(crate) stage: &'a dyn Staged,
    pub(crate) pattern: Pattern,
    pub(crate) modes: Modes,
    /// Whether the guest plays with the flags of its descriptor.
    pub(crate) play_flags: bool,
    /// What happens to whoever serves while the threads of a phase run, by its number.
    pub(crate) beside: &'a dyn Fn(usize),
}

/// Runs a program, and fails if anything is other than the model allows.
pub(crate) fn run(setting: &Setting<'_>, program: &Program) -> Checked {
    let modes = setting.modes;
    let mut served = setting.stage.guest_with(&|options| {
        options.play_flags = setting.play_flags;
        if modes.tracking && program.by_kernel {
            options.register = Register::WriteProtect;
            options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
                | sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM
                | sys::UFFD_FEATURE_WP_UNPOPULATED
                | sys::UFFD_FEATURE_WP_ASYNC;
        }
    });
    let mut model = Model::new(setting.pattern, PAGES, modes);
    for (number, phase) in program.phases.iter().enumerate() {
        one_phase(setting, &*served, phase, number, &mut model)?;
        look(&*served, phase, &mut model)?;
    }
    if let Some((phase, ending)) = &program.end {
        last_phase(&mut *served, phase, *ending, program.phases.len(), &model)?;
        if let Ending::Death(..) = ending {
            // Its death is nothing to others.
            let next = setting.stage.guest_with(&|_| {});
            let verified = next.guest().thread(0).verify(0, PAGES, &[Expect::Source]);
            prop_assert_eq!(verified.expect("the guest answers").wrong, 0);
        }
        return Ok(());
    }
    for page in 0..PAGES {
        let found = served.guest().thread(0).read_page(page).expect("the guest answers");
        prop_assert!(model.allows(page, &found), "page {} holds {}: {:?}", page, found, model);
    }
    prop_assert_eq!(answered(served.figures().get())?.faults_in_hand, 0);
    Ok(())
}

/// A phase in the middle of which the session ends: exactly once, for the right reason, and with
/// an answer to whoever waits for a prefault.
fn last_phase(
    served: &mut dyn Serving,
    phase: &Phase,
    ending: Ending,
    number: usize,
    model: &Model,
) -> Checked {
    if let Ending::Death(how, touches) = ending {
        served.guest().die_after(how, touches).expect("the guest answers");
    }
    let ops = phase.ops(number, &Stamps(99), model);
    let guest = served.guest();
    let running: Vec<_> =
        (0..).zip(ops).map(|(thread, ops)| guest.thread(thread).start_program(ops)).collect();
    let (start, end) = phase.prefault.unwrap_or((0, PAGES));
    let prefault = served.prefault(vec![PageRange::new(start, end)]);
    let expected = match ending {
        Ending::Stop => {
            served.begin_stop();
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
            served.guest_mut().kill().expect("the guest ends");
            End::GuestExited
        }
    };
    let (end_told, figures) = served.end();
    prop_assert_eq!(end_told, expected);
    prop_assert_eq!(figures.faults(), figures.latencies);
    match prefault.get() {
        Ok(report) => prop_assert_eq!(report.requested, end - start, "{:?}", report),
        Err(error) => prop_assert_eq!(error, Unanswered::Ended),
    }
    Ok(())
}

fn one_phase(
    setting: &Setting<'_>,
    served: &dyn Serving,
    phase: &Phase,
    number: usize,
    model: &mut Model,
) -> Checked {
    let stamps = Stamps(u32::try_from(number).expect("few phases"));
    let ops = phase.ops(number, &stamps, model);
    let guest = served.guest();
    let running: Vec<_> =
        (0..).zip(ops).map(|(thread, ops)| guest.thread(thread).start_program(ops)).collect();
    (setting.beside)(number);
    let mut failed = 0;
    // Nobody waits for a huge page of a prefault, and so nobody tells whether it is there.
    let may_fail = setting.modes.out_of_sight && setting.pattern.page_size == HUGE;
    if let Some((start, end)) = phase.prefault {
        let prefault = served.prefault(vec![PageRange::new(start, end)]);
        let report: Prefaulted = answered(prefault.get())?;
        prop_assert_eq!(report.requested, end - start);
        prop_assert_eq!(report.skipped, 0);
        prop_assert!(report.failed == 0 || may_fail, "{:?}", report);
        failed = report.failed;
    }
    for program in running {
        let report = program.get().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(report.refused, 0, "{:?}", report);
        prop_assert_eq!(report.verified.wrong, 0, "{:?} {:?}", report, model);
    }
    for page in 0..PAGES {
        model.play(page, &phase.acts_on(page, &stamps));
    }
    if let Some((start, end)) = phase.prefault {
        (start..end).for_each(|page| model.prefault(page, failed == 0));
    }
    Ok(())
}

/// Compares the states, and where the program says so the contents, with the model.
fn look(served: &dyn Serving, phase: &Phase, model: &mut Model) -> Checked {
    check_export(&answered(served.export().get())?, model)?;
    if phase.look {
        for page in (0..PAGES).filter(|page| phase.touches(*page)) {
            let found = served.guest().thread(0).read_page(page).expect("the guest answers");
            prop_assert!(model.allows(page, &found), "page {} holds {}: {:?}", page, found, model);
            model.found(page, &found);
        }
        check_export(&answered(served.export().get())?, model)?;
    }
    Ok(())
}

fn answered<T>(answer: Result<T, Unanswered>) -> Checked<T> {
    answer.map_err(|error| TestCaseError::fail(format!("{error:?}")))
}

fn check_export(export: &Exported, model: &Model) -> Checked {
    prop_assert!(export.dirty.is_disjoint(&export.empty));
    for (page, state) in (0..).zip(export.states.iter().copied()) {
        let number = u32::try_from(page).expect("few pages");
        let seen = Seen {
            state,
            dirty: export.dirty.contains(&number),
            empty: export.empty.contains(&number),
        };
        let legal: BTreeSet<Seen> = model.legal(page, export.exact);
        prop_assert!(
            legal.contains(&seen),
            "page {page}: {seen:?} is none of {legal:?}: {model:?}"
        );
    }
    prop_assert!(model.allows_exact(export.exact), "exact: {}", export.exact);
    Ok(())
}
