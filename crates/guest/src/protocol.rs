//! What can be asked of a guest, and what it answers: one JSON object a line.
//!
//! A request names its `op`; those that touch memory are executed by the worker `thread`, in
//! order, so that a thread which waits for a page delays nobody else. The others are executed at
//! once, whatever threads are waiting.

use serde::{Deserialize, Serialize};

use crate::memory::Region;
use crate::pattern::Content;

/// A line to the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the reply.
    pub id: u64,
    /// Which worker does it.
    #[serde(default)]
    pub thread: u32,
    /// What to do.
    #[serde(flatten)]
    pub op: Op,
}

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first line: the handoff was sent.
    Ready(Ready),
    /// A request was carried out, or refused.
    Reply(Reply),
    /// The guest gives up.
    Failed(Refusal),
}

/// What the guest is, once it has handed off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Its process.
    pub pid: i32,
    /// Its page size in bytes.
    pub page_size: u64,
    /// Its regions, in the order of the snapshot.
    pub regions: Vec<Region>,
    /// Whether only faults of user mode are handed off.
    pub user_mode_only: bool,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request.
    pub id: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer to its op.
    Ok(serde_json::Value),
    /// Why not.
    Error(Refusal),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For people.
    pub message: String,
    /// What a system call said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<i32>,
}

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
    /// Reads pages whole and tells what they hold. Answer: [`Runs`](crate::runs::Runs) of [`Content`].
    Read {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Reads one word of each page, and tells nothing. Answer: [`Touched`].
    Touch {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Lets the kernel read pages, as it does for KVM, and tells what it found.
    /// Answer: [`Runs`](crate::runs::Runs) of [`Content`]; refused with EFAULT where the kernel cannot read.
    KernelRead {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// Writes pages. Answer: [`Touched`].
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
    /// Reads pages whole and compares. Answer: [`Verified`].
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
    /// Unmaps pages; accesses to them end the guest.
    Unmap {
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
    /// Does nothing for a while.
    Sleep {
        /// How long.
        micros: u64,
    },
    /// Does many things with a single answer, a [`ProgramReport`].
    Program {
        /// What.
        steps: Vec<Op>,
        /// How often.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        repeat: u64,
    },
    /// Random accesses by many threads, each byte checked. Answer: [`SoakReport`].
    Random(Soak),
    /// Touches pages and tells how long it took. Answer: [`BenchReport`].
    Bench(Bench),
    /// Gives pages back run by run and tells how long it took. Answer: [`BenchReport`].
    MadviseBench {
        /// The first page.
        page: u64,
        /// How many.
        count: u64,
        /// Pages of one call.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        run: u64,
    },
    /// What the kernel's page tables say, touching nothing. Answer: [`Runs`](crate::runs::Runs) of [`PageState`].
    Pagemap {
        /// The first page.
        page: u64,
        /// How many.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        count: u64,
    },
    /// How much memory is resident. Answer: [`Rss`].
    Rss,
    /// Where each thread is. Answer: a list of [`Whereabouts`].
    Whereabouts,
    /// Makes all waiting threads fault again.
    WakeAll,
    /// Closes the socket of the handoff.
    CloseSocket,
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
                | Self::CloseSocket
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

/// How many pages were touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// In order.
    pub pages: u64,
    /// Of them, how many raised SIGBUS.
    pub poisoned: u64,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Pages compared.
    pub pages: u64,
    /// Pages that held something else.
    pub wrong: u64,
    /// The first of them.
    pub examples: Vec<Wrong>,
}

/// A page that holds what it must not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// Which.
    pub page: u64,
    /// What it holds.
    pub found: Content,
}

/// The outcome of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Steps carried out.
    pub steps: u64,
    /// All `verify` steps together.
    pub verified: Verified,
    /// Steps that were refused.
    pub refused: u64,
    /// The first of them.
    pub refusals: Vec<RefusedStep>,
}

/// A step that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStep {
    /// Its place in the list.
    pub step: u64,
    /// Why.
    pub why: Refusal,
}

/// Random accesses. Every page is written and given back by one thread, its owner, and read by all.
///
/// The guest remembers what each page went through from one soak to the next; other ops on the
/// same pages are not known to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Soak {
    /// Of all choices.
    pub seed: u64,
    /// How many threads.
    pub threads: u32,
    /// The first page.
    pub page: u64,
    /// How many, or all the rest.
    pub count: Option<u64>,
    /// Consecutive pages with one owner, and the most given back at once.
    pub chunk: u64,
    /// Operations of each thread.
    pub ops: u64,
    /// Stop after this time, operations left or not.
    pub millis: Option<u64>,
    /// Weight of reading an own page, exactly checked.
    pub read: u32,
    /// Weight of writing a page whole.
    pub write: u32,
    /// Weight of writing one word.
    pub word: u32,
    /// Weight of giving back a run of pages.
    pub madvise: u32,
    /// Weight of reading any page while its owner may be at work on it.
    pub peek: u32,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            seed: 0,
            threads: 4,
            page: 0,
            count: None,
            chunk: 16,
            ops: 10_000,
            millis: None,
            read: 30,
            write: 10,
            word: 20,
            madvise: 10,
            peek: 30,
        }
    }
}

/// The outcome of a soak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoakReport {
    /// Own pages read.
    pub reads: u64,
    /// Pages written whole.
    pub writes: u64,
    /// Words written.
    pub words: u64,
    /// Runs given back.
    pub madvises: u64,
    /// Pages given back.
    pub removed_pages: u64,
    /// Any pages read.
    pub peeks: u64,
    /// Own pages read once more when all threads had ended.
    pub final_reads: u64,
    /// Pages on which a wrong word was found.
    pub wrong: u64,
    /// The first of them.
    pub examples: Vec<SoakMistake>,
    /// How long it took.
    pub nanos: u64,
}

/// A word which no legal history of its page explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoakMistake {
    /// Which page.
    pub page: u64,
    /// The offset of the word in it.
    pub at: u64,
    /// The word, in hexadecimal.
    pub word: String,
    /// What that word means there: the snapshot, zeros, a version of the page, or where it belongs.
    pub found: String,
    /// What could have been there.
    pub expected: String,
    /// The thread that read it.
    pub thread: u32,
}

/// Touches to be timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bench {
    /// In which order.
    pub order: Order,
    /// Of the order.
    pub seed: u64,
    /// The first page.
    pub page: u64,
    /// How many, or all the rest.
    pub count: Option<u64>,
    /// How many threads share the pages, taking turns.
    pub threads: u32,
    /// Write a word with this stamp instead of reading one.
    pub stamp: Option<u32>,
    /// Of 1000 touches, how many are such writes.
    pub write_per_mille: u64,
    /// Nanoseconds of computing before each touch, as a guest does that has something to do.
    pub work: u64,
}

impl Default for Bench {
    fn default() -> Self {
        Self {
            order: Order::Sequential,
            seed: 0,
            page: 0,
            count: None,
            threads: 1,
            stamp: None,
            write_per_mille: 1000,
            work: 0,
        }
    }
}

/// In which order pages are touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As in the snapshot.
    Sequential,
    /// Shuffled.
    Random,
    /// Every nth page, then the next of each.
    Strided(u64),
    /// As an operating system starts: runs of 1 to 32 pages at random places.
    Boot,
    /// These pages, counted from the first.
    List(Vec<u64>),
    /// The pages in this file, one number a line, counted from the first.
    File(std::path::PathBuf),
}

/// How long touches took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchReport {
    /// How many.
    pub touches: u64,
    /// From the first to the last.
    pub nanos: u64,
    /// Of a single one.
    pub latency: Latency,
    /// What it cost the guest process.
    pub cost: Cost,
}

/// Latencies in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The shortest.
    pub min: u64,
    /// Half are shorter.
    pub p50: u64,
    /// 90 % are shorter.
    pub p90: u64,
    /// 99 % are shorter.
    pub p99: u64,
    /// 99.9 % are shorter.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// On average.
    pub mean: u64,
}

/// What the guest process used up meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time in user mode, in microseconds.
    pub user_micros: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_micros: u64,
    /// Times a thread waited.
    pub voluntary_switches: u64,
    /// Times a thread was interrupted.
    pub involuntary_switches: u64,
    /// Page faults without I/O, as the kernel counts them.
    pub minor_faults: u64,
}

/// What the page tables say about a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageState {
    /// There is a page.
    pub present: bool,
    /// It is swapped out, or a marker stands in its place, such as that of a poisoned page.
    pub swapped: bool,
    /// Write-protected by userfaultfd.
    pub wp: bool,
    /// It is the shared page of zeros.
    pub zero: bool,
    /// It is part of a transparent huge page, or is a hugetlb page.
    pub huge: bool,
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rss {
    /// Of the guest's regions, shared pages of zeros aside.
    pub guest: u64,
    /// Of the whole process, without hugetlb pages.
    pub process: u64,
    /// hugetlb pages.
    pub hugetlb: u64,
}

/// Where a thread of the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Its id.
    pub tid: i32,
    /// The page it touched last, or waits for.
    pub page: u64,
    /// The kernel function it waits in, such as `handle_userfault`, where the kernel tells.
    pub wchan: String,
}

impl Whereabouts {
    /// Whether it waits for its page.
    pub fn waits_for_page(&self) -> bool {
        self.wchan.contains("userfault")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(json: &str) -> Request {
        let request: Request = serde_json::from_str(json).unwrap();
        let again = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), request);
        request
    }

    #[test]
    fn requests_are_short_to_write() {
        let request = round_trip(r#"{"id":1,"op":"read","page":5}"#);
        assert_eq!(request, Request { id: 1, thread: 0, op: Op::Read { page: 5, count: 1 } });
        let request = round_trip(r#"{"id":2,"thread":3,"op":"random","seed":9}"#);
        assert_eq!(request.op, Op::Random(Soak { seed: 9, ..Soak::default() }));
        round_trip(r#"{"id":3,"op":"verify","page":0,"count":2,"expect":["source",{"stamp":4}]}"#);
        round_trip(r#"{"id":4,"op":"die","how":"kill","after_touches":10}"#);
        round_trip(r#"{"id":5,"op":"bench","order":{"strided":4},"threads":2}"#);
        round_trip(
            r#"{"id":6,"op":"program","steps":[{"op":"barrier","name":"b","parties":2},
            {"op":"write","page":1,"stamp":2,"at":8}]}"#,
        );
    }

    #[test]
    fn replies_say_ok_or_error() {
        let reply = |outcome| serde_json::to_string(&Reply { id: 7, outcome }).unwrap();
        assert_eq!(reply(Outcome::Ok(1.into())), r#"{"id":7,"ok":1}"#);
        let refusal = Refusal { message: "no".into(), errno: Some(22) };
        let line = reply(Outcome::Error(refusal.clone()));
        assert_eq!(line, r#"{"id":7,"error":{"message":"no","errno":22}}"#);
        let read: Reply = serde_json::from_str(&line).unwrap();
        assert_eq!(read.outcome, Outcome::Error(refusal));
    }
}
