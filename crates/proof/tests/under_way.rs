//! What is under way when something else happens: installs while the address space changes,
//! prefaults among faults and REMOVEs, and fetches that take their time.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use uffd_core::session::{FaultAround, Reply, SessionOptions, Unservable};
use uffd_core::source::{Chunk, Piece, Scratch, Source, SourceError, Want};
use uffd_core::units::PageRange;
use uffd_guest::pattern::Content;
use uffd_guest::protocol::{Expect, Soak};
use uffd_proof::sources::{Gate, Gated};
use uffd_proof::{Case, DEADLINE, Served, Setting, in_all_modes, until, waiting_threads};

in_all_modes!(
    an_install_while_the_address_space_changes_is_tried_again,
    prefault_installs_what_is_not_there_and_nothing_else,
    prefault_among_faults_and_removes_accounts_for_every_page,
    read_ahead_installs_nothing,
    nobody_waits_for_a_slow_fetch_of_other_pages,
    a_page_given_back_while_it_is_fetched_is_zeros_at_once,
    what_is_fetched_for_pages_that_were_given_back_is_taken_back,
    what_is_fetched_for_faults_that_were_given_up_is_taken_back,
    a_prefault_does_not_wait_for_pages_that_were_given_back,
    a_prefault_of_slow_pages_leaves_the_way_to_faults,
    a_fault_brings_what_a_prefault_wants_nearby_and_nothing_else,
    a_cancelled_prefault_says_what_it_did,
    readers_right_behind_removes_never_see_a_stale_page,
);

/// One thread more for each madvise than there are processors: some are still on their way to the
/// zap when the loop installs the page of the fault that came with them.
fn an_install_while_the_address_space_changes_is_tried_again(case: Case) {
    const REMOVERS: u32 = 12;
    let setting = case.open(u64::from(REMOVERS) + 1);
    let guest = setting.guest();
    let victim = u64::from(REMOVERS);
    let mut rounds = 0;
    let start = Instant::now();
    while guest.stats().counters.deferred == 0 {
        rounds += 1;
        // Beside other work every round may go the one way for a while.
        assert!(start.elapsed() < 4 * DEADLINE, "no install met EAGAIN in {rounds} rounds");
        guest.thread(0).madvise(victim, 1).unwrap();
        let held = guest.hold();
        let removes: Vec<_> = (1..=REMOVERS)
            .map(|number| guest.thread(number).start_madvise(u64::from(number) - 1, 1))
            .collect();
        let read = guest.thread(0).start_read(victim, 1);
        until("all to be queued", || waiting_threads(guest.pid()) == 1 + REMOVERS as usize);
        drop(held);
        removes.into_iter().for_each(|remove| remove.get().unwrap());
        assert!(read.get().unwrap().all(|content| *content == Content::Zeros));
    }
    let stats = guest.stats();
    assert!(stats.counters.retried > 0);
    assert_eq!(stats.faults_in_hand, 0);
    // Put off, it was neither served nor counted twice.
    assert_eq!(stats.counters.read_faults, rounds);
    assert_eq!(stats.latency.count, rounds);
}

fn prefault_installs_what_is_not_there_and_nothing_else(case: Case) {
    let setting = case.open_with(case.pattern(), &[6, 4], |stage| stage);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.write(0, 1, 4).unwrap();
    thread.madvise(2, 2).unwrap();
    let before = guest.stats().counters;
    // Over the border of the regions, the second half asked for twice.
    let ranges = vec![PageRange::new(0, 10), PageRange::new(5, 10), PageRange::new(3, 3)];
    let report = guest.session.prefault(ranges).unwrap();
    let installed = report.installed;
    assert_eq!(report.requested(), 15);
    assert_eq!((report.removed, report.failed, report.skipped), (2, 0, 0));
    assert_eq!((installed, report.present), (7, 6), "{report:?}");
    let counters = guest.stats().counters;
    assert_eq!(counters.prefault_pages, 7);
    assert_eq!(counters.source_pages - before.source_pages, 7);
    // Nor was any page tried that is there.
    assert_eq!(counters.already_present, before.already_present);
    assert!(guest.pagemap(4, 6).unwrap().all(|page| page.present && page.wp == case.tracking));
    // Pages that were given back stay absent: no memory is spent on them.
    assert!(guest.pagemap(2, 2).unwrap().all(|page| !page.present));
    thread.touch(4, 6).unwrap();
    assert_eq!(guest.stats().counters.faults(), before.faults());
    assert_eq!(thread.verify(2, 2, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(thread.read_page(0).unwrap(), Content::Stamp(4));
    assert_eq!(thread.verify(4, 6, &[Expect::Source]).unwrap().wrong, 0);
    let missing = guest.session.prefault(vec![PageRange::new(8, 12)]).unwrap_err();
    assert!(missing.to_string().contains("no page 10"), "{missing}");
}

fn read_ahead_installs_nothing(case: Case) {
    let bytes = case.pattern().page_size;
    let gate = Gate::closed();
    gate.open();
    let setting = case.open_with(case.pattern(), &[8], |stage| {
        stage.source(move |file| Gated { file, slow: 4 * bytes..8 * bytes, gate })
    });
    let guest = setting.guest();
    guest.thread(0).touch(0, 1).unwrap();
    guest.thread(0).madvise(1, 1).unwrap();
    let unfaulted = guest.stats().pages.unfaulted;
    let report = guest.session.read_ahead(vec![PageRange::new(0, 8)]).unwrap();
    assert_eq!((report.requested(), report.installed, report.failed), (8, 0, 0), "{report:?}");
    assert_eq!((report.present, report.removed), (7 - unfaulted, 1), "{report:?}");
    assert_eq!(report.fetched, unfaulted, "{report:?}");
    assert_eq!(guest.stats().pages.unfaulted, unfaulted);
    assert!(guest.stats().counters.fetches > 0);
}

fn prefault_among_faults_and_removes_accounts_for_every_page(case: Case) {
    let pages = if case.is_huge() { 16 } else { 512 };
    let setting = case.open(pages);
    let guest = setting.guest();
    let soak = Soak {
        seed: 3,
        threads: 3,
        chunk: 4,
        ops: if case.is_huge() { 60 } else { 3000 },
        ..Soak::default()
    };
    let running = guest.thread(0).start_random(soak);
    let mut installed = 0;
    let mut rounds = 0;
    while !running.is_done() || rounds == 0 {
        let ranges = (0..pages / 4).map(|n| PageRange::new(n * 4, n * 4 + 4)).rev().collect();
        let report = guest.session.prefault(ranges).unwrap();
        assert_eq!(report.requested(), pages, "{report:?}");
        assert_eq!((report.failed, report.skipped), (0, 0), "{report:?}");
        installed += report.installed;
        rounds += 1;
    }
    let report = running.get().unwrap();
    assert_eq!(report.wrong, 0, "{report:?}");
    let counters = guest.stats().counters;
    assert_eq!(counters.prefault_pages, installed);
    assert_eq!(guest.session.prefault(vec![PageRange::new(0, pages)]).unwrap().installed, 0);
}

/// Pages `slow..end` of `end` have to be fetched through the gate.
fn with_slow_pages(case: Case, slow: u64, end: u64) -> (Setting, Gate) {
    let gate = Gate::closed();
    let (through, size) = (gate.clone(), case.page_size);
    let setting = case.open_with(case.pattern(), &[end], |stage| {
        stage.source(move |file| Gated { file, slow: slow * size..end * size, gate: through })
    });
    (setting, gate)
}

fn nobody_waits_for_a_slow_fetch_of_other_pages(case: Case) {
    let (setting, gate) = with_slow_pages(case, 4, 8);
    let guest = setting.guest();
    let slow = guest.thread(9).start_read(6, 1);
    until("the fetch to begin", || gate.arrived() > 0);
    let thread = guest.thread(0);
    assert_eq!(thread.verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    thread.write(1, 1, 3).unwrap();
    thread.madvise(0, 4).unwrap();
    assert_eq!(thread.verify(0, 4, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(guest.stats().faults_in_hand, 1);
    assert!(!slow.is_done());
    gate.open();
    assert!(slow.get().unwrap().all(|content| *content == Content::Source));
    assert_eq!(thread.verify(4, 4, &[Expect::Source]).unwrap().wrong, 0);
    consistent(&guest);
}

fn a_page_given_back_while_it_is_fetched_is_zeros_at_once(case: Case) {
    let (setting, gate) = with_slow_pages(case, 0, 4);
    let guest = setting.guest();
    let parked = guest.thread(1).start_read(2, 1);
    let written = guest.thread(2).start_write_word(3, 1, 5, 0);
    until("the fetches to begin", || gate.arrived() > 1 && waiting_threads(guest.pid()) == 2);
    guest.thread(0).madvise(2, 2).unwrap();
    // The gate is still closed.
    assert!(parked.get().unwrap().all(|content| *content == Content::Zeros));
    written.get().unwrap();
    let patched = Content::Patched { base: Box::new(Content::Zeros), at: 0, stamp: 5 };
    gate.open();
    // What was fetched comes too late for these, and is right for the others.
    assert_eq!(guest.thread(0).verify(0, 2, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(guest.thread(0).read_page(2).unwrap(), Content::Zeros);
    assert_eq!(guest.thread(0).read_page(3).unwrap(), patched);
    consistent(&guest);
}

/// Fetches for faults that are under way at once: the next one waits until one of them ends.
const AT_ONCE: u64 = 8;

/// Slow pages that are not asked for at first.
const MORE: u64 = 16;

/// Faults on slow pages, each of which is fetched alone: as many as are under way at once, and then
/// some that wait behind them. There are more slow pages than that.
fn crowded(case: Case, change: impl FnOnce(&mut SessionOptions)) -> (Setting, Gate, u64) {
    let (gate, faults) = (Gate::closed(), AT_ONCE + 4);
    let (through, size) = (gate.clone(), case.page_size);
    let setting = case.open_with(case.pattern(), &[faults + MORE], |stage| {
        let slow = 0..(faults + MORE) * size;
        let stage = stage.source(move |file| Gated { file, slow, gate: through });
        stage.session(|options| {
            options.fault_around = FaultAround::Off;
            change(options);
        })
    });
    (setting, gate, faults)
}

fn what_is_fetched_for_pages_that_were_given_back_is_taken_back(case: Case) {
    let (setting, gate, faults) = crowded(case, |_| {});
    let guest = setting.guest();
    let read = |page: u64| guest.thread(1 + u32::try_from(page).unwrap()).start_read(page, 1);
    let first: Vec<_> = (0..AT_ONCE).map(read).collect();
    until("fetches to begin", || gate.arrived() == AT_ONCE);
    let others: Vec<_> = (AT_ONCE..faults).map(read).collect();
    until("the faults to be read", || guest.stats().faults_in_hand == faults);
    guest.thread(0).madvise(AT_ONCE, faults - AT_ONCE).unwrap();
    for read in others {
        assert!(read.get().unwrap().all(|content| *content == Content::Zeros));
    }
    assert_eq!(guest.stats().faults_in_hand, AT_ONCE);
    gate.open();
    for read in first {
        assert!(read.get().unwrap().all(|content| *content == Content::Source));
    }
    // Whatever still waited to be fetched comes before it.
    assert_eq!(guest.thread(0).read_page(faults).unwrap(), Content::Source);
    assert_eq!(gate.arrived(), AT_ONCE + 1);
    consistent(&guest);
}

fn what_is_fetched_for_faults_that_were_given_up_is_taken_back(case: Case) {
    let (setting, gate, faults) = crowded(case, |options| {
        options.fault_deadline = Duration::from_millis(300);
        options.on_unservable = Unservable::Poison;
    });
    let guest = setting.guest();
    let read = |page: u64| guest.thread(1 + u32::try_from(page).unwrap()).start_read(page, 1);
    let reads: Vec<_> = (0..faults).map(read).collect();
    for read in reads {
        assert!(read.get().unwrap().all(|content| *content == Content::Poisoned));
    }
    guest.session.settle().unwrap();
    gate.open();
    // Where everything takes its time, these may be given up as well.
    let is_source = |page| guest.thread(0).read_page(page).unwrap() == Content::Source;
    let probes = 1 + (faults..faults + MORE).position(is_source).unwrap() as u64;
    assert!(gate.arrived() <= AT_ONCE + probes, "{} fetches", gate.arrived());
}

fn a_prefault_does_not_wait_for_pages_that_were_given_back(case: Case) {
    let pages = if case.is_huge() { 12 } else { 4096 };
    let (setting, gate) = with_slow_pages(case, 0, pages);
    let guest = setting.guest();
    let (reply, report) = mpsc::channel();
    let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
    guest.session.prefault_with(vec![PageRange::new(0, pages)], reply).unwrap();
    until("fetches to begin", || gate.arrived() >= 6);
    guest.thread(0).madvise(0, pages).unwrap();
    // The gate is closed, and what is under way behind it is nobody's any more.
    let report = report.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!((report.removed, report.requested()), (pages, pages), "{report:?}");
    gate.open();
    assert_eq!(guest.thread(0).verify(0, pages, &[Expect::Zeros]).unwrap().wrong, 0);
    consistent(&guest);
}

fn a_prefault_of_slow_pages_leaves_the_way_to_faults(case: Case) {
    let pages = if case.is_huge() { 12 } else { 4096 };
    let gate = Gate::closed();
    let (through, size) = (gate.clone(), case.page_size);
    let setting = case.open_with(case.pattern(), &[pages], |stage| {
        // The last page is not at hand, and quick.
        stage.source(move |file| Quick {
            gated: Gated { file, slow: 0..(pages - 1) * size, gate: through },
            quick: (pages - 1) * size,
        })
    });
    let guest = setting.guest();
    let (reply, report) = mpsc::channel();
    let ranges = vec![PageRange::new(0, pages)];
    let asked =
        guest.session.prefault_with(ranges, Reply::new(move |it| reply.send(it).unwrap_or(())));
    asked.unwrap();
    until("fetches to begin", || gate.arrived() >= 6);
    assert_eq!(guest.thread(0).read_page(pages - 1).unwrap(), Content::Source);
    gate.open();
    let report = report.recv().unwrap().unwrap();
    assert_eq!((report.installed, report.present), (pages - 1, 1), "{report:?}");
    assert_eq!(guest.thread(0).verify(0, pages, &[Expect::Source]).unwrap().wrong, 0);
    consistent(&guest);
}

fn a_fault_brings_what_a_prefault_wants_nearby_and_nothing_else(case: Case) {
    // As many fetches as keep a prefault from going on, and then what it has not come to.
    let slow = (24..40).step_by(2).map(|page| PageRange::new(page, page + 1));
    let next = [(3, 5), (10, 14), (20, 21)].map(|(start, end)| PageRange::new(start, end));
    let ranges: Vec<_> = slow.chain(next).collect();
    let (setting, gate) = with_slow_pages(case, 24, 40);
    let stuck = |guest: &Served| {
        let (reply, report) = mpsc::channel();
        let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
        let id = guest.session.prefault_with(ranges.clone(), reply).unwrap();
        until("the fetches to begin", || guest.stats().counters.fetches == 8);
        (id, report)
    };
    let present = |guest: &Served| {
        guest.session.settle().unwrap();
        let bits = guest.pagemap(0, 24).unwrap();
        let present = bits.pages().filter(|(_, page)| page.present);
        present.map(|(number, page)| (number, page.wp)).collect::<Vec<_>>()
    };

    // Of one that was cancelled nothing is wanted.
    let guest = setting.guest();
    let (id, report) = stuck(&guest);
    guest.session.cancel_prefault(id);
    assert_eq!(report.recv().unwrap().unwrap().skipped, 15);
    guest.thread(0).touch(11, 1).unwrap();
    assert_eq!(present(&guest), [(11, case.tracking)]);

    let guest = setting.guest();
    let (_, report) = stuck(&guest);
    guest.thread(0).madvise(12, 1).unwrap();
    guest.thread(0).touch(11, 1).unwrap();
    let brought: &[u64] = if case.is_huge() { &[11] } else { &[3, 4, 10, 11, 13, 20] };
    let expected: Vec<_> = brought.iter().map(|page| (*page, case.tracking)).collect();
    assert_eq!(present(&guest), expected);
    gate.open();
    let report = report.recv().unwrap().unwrap();
    assert_eq!((report.present, report.removed), (brought.len() as u64, 1), "{report:?}");
    assert_eq!(report.installed, 14 - report.present, "{report:?}");
    assert_eq!(guest.thread(0).verify(0, 12, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(guest.thread(0).verify(12, 1, &[Expect::Zeros]).unwrap().wrong, 0);
    consistent(&guest);
}

/// A gated source with a page that has to be fetched too, and passes the gate.
struct Quick {
    gated: Gated,
    quick: u64,
}

impl Source for Quick {
    fn len(&self) -> u64 {
        self.gated.len()
    }
    fn lookup<'a>(&'a self, want: Want, scratch: &'a Scratch) -> Chunk<'a> {
        if want.offset >= self.quick {
            return Chunk::Absent(want.len);
        }
        self.gated.lookup(want, scratch)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        self.gated.fetch(want)
    }
}

fn a_cancelled_prefault_says_what_it_did(case: Case) {
    let (setting, gate) = with_slow_pages(case, 2, 8);
    let guest = setting.guest();
    let (reply, report) = mpsc::channel();
    let ranges = vec![PageRange::new(0, 8)];
    let id = guest
        .session
        .prefault_with(ranges, Reply::new(move |it| reply.send(it).unwrap_or(())))
        .unwrap();
    until("the fetch to begin", || gate.arrived() > 0);
    guest.session.cancel_prefault(id);
    let told = report.recv().unwrap().unwrap();
    assert_eq!((told.installed, told.skipped, told.requested()), (2, 6, 8), "{told:?}");
    gate.open();
    // Cancelling what is over does nothing.
    guest.session.cancel_prefault(id);
    assert_eq!(guest.thread(0).verify(0, 8, &[Expect::Source]).unwrap().wrong, 0);
}

fn readers_right_behind_removes_never_see_a_stale_page(case: Case) {
    let pages = if case.is_huge() { 12 } else { 256 };
    let setting = case.open(pages);
    let guest = setting.guest();
    let soak = Soak {
        seed: 11,
        threads: 4,
        chunk: 2,
        ops: if case.is_huge() { 150 } else { 12_000 },
        read: 5,
        write: 0,
        word: 10,
        madvise: 30,
        peek: 55,
        ..Soak::default()
    };
    let report = guest.thread(0).random(soak).unwrap();
    assert_eq!(report.wrong, 0, "{report:?}");
    assert!(report.madvises > 0 && report.peeks > 0);
    consistent(&guest);
}

/// What the counters must agree on, whatever happened.
fn consistent(guest: &Served) {
    guest.session.settle().unwrap();
    let stats = guest.stats();
    let counters = &stats.counters;
    assert_eq!(stats.faults_in_hand, 0, "{stats:?}");
    assert_eq!(counters.faults(), stats.latency.count, "{stats:?}");
    let installed = counters.source_pages + counters.zero_pages;
    let missing = counters.read_faults + counters.write_faults - counters.already_present;
    let asked = missing + counters.neighbour_pages + counters.prefault_pages;
    assert!(installed <= asked, "{stats:?}");
}
