//! Touches that are timed, and how long they took.

use serde::{Deserialize, Serialize};

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
    /// Nanoseconds of sleep before each touch, as a guest does that has little to do.
    pub pause: u64,
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
            pause: 0,
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
