//! Sources that are cut short, fail, hang or panic: the guest gets the configured answer, with an
//! error that names the page, its offset and the cause.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uffd_core::handoff::HandoffError;
use uffd_core::server::Refusal;
use uffd_core::session::{
    Cause, End, FaultAround, Notice, SessionError, SessionOptions, Unservable,
};
use uffd_core::source::{Chunk, FileSource, Piece, Scratch, Source, SourceError, Want};
use uffd_core::units::{PageIndex, PageRange};
use uffd_guest::options::Dialect;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_proof::sources::{Broken, Failure, Gate, Gated};
use uffd_proof::{
    Apart, Case, Cast, HUGE, SMALL, Serving, Setting, StageBuilder, in_all_modes, until,
};

in_all_modes!(
    a_file_that_is_too_short_is_refused,
    a_truncated_file_poisons_what_it_no_longer_has,
    the_page_in_which_a_file_was_cut_is_lost_like_those_behind_it,
    a_source_that_fails_for_a_while_costs_only_time,
    a_source_that_fails_for_good_poisons_the_page,
    the_guest_is_killed_where_that_is_asked_for,
    the_session_fails_where_that_is_asked_for,
    a_fetch_that_hangs_is_given_up_after_the_deadline,
    any_deadline_can_be_given,
    a_fetch_that_panics_is_a_fetch_that_failed,
    a_lookup_that_panics_ends_the_session,
    a_prefault_counts_what_cannot_be_read,
    a_source_that_contradicts_itself_ends_a_prefault_all_the_same,
    zeros_stored_as_data_take_no_memory_when_they_are_fetched,
    a_source_may_bring_less_than_it_is_asked_for,
);

const PAGES: u64 = 8;
const SOON: Duration = Duration::from_millis(100);

/// Of the time that a fault may wait none counts in which the handler stood still: whoever fetches
/// stood still, too.
#[test]
fn a_fault_is_not_given_up_because_the_handler_was_stopped() {
    const DEADLINE: Duration = Duration::from_secs(4);
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("there");
    let (cast, guest) =
        (Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role")), env!("CARGO_BIN_EXE_uffd-proof-guest"));
    let stage = StageBuilder::new(guest, Pattern::new(3, SMALL), &[PAGES])
        .session(|options| options.fault_deadline = DEADLINE)
        .open_apart(&cast, Apart { held_by: Some(there.clone()), ..Apart::default() });
    let guest = stage.guest();
    let read = guest.thread(0).start_read(5, 1);
    until("its fetch to be under way", || guest.figures().get().unwrap().fetches == 1);
    let stopped = (stage.freeze(), Instant::now());
    until("more time to pass than a fault may wait", || {
        stopped.1.elapsed() > DEADLINE + Duration::from_secs(1)
    });
    std::fs::write(&there, "").unwrap();
    drop(stopped);
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
}

/// Page 5 cannot be read.
fn broken(
    case: Case,
    failure: Failure,
    change: impl FnOnce(&mut SessionOptions),
) -> (Setting, Arc<std::sync::atomic::AtomicBool>) {
    let mended = Arc::default();
    let (bad, mend) = (5 * case.page_size..6 * case.page_size, Arc::clone(&mended));
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        let stage = stage.session(|options| {
            options.fault_deadline = SOON;
            change(options);
        });
        stage.source(move |file| Broken { mended: mend, ..Broken::new(file, bad, failure) })
    });
    (setting, mended)
}

fn a_file_that_is_too_short_is_refused(case: Case) {
    let setting = case.open(PAGES);
    let refusal = setting.refusal(|options| options.pages = vec![PAGES, 1]);
    assert!(matches!(refusal, Refusal::Handoff(HandoffError::Message(_))), "{refusal:?}");
    let text = refusal.to_string();
    assert!(text.contains(&(PAGES * case.page_size).to_string()), "{text}");
    // And the next guest is served.
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

fn a_truncated_file_poisons_what_it_no_longer_has(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    // Known to be warm, and not: both kinds of pages are lost.
    thread.touch(0, 2).unwrap();
    let file = File::options().write(true).open(setting.snapshot()).unwrap();
    file.set_len(4 * case.page_size).unwrap();
    assert_eq!(thread.verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    for page in 4..PAGES {
        let found = thread.read_page(page).unwrap();
        // Neighbours may have been filled before.
        assert!(matches!(found, Content::Poisoned), "page {page}: {found}");
        let Notice::Poisoned { page: told, offset, cause } = guest.notice() else { panic!() };
        assert_eq!((told, offset), (PageIndex(page), page * case.page_size));
        let expected = SourceError::Truncated { offset, len: 4 * case.page_size };
        assert_eq!(cause, Cause::Source(expected));
    }
    // Poisoned pages can be given back, and are zeros then.
    thread.madvise(6, 1).unwrap();
    assert_eq!(thread.read_page(6).unwrap(), Content::Zeros);
    assert_eq!(thread.read_page(7).unwrap(), Content::Poisoned);
    assert_eq!(guest.stats().pages.poisoned, 3);
}

/// The kernel would copy it: its bytes up to the cut, and zeros for the rest.
fn the_page_in_which_a_file_was_cut_is_lost_like_those_behind_it(case: Case) {
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        stage.session(|options| options.fault_around = FaultAround::Off)
    });
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, 2).unwrap();
    let file = File::options().write(true).open(setting.snapshot()).unwrap();
    file.set_len(4 * case.page_size + 100).unwrap();
    assert_eq!(thread.read_page(6).unwrap(), Content::Poisoned);
    assert_eq!(thread.read_page(4).unwrap(), Content::Poisoned);
    assert_eq!(thread.verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
}

fn a_source_that_fails_for_a_while_costs_only_time(case: Case) {
    let (setting, mended) =
        broken(case, Failure::Io, |options| options.fault_deadline = Duration::from_secs(60));
    let guest = setting.guest();
    let read = guest.thread(0).start_read(5, 1);
    until("a fetch to fail", || guest.stats().counters.failed_fetches > 1);
    assert!(!read.is_done());
    mended.store(true, Ordering::Release);
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
}

fn a_source_that_fails_for_good_poisons_the_page(case: Case) {
    // Long enough for one fetch to fail, or it were not known why.
    let deadline = Duration::from_secs(2);
    let (setting, _) = broken(case, Failure::Io, |options| options.fault_deadline = deadline);
    let guest = setting.guest();
    assert_eq!(guest.thread(0).read_page(5).unwrap(), Content::Poisoned);
    let Notice::Poisoned { page, offset, cause } = guest.notice() else { panic!() };
    assert_eq!((page, offset), (PageIndex(5), 5 * case.page_size));
    assert!(cause.to_string().contains("the disk is on fire"), "{cause}");
    // Its neighbours are as they should be, and a write to it is no better than a read.
    assert_eq!(guest.thread(0).verify(0, 5, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(guest.thread(0).verify(6, 2, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(guest.thread(0).write(5, 1, 3).unwrap().poisoned, 1);
    assert_eq!(guest.stats().counters.poisoned_pages, 1);
    assert!(guest.session.end().is_none());
}

/// The kernel does not poison a part of a huge page: that plays the kernel that cannot at all.
#[test]
fn where_a_page_cannot_be_poisoned_the_session_fails_and_says_why_it_cannot_be_had() {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: HUGE, tracking: false };
    let setting = case.open_with(case.pattern(), &[1], |stage| {
        stage.source(|file| Broken::new(file, 0..HUGE, Failure::Truncated))
    });
    let guest = setting.guest_with(|options| options.dialect = Dialect::V1_1);
    let _read = guest.thread(0).start_read(0, 1);
    let (End::Failed(error), stats) = guest.end() else { panic!() };
    let SessionError::Unservable { page, cause, killed, .. } = error else { panic!("{error}") };
    assert_eq!((page, killed, stats.counters.poisoned_pages), (PageIndex(0), false, 0));
    assert!(matches!(cause, Cause::Source(SourceError::Truncated { .. })), "{cause}");
}

fn names_page_5(case: Case, error: &SessionError, was_killed: bool) {
    let SessionError::Unservable { page, offset, killed, .. } = error else { panic!("{error:?}") };
    assert_eq!((*page, *offset, *killed), (PageIndex(5), 5 * case.page_size, was_killed));
    assert_eq!(error.code(), "ERR_UFFD_PAGE");
    let text = error.to_string();
    let offset = (5 * case.page_size).to_string();
    assert!(
        text.contains("page 5") && text.contains(&offset) && text.contains("on fire"),
        "{text}"
    );
}

fn the_guest_is_killed_where_that_is_asked_for(case: Case) {
    let (setting, _) =
        broken(case, Failure::Io, |options| options.on_unservable = Unservable::Kill);
    let mut guest = setting.guest();
    let _read = guest.thread(0).start_read(5, 1);
    let (end, _) = guest.end();
    let End::Failed(error) = end else { panic!("{end:?}") };
    names_page_5(case, &error, true);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(guest.guest.wait_exit().unwrap().signal(), Some(9));
}

fn the_session_fails_where_that_is_asked_for(case: Case) {
    for kill in [false, true] {
        let (setting, _) = broken(case, Failure::Io, |options| {
            options.on_unservable = Unservable::Fail;
            options.kill_on_failure = kill;
        });
        let mut guest = setting.guest();
        let read = guest.thread(0).start_read(5, 1);
        let (end, _) = guest.end();
        let End::Failed(error) = end else { panic!("{end:?}") };
        names_page_5(case, &error, false);
        if kill {
            assert!(!guest.guest.wait_exit().unwrap().success());
        } else {
            // The orchestrator decides what becomes of a guest that waits.
            assert!(guest.pagemap(5, 1).unwrap().all(|page| !page.present));
            assert!(!read.is_done());
        }
    }
}

/// Pages from 4 on are fetched through the gate.
fn gated(case: Case, change: impl FnOnce(&mut SessionOptions)) -> (Setting, Gate) {
    let gate = Gate::closed();
    let (through, size) = (gate.clone(), case.page_size);
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        let stage = stage.session(change);
        stage.source(move |file| Gated { file, slow: 4 * size..8 * size, gate: through })
    });
    (setting, gate)
}

fn a_fetch_that_hangs_is_given_up_after_the_deadline(case: Case) {
    let (setting, gate) = gated(case, |options| options.fault_deadline = SOON);
    let guest = setting.guest();
    assert_eq!(guest.thread(0).read_page(6).unwrap(), Content::Poisoned);
    let Notice::Poisoned { cause: Cause::SlowSource { waited }, .. } = guest.notice() else {
        panic!()
    };
    assert!(waited >= SOON);
    gate.open();
    // What arrives in the end does not undo it.
    guest.thread(0).touch(4, 2).unwrap();
    assert_eq!(guest.thread(0).read_page(6).unwrap(), Content::Poisoned);
    assert_eq!(guest.thread(0).read_page(0).unwrap(), Content::Source);
}

fn any_deadline_can_be_given(case: Case) {
    let (setting, gate) = gated(case, |options| options.fault_deadline = Duration::MAX);
    let guest = setting.guest();
    guest.session.report(Some(Duration::MAX), true);
    guest.session.report(Some(Duration::ZERO), true);
    let read = guest.thread(0).start_read(6, 1);
    until("the fetch to begin", || gate.arrived() > 0);
    assert_eq!(guest.thread(1).read_page(0).unwrap(), Content::Source);
    gate.open();
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
}

fn a_fetch_that_panics_is_a_fetch_that_failed(case: Case) {
    let (setting, mended) =
        broken(case, Failure::Panic, |options| options.fault_deadline = Duration::from_secs(60));
    let guest = setting.guest();
    let read = guest.thread(0).start_read(5, 1);
    until("a fetch to panic", || guest.stats().counters.failed_fetches > 1);
    mended.store(true, Ordering::Release);
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
}

struct Panics(FileSource);

impl Source for Panics {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn lookup<'a>(&'a self, _: Want, _: &'a Scratch) -> Chunk<'a> {
        panic!("looked up on purpose")
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        self.0.fetch(want)
    }
}

fn a_lookup_that_panics_ends_the_session(case: Case) {
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| stage.source(Panics));
    let guest = setting.guest();
    let _read = guest.thread(0).start_read(5, 1);
    let (end, _) = guest.end();
    let End::Failed(SessionError::Panicked(text)) = end else { panic!("{end:?}") };
    assert_eq!(text, "looked up on purpose");
}

fn a_prefault_counts_what_cannot_be_read(case: Case) {
    let (setting, mended) = broken(case, Failure::Io, |_| {});
    let guest = setting.guest();
    let all = || guest.session.prefault(vec![PageRange::new(0, PAGES)]).unwrap();
    let report = all();
    assert_eq!((report.installed, report.failed), (PAGES - 1, 1), "{report:?}");
    assert_eq!(report.first_failed, Some(PageIndex(5)));
    // It is no harm to the page: nobody needed it.
    mended.store(true, Ordering::Release);
    let report = all();
    assert_eq!((report.installed, report.present), (1, PAGES - 1), "{report:?}");
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

/// It says that it ends before the page, at a length that lies behind it.
fn a_source_that_contradicts_itself_ends_a_prefault_all_the_same(case: Case) {
    let (setting, _) = broken(case, Failure::Truncated, |_| {});
    let guest = setting.guest();
    let report = guest.session.prefault(vec![PageRange::new(0, PAGES)]).unwrap();
    assert_eq!((report.installed, report.failed), (PAGES - 1, 1), "{report:?}");
}

fn zeros_stored_as_data_take_no_memory_when_they_are_fetched(case: Case) {
    let (size, gate) = (case.page_size, Gate::closed());
    gate.open();
    let pattern = case.pattern().with_lone_zeros(500);
    let setting = case.open_with(pattern, &[PAGES], |stage| {
        let stage = stage.zeros_as_data();
        stage.source(move |file| Gated { file, slow: 0..PAGES * size, gate })
    });
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    let zeros = (0..PAGES).filter(|page| pattern.is_zero(*page)).count() as u64;
    assert!(zeros > 0 && zeros < PAGES);
    let counters = guest.stats().counters;
    assert_eq!((counters.zero_pages, counters.source_pages), (zeros, PAGES - zeros));
    let faults = counters.read_faults + counters.neighbour_pages;
    assert_eq!(faults, PAGES, "{counters:?}");
}

/// Has nothing at hand, and brings one page however many are asked for.
struct OneByOne(FileSource);

impl Source for OneByOne {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        self.0.fetch(Want { len: want.page, ..want })
    }
}

fn a_source_may_bring_less_than_it_is_asked_for(case: Case) {
    let pages = if case.is_huge() { 8 } else { 256 };
    let setting = case.open_with(case.pattern(), &[pages], |stage| stage.source(OneByOne));
    let guest = setting.guest();
    // Side by side and in order, so that some wait for what others asked for.
    let half = pages / 2;
    let reads: Vec<_> = (0..4)
        .map(|thread| guest.thread(thread).start_verify(0, half, &[Expect::Source]))
        .collect();
    reads.into_iter().for_each(|read| assert_eq!(read.get().unwrap().wrong, 0));
    let report = guest.session.prefault(vec![PageRange::new(0, pages)]).unwrap();
    assert_eq!((report.requested(), report.failed, report.skipped), (pages, 0, 0), "{report:?}");
    assert_eq!(guest.thread(0).verify(0, pages, &[Expect::Source]).unwrap().wrong, 0);
    let stats = guest.stats();
    assert_eq!((stats.faults_in_hand, stats.pages.unfaulted), (0, 0));
    let ahead = guest.session.read_ahead(vec![PageRange::new(0, pages)]).unwrap();
    assert_eq!((ahead.requested(), ahead.present), (pages, pages), "{ahead:?}");
}
