//! What a thread of the guest can be told: each op as a method that waits, or as one that starts.

use std::time::Duration;

use super::conversation::{Conversation, Pending};
use super::error::DriverError;
use crate::pattern::Content;
use crate::protocol::{
    Bench, BenchReport, Expect, Op, ProgramReport, Soak, SoakReport, Touched, Verified,
};
use crate::runs::Runs;

/// A thread of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Thread<'a> {
    conversation: &'a Conversation,
    deadline: Duration,
    number: u32,
}

/// Declares ops as a pair of methods: one which waits for the answer, one which does not.
macro_rules! ops {
    ($($(#[$doc:meta])* $call:ident, $start:ident($($name:ident: $type:ty),*) -> $answer:ty = $op:expr;)*) => {
        impl<'a> Thread<'a> {
            $(
                $(#[$doc])*
                pub fn $call(self, $($name: $type),*) -> Result<$answer, DriverError> {
                    self.$start($($name),*).get()
                }

                #[doc = concat!("Starts [`", stringify!($call), "`](Self::", stringify!($call), ").")]
                pub fn $start(self, $($name: $type),*) -> Pending<$answer> {
                    self.conversation.ask(self.number, $op, self.deadline)
                }
            )*
        }
    };
}

ops! {
    /// Reads pages whole and tells what they hold.
    read, start_read(page: u64, count: u64) -> Runs<Content> = Op::Read { page, count };
    /// Reads one word of each page.
    touch, start_touch(page: u64, count: u64) -> Touched = Op::Touch { page, count };
    /// Has the kernel read pages and tells what it found.
    kernel_read, start_kernel_read(page: u64, count: u64) -> Runs<Content>
        = Op::KernelRead { page, count };
    /// Writes pages whole.
    write, start_write(page: u64, count: u64, stamp: u32) -> Touched
        = Op::Write { page, count, stamp, at: None };
    /// Writes the word at byte `at` of each page.
    write_word, start_write_word(page: u64, count: u64, stamp: u32, at: u64) -> Touched
        = Op::Write { page, count, stamp, at: Some(at) };
    /// Reads pages whole and compares.
    verify, start_verify(page: u64, count: u64, expect: &[Expect]) -> Verified
        = Op::Verify { page, count, expect: expect.to_vec() };
    /// Gives pages back.
    madvise, start_madvise(page: u64, count: u64) -> () = Op::Madvise { page, count };
    /// Gives back bytes, counted from the start of a page.
    madvise_bytes, start_madvise_bytes(page: u64, at: u64, len: u64) -> ()
        = Op::MadviseBytes { page, at, len };
    /// Offers pages to the kernel, which may take them later.
    free, start_free(page: u64, count: u64) -> () = Op::Free { page, count };
    /// Ends the storm that the guest began with; how often memory was given back.
    calm, start_calm() -> u64 = Op::Calm;
    /// Unmaps pages.
    unmap, start_unmap(page: u64, count: u64) -> () = Op::Unmap { page, count };
    /// Maps a file over pages.
    cover, start_cover(page: u64, count: u64) -> () = Op::Cover { page, count };
    /// Becomes another program.
    exec, start_exec() -> () = Op::Exec;
    /// Makes mappings until the process may have no more, or lets go of them.
    crowd, start_crowd(on: bool) -> () = Op::Crowd { on };
    /// Write-protects pages, absent ones too where that was negotiated.
    protect, start_protect(page: u64, count: u64) -> () = Op::Protect { page, count };
    /// Does many things in a row.
    program, start_program(steps: Vec<Op>) -> ProgramReport = Op::Program { steps, repeat: 1 };
    /// Accesses pages at random and checks each byte.
    random, start_random(soak: Soak) -> SoakReport = Op::Random(soak);
    /// Touches pages and tells how long it took.
    bench, start_bench(bench: Bench) -> BenchReport = Op::Bench(bench);
    /// Reads words at random and tells how long it took.
    roam, start_roam(page: u64, count: u64, reads: u64, seed: u64) -> BenchReport
        = Op::Roam { page, count, reads, seed };
    /// Gives pages back, `run` at a time, and tells how long it took.
    madvise_bench, start_madvise_bench(page: u64, count: u64, run: u64) -> BenchReport
        = Op::MadviseBench { page, count, run };
}

impl<'a> Thread<'a> {
    pub(super) const fn new(
        conversation: &'a Conversation,
        deadline: Duration,
        number: u32,
    ) -> Self {
        Self { conversation, deadline, number }
    }

    /// What one page holds.
    pub fn read_page(self, page: u64) -> Result<Content, DriverError> {
        let mut runs = self.read(page, 1)?;
        Ok(runs.0.remove(0).is)
    }
}
