//! Random programs. A program is a list of phases; the threads of a phase run at the same time, and
//! all of them end before the next.

use proptest::prelude::*;
use uffd_guest::protocol::{Death, Op};

use super::pages::{Act, Model};

pub(crate) const THREADS: usize = 3;
pub(crate) const PAGES: u64 = 6;

/// What a thread does with pages, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Read(u64),
    WriteWord(u64),
    WriteWhole(u64),
    Remove(u64, u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) threads: Vec<Vec<Step>>,
    /// Pages prefaulted at the same time.
    pub(crate) prefault: Option<(u64, u64)>,
    /// Whether the guest is looked at afterwards: that touches its pages.
    pub(crate) look: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) phases: Vec<Phase>,
    pub(crate) fault_around: bool,
    /// Whether the kernel does the tracking, where there is any.
    pub(crate) by_kernel: bool,
    pub(crate) zeros: bool,
    pub(crate) split: u64,
    /// What ends it in the middle of a last phase, if anything does.
    pub(crate) end: Option<(Phase, Ending)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// The session is stopped.
    Stop,
    /// The guest dies after so many touches more, or is killed when it did not make them.
    Death(Death, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..PAGES;
    prop_oneof![
        3 => page.clone().prop_map(Step::Read),
        3 => page.clone().prop_map(Step::WriteWord),
        1 => page.clone().prop_map(Step::WriteWhole),
        3 => (page, 1..4_u64).prop_map(|(page, count)| Step::Remove(page, count.min(PAGES - page))),
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    let threads = prop::collection::vec(prop::collection::vec(step(), 0..4), THREADS);
    let prefault = prop::option::weighted(0.3, (0..PAGES, 1..=PAGES));
    (threads, prefault, any::<bool>()).prop_map(|(threads, prefault, look)| Phase {
        threads,
        prefault: prefault.map(|(page, count)| (page, (page + count).min(PAGES))),
        look,
    })
}

fn ending() -> impl Strategy<Value = Ending> {
    let how = prop_oneof![Just(Death::Exit), Just(Death::Kill), Just(Death::Abort)];
    prop_oneof![
        1 => Just(Ending::Stop),
        2 => (how, 0..10_u64).prop_map(|(how, touches)| Ending::Death(how, touches)),
    ]
}

/// Any program.
pub(crate) fn program() -> impl Strategy<Value = Program> {
    let phases = prop::collection::vec(phase(), 1..6);
    let end = prop::option::weighted(0.5, (phase(), ending()));
    (phases, any::<bool>(), any::<bool>(), any::<bool>(), 1..PAGES, end).prop_map(
        |(phases, fault_around, by_kernel, zeros, split, end)| Program {
            phases,
            fault_around,
            by_kernel,
            zeros,
            split,
            end,
        },
    )
}

impl Phase {
    /// What this phase does to `page`, thread by thread.
    pub(crate) fn acts_on(&self, page: u64, stamps: &Stamps) -> Vec<Vec<Act>> {
        let act = |thread: usize, at: usize, step: &Step| match *step {
            Step::Read(it) if it == page => Some(Act::Touch),
            Step::WriteWord(it) if it == page => Some(Act::WriteWord(stamps.of(thread, at))),
            Step::WriteWhole(it) if it == page => {
                // Written word by word, which only nobody else's business keeps whole.
                let stamp = stamps.of(thread, at);
                Some(match self.is_alone(thread, page) {
                    true => Act::WriteWhole(stamp),
                    false => Act::WriteWord(stamp),
                })
            }
            Step::Remove(it, count) if (it..it + count).contains(&page) => Some(Act::Remove),
            _ => None,
        };
        let of_thread = |(thread, steps): (usize, &Vec<Step>)| {
            steps.iter().enumerate().filter_map(|(at, step)| act(thread, at, step)).collect()
        };
        self.threads.iter().enumerate().map(of_thread).collect()
    }

    /// Whether no other thread has to do with `page` in this phase.
    fn is_alone(&self, thread: usize, page: u64) -> bool {
        let others = self.threads.iter().enumerate().filter(|(other, _)| *other != thread);
        !others.flat_map(|(_, steps)| steps).any(|step| step.concerns(page))
    }

    fn is_changed(&self, page: u64) -> bool {
        let changes = |step: &Step| !matches!(step, Step::Read(_)) && step.concerns(page);
        self.threads.iter().flatten().any(changes)
    }

    pub(crate) fn touches(&self, page: u64) -> bool {
        self.threads.iter().flatten().any(|step| step.concerns(page))
    }

    /// The steps as the guest is told them, each thread's behind a barrier for all.
    pub(crate) fn ops(&self, number: usize, stamps: &Stamps, model: &Model) -> Vec<Vec<Op>> {
        let barrier = Op::Barrier { name: format!("phase {number}"), parties: THREADS };
        let op = |thread: usize, at: usize, step: &Step| match *step {
            Step::Read(page) => match model.certain(page).filter(|_| !self.is_changed(page)) {
                Some(expect) => Op::Verify { page, count: 1, expect: vec![expect] },
                None => Op::Touch { page, count: 1 },
            },
            Step::WriteWord(page) => {
                Op::Write { page, count: 1, stamp: stamps.of(thread, at), at: Some(0) }
            }
            Step::WriteWhole(page) => {
                let at_word = (!self.is_alone(thread, page)).then_some(0);
                Op::Write { page, count: 1, stamp: stamps.of(thread, at), at: at_word }
            }
            Step::Remove(page, count) => Op::Madvise { page, count },
        };
        let steps = |(thread, steps): (usize, &Vec<Step>)| {
            let ops = steps.iter().enumerate().map(|(at, step)| op(thread, at, step));
            std::iter::once(barrier.clone()).chain(ops).collect()
        };
        self.threads.iter().enumerate().map(steps).collect()
    }
}

impl Step {
    fn concerns(&self, page: u64) -> bool {
        match *self {
            Self::Read(it) | Self::WriteWord(it) | Self::WriteWhole(it) => it == page,
            Self::Remove(it, count) => (it..it + count).contains(&page),
        }
    }
}

/// Every write of a program has a stamp of its own.
pub(crate) struct Stamps(pub(crate) u32);

impl Stamps {
    fn of(&self, thread: usize, at: usize) -> u32 {
        1 + self.0 * 100 + u32::try_from(thread * 10 + at).expect("few steps")
    }
}
