//! Whoever waits for a guest to be settled is answered by whatever empties the hand, be it not a
//! fault of its own.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uffd_core::units::PageRange;
use uffd_proof::sources::{Broken, Failure};
use uffd_proof::{Case, Serving, in_all_modes, until};

in_all_modes!(a_prefault_that_serves_the_last_fault_settles_the_guest);

const PAGES: u64 = 12;

/// The fault was put off, as its page could not be read, and is served by a prefault before its
/// time comes again.
fn a_prefault_that_serves_the_last_fault_settles_the_guest(case: Case) {
    // Once in a while the fault's time comes first, which proves nothing.
    for _ in 0..3 {
        let (mended, tries) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_mended, tried) = (Arc::clone(&mended), Arc::clone(&tries));
        let bad = 4 * case.page_size..5 * case.page_size;
        let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
            stage.source(move |file| Broken {
                mended: is_mended,
                tries: tried,
                ..Broken::new(file, bad, Failure::Io)
            })
        });
        let guest = setting.guest();
        let read = guest.thread(0).start_touch(4, 1);
        // Pauses grow: the next try is far away by then.
        until("several tries", || tries.load(Ordering::Acquire) > 7);
        let settled = guest.settle();
        // Taken before the next question, and not to be answered yet.
        assert_eq!(guest.stats().faults_in_hand, 1);
        mended.store(true, Ordering::Release);
        let prefault = guest.prefault(vec![PageRange::new(3, 6)]);
        assert_eq!(prefault.get().unwrap().requested, 3);
        assert_eq!(settled.get(), Ok(()));
        assert_eq!(read.get().unwrap().pages, 1);
        assert_eq!(guest.stats().faults_in_hand, 0);
    }
}
