//! The faults in hand are served, by page state and source.

use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::fetches::Fetches;
use super::guest::{Answer, Asker, Guest, NO_MEMORY};
use super::hand::{Fault, Kind, Phase, Trouble};
use super::{Halt, Turn};
use crate::contract::{Cause, Notice, SessionError, Unservable};
use crate::install::{Obstacle, Plan, Stopped, Surroundings};
use crate::policy::{self, Content};
use crate::source::{Scratch, Source, SourceError};
use crate::states::PageState;
use crate::trace::FilledWith;
use crate::units::{PageIndex, PageRange, PageSize};

/// So many faults at once are woken together: each wake walks all threads that wait.
const BATCH: usize = 8;

/// Faults served before those are woken.
const MOST_IN_BATCH: usize = 64;

/// A loop that looks at a deadline so late was kept from running, and so were those who fetch: this
/// process was stopped, or its host.
const STOOD_STILL: Duration = Duration::from_millis(500);

/// Serves what can be served now.
pub(super) fn serve(
    guest: &mut Guest,
    source: &dyn Source,
    scratch: &mut Scratch,
    fetches: &mut Fetches,
    ahead: &mut Ahead,
) -> Turn {
    if guest.hand.is_empty() {
        return Ok(());
    }
    let served = in_batches(guest, source, scratch, fetches, ahead);
    // However that ended: their pages are there.
    guest.memory.wake_batch();
    fetches.drop_served(&mut guest.hand);
    served
}

fn in_batches(
    guest: &mut Guest,
    source: &dyn Source,
    scratch: &mut Scratch,
    fetches: &mut Fetches,
    ahead: &mut Ahead,
) -> Turn {
    let mut clock = None;
    let mut in_batch = 0;
    let many = guest.hand.len() >= BATCH;
    for index in 0..guest.hand.len() {
        if !is_ready(guest, index, &mut clock) {
            check_deadline(guest, index)?;
            continue;
        }
        if guest.hand.get(index).attempts > 0 {
            guest.memory.counters.retried += 1;
        }
        if many {
            guest.memory.begin_batch();
            in_batch += 1;
        }
        let clock = &mut guest.journal.clock;
        // Of many, the first were served a while ago.
        scratch.begin(if many { clock.look() } else { clock.recent() });
        serve_one(guest, index, source, scratch, fetches, ahead)?;
        if in_batch >= MOST_IN_BATCH {
            guest.memory.wake_batch();
            in_batch = 0;
        }
    }
    Ok(())
}

fn is_ready(guest: &Guest, index: usize, clock: &mut Option<Instant>) -> bool {
    let fault = guest.hand.get(index);
    match fault.phase {
        Phase::Ready => true,
        Phase::Deferred(due) => {
            let now = *clock.get_or_insert_with(Instant::now);
            now >= due || (fault.trouble.is_none() && guest.memory.is_gap_due(now))
        }
        // A REMOVE made it a page of zeros, for which there is nothing to wait.
        Phase::Parked => guest.memory.states.get(fault.page) != PageState::Unfaulted,
        Phase::Served => false,
    }
}

fn serve_one(
    guest: &mut Guest,
    index: usize,
    source: &dyn Source,
    scratch: &Scratch,
    fetches: &mut Fetches,
    ahead: &mut Ahead,
) -> Turn {
    let Fault { page, kind, alone, .. } = *guest.hand.get(index);
    let state = guest.memory.states.get(page);
    let access = kind.access();
    guest.memory.note_fault(page);
    let (_, result) = match (kind, policy::content(state)) {
        (Kind::Protect, _) => return serve_protect(guest, index, page, state),
        (Kind::Missing { .. }, Content::Poison) => return poison(guest, index),
        (Kind::Missing { .. }, Content::Zeros) => {
            let plan = guest.planner(source, scratch).zeros(page, access, alone);
            guest.install(plan.as_slice(), Asker::Fault)
        }
        (Kind::Missing { .. }, Content::Source) => {
            let planner = guest.planner(source, scratch);
            let mut plan = Plan::default();
            let around = match planner.source(page, access, alone, &mut plan) {
                Ok(around) => around,
                Err(pages) => {
                    fetches.for_fault(guest, index, pages);
                    return Ok(());
                }
            };
            let done = guest.install(plan.as_slice(), Asker::Fault);
            drop(plan);
            ahead.served(guest, page);
            if done.1.is_ok() { fill_around(guest, source, scratch, &around) } else { done }
        }
    };
    match result {
        // Nobody waits for the neighbours.
        Err(Stopped { page: other, obstacle, .. }) if other != page => match obstacle {
            Obstacle::Gone => Err(Halt::GuestExited),
            _ => Ok(()),
        },
        Err(Stopped { obstacle, .. }) => {
            let tried =
                if alone { PageRange::single(page) } else { PageRange::new(page.0, page.0 + 2) };
            obstructed(guest, index, obstacle, tried, fetches)
        }
        Ok(()) => Ok(()),
    }
}

/// Fills what lies around a page that was filled: looked up only now, since nobody waits for it.
fn fill_around(
    guest: &mut Guest,
    source: &dyn Source,
    scratch: &Scratch,
    around: &Surroundings,
) -> (u64, Result<(), Stopped>) {
    let mut plan = Plan::default();
    guest.planner(source, scratch).around(around, &mut plan);
    if plan.is_empty() {
        return (0, Ok(()));
    }
    guest.install(plan.as_slice(), Asker::Fault)
}

/// What to do with a fault whose install met an obstacle.
fn obstructed(
    guest: &mut Guest,
    index: usize,
    obstacle: Obstacle,
    tried: PageRange,
    fetches: &mut Fetches,
) -> Turn {
    match guest.answer(obstacle, tried)? {
        Answer::There | Answer::LetGo => guest.hand.get_mut(index).phase = Phase::Served,
        Answer::Later(pauses) => guest.defer(index, pauses),
        Answer::NoMemory => return troubled(guest, index, Trouble::NoMemory),
        Answer::Read => fetches.for_fault(guest, index, PageRange::single(tried.start)),
        // It stays ready, and is tried on its own in the next turn.
        Answer::Singly => guest.hand.get_mut(index).alone = true,
    }
    Ok(())
}

/// A write to a protected page.
fn serve_protect(guest: &mut Guest, index: usize, page: PageIndex, state: PageState) -> Turn {
    let memory = &mut guest.memory;
    let put = match state {
        // The tracker says that it is absent and the kernel that it is present. Where the
        // tracker is right the write comes again, to a page that reports it.
        PageState::Removed => match memory.put_protected_zeros(page) {
            Err(Obstacle::Present) => memory.unprotect(page),
            put => put,
        },
        _ => memory.unprotect(page),
    };
    let one = PageRange::single(page);
    match put {
        Ok(_) => {
            guest.journal.protect_served(&mut guest.memory, guest.hand.get_mut(index));
            Ok(())
        }
        Err(obstacle) => match guest.answer(obstacle, one)? {
            Answer::There | Answer::LetGo | Answer::Singly => {
                guest.hand.get_mut(index).phase = Phase::Served;
                Ok(())
            }
            Answer::Later(pauses) => {
                guest.defer(index, pauses);
                Ok(())
            }
            Answer::NoMemory => troubled(guest, index, Trouble::NoMemory),
            Answer::Read => Err(guest.refused("unprotect", page, nix::libc::EFAULT)),
        },
    }
}

/// A page cannot be had for now; after the deadline, not at all.
pub(super) fn troubled(guest: &mut Guest, index: usize, trouble: Trouble) -> Turn {
    let hopeless = matches!(&trouble, Trouble::Source(error) if error.is_final());
    let now = Instant::now();
    let fault = guest.hand.get_mut(index);
    fault.alone = true;
    fault.trouble = Some(trouble);
    let is_over = fault.due(guest.options.fault_deadline).is_some_and(|due| now >= due);
    if hopeless || is_over {
        return give_up(guest, index);
    }
    fault.defer(now, NO_MEMORY);
    Ok(())
}

/// The pages of a fetch cannot be read. Those that faults wait for are tried one by one.
pub(super) fn fetch_failed(guest: &mut Guest, pages: PageRange, error: &SourceError) -> Turn {
    for index in 0..guest.hand.len() {
        let fault = guest.hand.get_mut(index);
        if fault.phase != Phase::Parked || !pages.contains(fault.page) {
            continue;
        }
        if pages.len() > 1 {
            // A neighbour may be what could not be read.
            fault.alone = true;
            fault.phase = Phase::Ready;
        } else {
            troubled(guest, index, Trouble::Source(error.clone()))?;
        }
    }
    Ok(())
}

/// A fault whose bytes do not come is given up after the deadline.
fn check_deadline(guest: &mut Guest, index: usize) -> Turn {
    let deadline = guest.options.fault_deadline;
    let fault = guest.hand.get_mut(index);
    let due = fault.due(deadline).filter(|_| fault.phase == Phase::Parked);
    let Some(late) = due.and_then(|due| Instant::now().checked_duration_since(due)) else {
        return Ok(());
    };
    if late >= STOOD_STILL {
        // What it waits for may have come a moment later: it has all its time again.
        fault.lost = fault.lost.saturating_add(late).saturating_add(deadline);
        return Ok(());
    }
    give_up(guest, index)
}

/// The configured answer to a page that cannot be had.
fn give_up(guest: &mut Guest, index: usize) -> Turn {
    let fault = guest.hand.get(index);
    let (page, waited) = (fault.page, fault.read_at.elapsed());
    let huge = guest.memory.page_size() == PageSize::Huge;
    let cause = match &fault.trouble {
        Some(Trouble::Source(error)) => Cause::Source(error.clone()),
        Some(Trouble::NoMemory) => Cause::NoMemory { huge, waited },
        None => Cause::SlowSource { waited },
    };
    let offset = guest.offset(page);
    let killed = match guest.options.on_unservable {
        Unservable::Poison => match poison(guest, index) {
            Ok(()) => {
                if guest.memory.states.get(page) == PageState::Poisoned {
                    guest.journal.notice(Notice::Poisoned { page, offset, cause });
                }
                return Ok(());
            }
            // Before Linux 6.6 it cannot be. Why the page cannot be had is worth more.
            Err(Halt::Failed(SessionError::Refused { .. })) => false,
            Err(halt) => return Err(halt),
        },
        Unservable::Kill => guest.kill(),
        Unservable::Fail => false,
    };
    Err(Halt::Failed(SessionError::Unservable { page, offset, cause, killed }))
}

fn poison(guest: &mut Guest, index: usize) -> Turn {
    let page = guest.hand.get(index).page;
    match guest.memory.poison(page) {
        Ok(done) => {
            guest.settle(done, FilledWith::Present);
            guest.hand.get_mut(index).phase = Phase::Served;
        }
        Err(Obstacle::Refused(errno)) => return Err(guest.refused("poison", page, errno)),
        // Memory for a page table entry: the same pauses, without a deadline.
        Err(Obstacle::NoMemory) => guest.defer(index, NO_MEMORY),
        Err(obstacle) => match guest.answer(obstacle, PageRange::single(page))? {
            Answer::Later(pauses) => guest.defer(index, pauses),
            _ => guest.hand.get_mut(index).phase = Phase::Served,
        },
    }
    Ok(())
}
