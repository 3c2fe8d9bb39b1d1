//! The random programs of the model test, in adverse circumstances: handlers that see less of
//! their guests, a pool of huge pages that others drain, a guest that plays with the flags of its
//! descriptor.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

mod model_of_pages;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use uffd_core::session::{DirtyTracking, FaultAround};
use uffd_guest::pattern::Pattern;
use uffd_proof::{Apart, Cast, Drain, HUGE, HugePages, SMALL, Sight, StageBuilder};

use model_of_pages::pages::Modes;
use model_of_pages::program::{PAGES, Program, program};
use model_of_pages::run::{Setting, pattern, regions, run};

/// A user that is neither root nor anybody's.
const SOMEBODY: u32 = 65_533;

#[derive(Clone, Copy, Debug)]
struct Circumstances {
    tracking: bool,
    sight: Sight,
    play_flags: bool,
    /// Where pages are huge.
    drained: bool,
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    let sight = prop_oneof![
        1 => Just(Sight::Full),
        2 => Just(Sight::OtherNamespace),
        2 => Just(Sight::OtherUser(SOMEBODY)),
    ];
    (any::<bool>(), sight, any::<bool>(), any::<bool>()).prop_map(
        |(tracking, sight, play_flags, drained)| Circumstances {
            tracking,
            sight,
            play_flags,
            drained,
        },
    )
}

fn in_another_process(
    page_size: u64,
    around: Circumstances,
    program: &Program,
) -> Result<(), TestCaseError> {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let huge = page_size == HUGE;
    let _pool = huge.then(|| HugePages::reserve(PAGES).unwrap());
    let pattern = pattern(program, Pattern::new(17, page_size));
    let stage =
        StageBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), pattern, &regions(program));
    let stage = stage.session(|options| {
        options.dirty_tracking = match around.tracking {
            true => DirtyTracking::On,
            false => DirtyTracking::Off,
        };
        options.fault_around = match program.fault_around {
            true => FaultAround::Adaptive,
            false => FaultAround::Off,
        };
    });
    let stage = stage.open_apart(&cast, Apart { sight: around.sight, ..Apart::default() });
    // With pauses: the guest has to get on.
    let pause = Duration::from_micros(500);
    let _drain = (huge && around.drained).then(|| Drain::start(&cast, PAGES, pause));

    // Whoever cannot read the page map cannot be told there what was written.
    let by_kernel = program.by_kernel && around.sight == Sight::Full;
    let program = Program { by_kernel, ..program.clone() };
    let modes = Modes {
        tracking: around.tracking,
        fault_around: program.fault_around,
        out_of_sight: around.sight != Sight::Full,
    };
    let setting =
        Setting { stage: &stage, pattern, modes, play_flags: around.play_flags, beside: &|_| {} };
    run(&setting, &program)
}

fn config(cases: u32) -> Config {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model_adverse.txt");
    Config {
        cases,
        // What fails may do so by not answering, which takes long each time.
        max_shrink_iters: 100,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(80))]

    #[test]
    fn small_pages(around in circumstances(), program in program()) {
        in_another_process(SMALL, around, &program)?;
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn huge_pages(around in circumstances(), program in program()) {
        in_another_process(HUGE, around, &program)?;
    }
}
