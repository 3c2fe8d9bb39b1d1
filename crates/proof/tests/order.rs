//! Every order of reads, writes and REMOVEs of one page, queued while the fault loop is held.
//!
//! The kernel hands out faults before REMOVEs, whatever came first; the answer must be right for
//! all orders in which the threads could have run.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_guest::driver::Pending;
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Touched;
use uffd_guest::runs::Runs;
use uffd_proof::{Case, Served, in_all_modes, until, waiting_threads};

in_all_modes!(
    every_order_on_a_page_never_touched,
    every_order_on_a_page_that_was_read,
    every_order_on_a_page_that_was_given_back,
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Read,
    Write,
    Remove,
}

enum Doing {
    Read(Pending<Runs<Content>>),
    Write(Pending<Touched>),
    Remove(Pending<()>),
}

impl Doing {
    fn is_done(&self) -> bool {
        match self {
            Self::Read(pending) => pending.is_done(),
            Self::Write(pending) => pending.is_done(),
            Self::Remove(pending) => pending.is_done(),
        }
    }
}

/// All sequences of two and three acts.
fn orders() -> Vec<Vec<Act>> {
    const ACTS: [Act; 3] = [Act::Read, Act::Write, Act::Remove];
    let two = ACTS.iter().flat_map(|a| ACTS.map(|b| vec![*a, b]));
    let two: Vec<_> = two.collect();
    let three = two.iter().flat_map(|two| ACTS.map(|act| [two.as_slice(), &[act]].concat()));
    three.chain(two.iter().cloned()).collect()
}

const STAMP: u32 = 77;

fn patched(base: Content) -> Content {
    Content::Patched { base: Box::new(base), at: 0, stamp: STAMP }
}

fn every_order(case: Case, before: &Content, prepare: impl Fn(&Served, u64)) {
    let orders = orders();
    let setting = case.open(orders.len() as u64);
    let guest = setting.guest();
    for (page, order) in (0..).zip(&orders) {
        prepare(&guest, page);
        let held = guest.hold();
        let mut doing = Vec::new();
        for (number, act) in (0..).zip(order) {
            let thread = guest.thread(number);
            doing.push(match act {
                Act::Read => Doing::Read(thread.start_read(page, 1)),
                Act::Write => Doing::Write(thread.start_write_word(page, 1, STAMP, 0)),
                Act::Remove => Doing::Remove(thread.start_madvise(page, 1)),
            });
            // It has queued its event, or needed none.
            until("a thread to be queued", || {
                let done = doing.iter().filter(|doing| doing.is_done()).count();
                done + waiting_threads(guest.pid()) == doing.len()
            });
        }
        drop(held);
        let removed = order.contains(&Act::Remove);
        let written = order.contains(&Act::Write);
        for doing in doing {
            match doing {
                Doing::Write(pending) => assert_eq!(pending.get().unwrap().poisoned, 0),
                Doing::Remove(pending) => pending.get().unwrap(),
                Doing::Read(pending) => {
                    let found = pending.get().unwrap().0.remove(0).is;
                    let legal = found == *before
                        || removed && found == Content::Zeros
                        || written && found == patched(before.clone())
                        || written && removed && found == patched(Content::Zeros);
                    assert!(legal, "{order:?} read {found}");
                }
            }
        }
        let after = guest.thread(0).read_page(page).unwrap();
        let base = if removed { Content::Zeros } else { before.clone() };
        // A write before the REMOVE is gone with it, and one after it is not.
        let legal = if written {
            after == patched(base.clone()) || removed && after == base
        } else {
            after == base
        };
        assert!(legal, "{order:?} left {after}");
    }
    let stats = guest.stats();
    assert_eq!(stats.faults_in_hand, 0);
    assert_eq!(stats.counters.faults(), stats.latency.count);
}

fn every_order_on_a_page_never_touched(case: Case) {
    every_order(case, &Content::Source, |_, _| {});
}

fn every_order_on_a_page_that_was_read(case: Case) {
    every_order(case, &Content::Source, |guest, page| {
        guest.thread(0).touch(page, 1).unwrap();
    });
}

fn every_order_on_a_page_that_was_given_back(case: Case) {
    every_order(case, &Content::Zeros, |guest, page| {
        guest.thread(0).touch(page, 1).unwrap();
        guest.thread(0).madvise(page, 1).unwrap();
    });
}
