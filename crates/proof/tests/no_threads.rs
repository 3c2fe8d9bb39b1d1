//! A process that may have no thread more: what needs one waits for it, or is done without.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::session::Unservable;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_proof::{
    Apart, Cast, Ending, HUGE, HugePages, SMALL, Serving, StageBuilder, ThreadLimit, until,
};

const PAGES: u64 = 8;

#[test]
fn a_fault_waits_for_a_thread_to_fetch_its_page() {
    let limit = match ThreadLimit::none_yet() {
        Ok(limit) => limit,
        Err(error) => return eprintln!("not tried, as this host limits no threads: {error}"),
    };
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    for page_size in [SMALL, HUGE] {
        let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
        let stage = StageBuilder::new(program, Pattern::new(5, page_size), &[PAGES])
            .session(|options| options.on_unservable = Unservable::Fail)
            .open_apart(&cast, Apart { cold: true, ..Apart::default() });
        limit.take_in(stage.pid()).unwrap();
        let guest = stage.guest();
        // The handoff itself may have started one, which ends when it has nothing to do.
        until("no thread to fetch", || stage.threads_named("uffd-fetch").is_empty());
        limit.refuse_more(true).unwrap();
        let read = guest.thread(0).start_read(1, 1);
        until("tries in vain", || guest.figures().get().unwrap().fetches > 5);
        assert!(!read.is_done());
        // What needs no thread goes on, and so does what can do without.
        guest.thread(1).madvise(2, 1).unwrap();
        assert_eq!(guest.thread(1).read_page(2).unwrap(), Content::Zeros);
        let export = guest.export().get().unwrap();
        assert!(export.dirty.contains(&2), "{export:?}");

        limit.refuse_more(false).unwrap();
        assert!(read.get().unwrap().all(|content| *content == Content::Source));
        assert_eq!(guest.thread(0).verify(3, PAGES - 3, &[Expect::Source]).unwrap().wrong, 0);
        guest.begin_stop();
        assert_eq!(guest.end().0, Ending::Stopped);
    }
}
