//! The random programs of the model test, while whoever serves is killed or hands over.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

mod model_of_pages;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use uffd_guest::pattern::Pattern;
use uffd_proof::{Cast, HUGE, HugePages, Keeping, KeptStage, Leaving, SMALL};

use model_of_pages::pages::Modes;
use model_of_pages::program::{PAGES, Program, program};
use model_of_pages::run::{Setting, pattern, regions, run};

fn leaving() -> impl Strategy<Value = Leaving> {
    prop_oneof![
        3 => (0..8_000_u64).prop_map(Leaving::Killed),
        1 => Just(Leaving::HandsOver),
    ]
}

/// How the keepers of each phase leave its guest.
fn leavings() -> impl Strategy<Value = Vec<Vec<Leaving>>> {
    prop::collection::vec(prop::collection::vec(leaving(), 0..3), 6)
}

fn in_keepers(
    page_size: u64,
    tracking: bool,
    leavings: &[Vec<Leaving>],
    program: &Program,
) -> Result<(), TestCaseError> {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
    let pattern = pattern(program, Pattern::new(19, page_size));
    let keeping = Keeping::by(cast, pattern, &regions(program), Some(tracking));
    let keeping = if program.fault_around { keeping } else { keeping.fill_alone() };
    let stage = KeptStage::new(keeping);
    // How a session ends is the matter of others.
    let program = Program { end: None, ..program.clone() };
    let modes = Modes { tracking, fault_around: program.fault_around, out_of_sight: false };
    let beside = |phase: usize| stage.leave(leavings.get(phase).map_or(&[], Vec::as_slice));
    run(&Setting { stage: &stage, pattern, modes, play_flags: false, beside: &beside }, &program)
}

fn config(cases: u32) -> Config {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model_killed.txt");
    Config {
        cases,
        max_shrink_iters: 100,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn small_pages(tracking in any::<bool>(), leavings in leavings(), program in program()) {
        in_keepers(SMALL, tracking, &leavings, &program)?;
    }
}

proptest! {
    #![proptest_config(config(20))]

    #[test]
    fn huge_pages(tracking in any::<bool>(), leavings in leavings(), program in program()) {
        in_keepers(HUGE, tracking, &leavings, &program)?;
    }
}
