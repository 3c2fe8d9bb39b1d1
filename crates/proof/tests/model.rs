//! Random programs of several threads, checked byte by byte against a model of what each page may
//! hold. A failing program is made smaller and kept beside this file's crate.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

mod model_of_pages;

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use uffd_core::session::FaultAround;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, HUGE, SMALL, State};

use model_of_pages::pages::{Act, Model, Modes, Seen};
use model_of_pages::program::{Program, program};
use model_of_pages::run::{Setting, pattern, regions, run};

fn in_this_process(case: Case, program: &Program) -> Result<(), TestCaseError> {
    let pattern = pattern(program, case.pattern());
    let stage = case.open_with(pattern, &regions(program), |stage| {
        stage.session(|options| {
            options.fault_around = match program.fault_around {
                true => FaultAround::Adaptive,
                false => FaultAround::Off,
            };
        })
    });
    let (tracking, fault_around) = (case.tracking, program.fault_around);
    let modes = Modes { tracking, fault_around, out_of_sight: false };
    let setting = Setting { stage: &*stage, pattern, modes, play_flags: false, beside: &|_| {} };
    run(&setting, program)
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
        in_this_process(case(SMALL, false), &program)?;
    }

    #[test]
    fn small_pages_tracked(program in program()) {
        in_this_process(case(SMALL, true), &program)?;
    }
}

proptest! {
    #![proptest_config(config(30))]

    #[test]
    fn huge_pages(program in program()) {
        in_this_process(case(HUGE, false), &program)?;
    }

    #[test]
    fn huge_pages_tracked(program in program()) {
        in_this_process(case(HUGE, true), &program)?;
    }
}

/// The model itself has to tell right from wrong.
#[test]
fn the_model_allows_what_can_be_and_nothing_else() {
    use uffd_guest::pattern::Content::{Patched, Source, Stamp, Zeros};
    let modes = Modes { tracking: true, fault_around: false, out_of_sight: false };
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
    let dirty = Seen { state: State::Faulted, dirty: true, empty: false };
    assert_eq!(model.legal(0, true), BTreeSet::from([dirty]));
    let unfaulted = Seen { state: State::Unfaulted, dirty: false, empty: false };
    assert_eq!(model.legal(1, true), BTreeSet::from([unfaulted]));
    model.play(1, &[vec![Act::Remove]]);
    let removed = Seen { state: State::Removed, dirty: false, empty: true };
    assert_eq!(model.legal(1, true), BTreeSet::from([removed]));

    // A handler that cannot see the page may say more of it was written, and less than is known.
    let mut model = Model::new(Pattern::new(1, SMALL), 2, Modes { out_of_sight: true, ..modes });
    model.play(1, &[vec![Act::Remove]]);
    let doubted = Seen { state: State::Removed, dirty: true, empty: false };
    assert_eq!(model.legal(1, true), BTreeSet::from([removed]));
    assert_eq!(model.legal(1, false), BTreeSet::from([removed, doubted]));
    assert!(model.allows_exact(true) && model.allows_exact(false));
    model.play(0, &[vec![Act::WriteWord(5)]]);
    assert_eq!(model.legal(0, false), BTreeSet::from([dirty]));
}
