//! MADV_FREE is announced as REMOVE, and takes nothing yet: the pages stay, with their contents and
//! without protection, until the kernel takes them or the guest writes them again, of which nobody
//! hears.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::session::DirtyTracking;
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_proof::{Apart, Cast, Exported, SMALL, Serving, Sight, StageBuilder, Staged};
use userfaultfd_sys as sys;

const PAGES: u64 = 12;

const fn stock(_: &mut Options) {}

fn kernel_tracks(options: &mut Options) {
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
        | sys::UFFD_FEATURE_WP_UNPOPULATED
        | sys::UFFD_FEATURE_WP_ASYNC;
}

/// Every way to track, and every sight of the guest.
fn in_every_way(proof: impl Fn(&dyn Serving)) {
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    for (tracking, guest) in [
        (DirtyTracking::Off, stock as fn(&mut Options)),
        (DirtyTracking::On, stock),
        (DirtyTracking::Auto, kernel_tracks),
    ] {
        for sight in [Sight::Full, Sight::OtherNamespace] {
            let stage = StageBuilder::new(program, Pattern::new(7, SMALL), &[PAGES]);
            let stage = stage.session(|options| options.dirty_tracking = tracking);
            let stage = stage.open_apart(&cast, Apart { sight, ..Apart::default() });
            proof(&*Staged::guest_with(&stage, &guest));
        }
    }
}

fn export(served: &dyn Serving) -> Exported {
    let export = served.export().get().unwrap();
    assert!(export.dirty.is_disjoint(&export.empty), "{export:?}");
    export
}

/// A page that differs from the snapshot has to be in a diff: whatever a dirty set leaves out reads
/// as the snapshot has it, and whatever `empty` names reads as zeros.
#[test]
fn a_page_that_was_freed_and_written_again_is_dirty() {
    in_every_way(|served| {
        let thread = served.guest().thread(0);
        thread.write(2, 4, 5).unwrap();
        thread.free(2, 4).unwrap();
        // Still there: no fault tells of these.
        thread.write_word(2, 1, 6, 0).unwrap();
        thread.write(4, 1, 8).unwrap();
        let export = export(served);
        for page in [2, 4] {
            assert!(!export.empty.contains(&page), "page {page}: {export:?}");
            assert!(export.dirty.contains(&page), "page {page}: {export:?}");
        }
        let base = Box::new(Content::Stamp(5));
        let written = Content::Patched { base, at: 0, stamp: 6 };
        assert_eq!(thread.read_page(2).unwrap(), written);
        assert_eq!(thread.read_page(4).unwrap(), Content::Stamp(8));
    });
}

/// Whoever was promised zeros must not read anything else.
#[test]
fn a_page_that_is_told_to_be_empty_reads_as_zeros() {
    in_every_way(|served| {
        let thread = served.guest().thread(0);
        thread.touch(0, 4).unwrap();
        thread.write(4, 4, 5).unwrap();
        thread.free(2, 4).unwrap();
        let export = export(served);
        // The kernel may have taken some of them since; what is there is what it was.
        for page in export.empty {
            assert_eq!(thread.read_page(page.into()).unwrap(), Content::Zeros, "page {page}");
        }
        let (source, stamp) = (Expect::Source, Expect::Stamp(5));
        assert_eq!(thread.verify(0, 2, &[source]).unwrap().wrong, 0);
        assert_eq!(thread.verify(2, 2, &[source, Expect::Zeros]).unwrap().wrong, 0);
        assert_eq!(thread.verify(4, 2, &[stamp, Expect::Zeros]).unwrap().wrong, 0);
        assert_eq!(thread.verify(6, 2, &[stamp]).unwrap().wrong, 0);
    });
}

/// What is given back for good after all is empty as ever, as far as that can be known.
#[test]
fn a_page_that_was_freed_and_then_given_back_is_empty() {
    in_every_way(|served| {
        let thread = served.guest().thread(0);
        thread.write(2, 2, 5).unwrap();
        thread.free(2, 2).unwrap();
        thread.write(2, 1, 6).unwrap();
        thread.madvise(2, 2).unwrap();
        let export = export(served);
        if export.exact {
            assert!(export.empty.is_superset(&[2, 3].into()), "{export:?}");
        }
        assert_eq!(thread.verify(2, 2, &[Expect::Zeros]).unwrap().wrong, 0);
    });
}
