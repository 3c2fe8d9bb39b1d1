//! Everything a guest can be told to do.

use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::soak::Soak;

const fn one() -> u64 {
    1
}

const fn is_one(count: &u64) -> bool {
    *count == 1
}

/// What to do. Pages are counted in the order of the snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Reads pages whole and tells what they hold. Answer: [`Runs`](crate::runs::Runs) of [`Content`](crate::pattern::Content).
    Read {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Reads one word of each page, and tells nothing. Answer: [`Touched`](super::Touched).
    Touch {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Lets the kernel read pages, as it does for KVM, and tells what it found.
    /// Answer: [`Runs`](crate::runs::Runs) of [`Content`](crate::pattern::Content); refused with EFAULT where the kernel cannot read.
    KernelRead {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Writes pages. Answer: [`Touched`](super::Touched).
    Write {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
        /// Who writes; not 0.
        stamp: u32,
        /// Only the word at this byte of each page, not the whole page.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// Reads pages whole and compares. Answer: [`Verified`](super::Verified).
    Verify {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
        /// What may be there.
        expect: Vec<Expect>,
    },
    /// Gives pages back by `madvise(MADV_DONTNEED)`, one call for each run of addresses.
    Madvise {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// The same for a range of bytes, aligned or not.
    MadviseBytes {
        /// The page from which `at` counts.
        page: u64,
        /// The first byte.
        at: u64,
        /// How many.
        len: u64,
    },
    /// Offers pages by `madvise(MADV_FREE)`: they stay until the kernel takes them or they are
    /// written again. Small pages only.
    Free {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Unmaps pages; accesses to them end the guest.
    Unmap {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Maps the program's own file over pages: memory that no userfaultfd can have. Small pages only.
    Cover {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Write-protects pages, absent ones too where the features have `wp-unpopulated`: what a VMM
    /// does that starts to look for dirty pages anew.
    Protect {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Waits until `parties` threads wait at the barrier of this name.
    Barrier {
        /// Which.
        name: String,
        /// How many threads.
        parties: usize,
    },
    /// Ends the storm that the guest began with. Answer: how often memory was given back.
    Calm,
    /// Does nothing for a while.
    Sleep {
        /// How long.
        micros: u64,
    },
    /// Does many things with a single answer, a [`ProgramReport`](super::ProgramReport).
    Program {
        /// What.
        steps: Vec<Op>,
        /// How often.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        repeat: u64,
    },
    /// Random accesses by many threads, each byte checked. Answer: [`SoakReport`](super::SoakReport).
    Random(Soak),
    /// Touches pages and tells how long it took. Answer: [`BenchReport`](super::BenchReport).
    Bench(Bench),
    /// Reads words at random, each where the one before says, and tells how long it took: memory that
    /// is there, and all that it takes to get to it. Answer: [`BenchReport`](super::BenchReport), with no latencies.
    Roam {
        /// The first page.
        page: u64,
        /// How many.
        count: u64,
        /// Words.
        reads: u64,
        /// Of the choices.
        seed: u64,
    },
    /// Gives pages back run by run and tells how long it took. Answer: [`BenchReport`](super::BenchReport).
    MadviseBench {
        /// The first page.
        page: u64,
        /// How many.
        count: u64,
        /// Pages of one call.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        run: u64,
    },
    /// What the kernel's page tables say, touching nothing. Answer: [`Runs`](crate::runs::Runs) of [`PageState`](super::PageState).
    Pagemap {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// How much memory is resident. Answer: [`Rss`](super::Rss).
    Rss,
    /// Where each thread is. Answer: a list of [`Whereabouts`](super::Whereabouts).
    Whereabouts,
    /// Makes all waiting threads fault again.
    WakeAll,
    /// Becomes another program: the process lives on, and its memory is gone. There is no answer.
    Exec,
    /// Makes mappings until the process may have no more, or lets go of them.
    Crowd {
        /// Whether they are made.
        on: bool,
    },
    /// Sets or clears O_NONBLOCK on the userfaultfd, for everybody who has it.
    SetNonblocking {
        /// Whether reads return at once.
        on: bool,
    },
    /// Closes the socket of the handoff.
    CloseSocket,
    /// Gives the number of the userfaultfd to another one, which has no memory.
    ReuseNumber {
        /// Whether the guest has the first one open under another number; or else nobody may have it.
        keep: bool,
    },
    /// Ends the guest.
    Die {
        /// How.
        how: Death,
        /// After this many pages were touched by anybody; at once without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_touches: Option<u64>,
    },
    /// Ends the guest in good order.
    Exit,
}

impl Op {
    /// Whether it is executed at once: it touches no guest memory and waits for nobody.
    pub const fn is_immediate(&self) -> bool {
        matches!(
            self,
            Self::Pagemap { .. }
                | Self::Rss
                | Self::Whereabouts
                | Self::WakeAll
                | Self::Exec
                | Self::Crowd { .. }
                | Self::SetNonblocking { .. }
                | Self::CloseSocket
                | Self::ReuseNumber { .. }
                | Self::Die { .. }
                | Self::Exit
        )
    }
}

/// What a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// What the snapshot has, be it zeros.
    Source,
    /// Zeros.
    Zeros,
    /// Written whole with this stamp.
    Stamp(u32),
    /// SIGBUS.
    Poisoned,
}

/// How a guest dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    /// By `exit`.
    Exit,
    /// By SIGKILL.
    Kill,
    /// By SIGABRT.
    Abort,
}
