//! What has to be reached.

use crate::measure::Metric;
use crate::target::{Bound, Target, figure, ratio};
use crate::workloads::{
    COLLAPSED, DEFAULTS, DENSE, EXPECTED, FLOOR, HANDED_OVER, KEPT, KERNEL, KILLED, ONE_PAGE,
    ONE_PAGE_SLEEPING, POPULATED, PREFAULT, PREFAULT_AGAIN, RAW_COPY, RAW_COPY_AGAIN,
    RAW_COPY_BY_TWO, SPARSE, TRACED, TRACED_FIRST, TRACKED, UNDISTURBED, WITH_EXPORTS,
    WITH_PREFAULT,
};

/// All of them.
pub(crate) const ALL: &[Target] = &[
    ratio(
        "one page per fault: touch p50",
        "random",
        Metric::P50Us,
        (ONE_PAGE, FLOOR),
        Bound::AtMost(0.85),
    ),
    ratio(
        "one page per fault, no short waits: touch p50",
        "random",
        Metric::P50Us,
        (ONE_PAGE_SLEEPING, FLOOR),
        Bound::AtMost(1.05),
    ),
    ratio(
        "one page per fault: handler CPU per fault",
        "random",
        Metric::HandlerCpuPerFaultUs,
        (ONE_PAGE, FLOOR),
        Bound::AtMost(1.0),
    ),
    ratio(
        "one page per fault, no short waits: handler CPU per fault",
        "random",
        Metric::HandlerCpuPerFaultUs,
        (ONE_PAGE_SLEEPING, FLOOR),
        Bound::AtMost(1.0),
    ),
    ratio(
        "defaults, sequential: total time",
        "sequential",
        Metric::TimeMs,
        (DEFAULTS, FLOOR),
        Bound::AtMost(0.25),
    ),
    ratio(
        "defaults, boot-like: total time",
        "boot",
        Metric::TimeMs,
        (DEFAULTS, FLOOR),
        Bound::AtMost(0.4),
    ),
    ratio(
        "defaults, random over everything: total time",
        "random",
        Metric::TimeMs,
        (DEFAULTS, FLOOR),
        Bound::AtMost(1.0),
    ),
    figure(
        "defaults, random: guest memory / pages touched, a tenth touched",
        "tenth",
        Metric::MemoryPerTouch,
        DEFAULTS,
        Bound::AtMost(1.25),
    ),
    ratio(
        "prefault everything: raw copy's time / its own",
        "fill",
        Metric::TimeMs,
        (RAW_COPY, PREFAULT),
        Bound::AtLeast(1.4),
    ),
    ratio(
        "prefault everything: time of raw copy by two threads / its own",
        "fill",
        Metric::TimeMs,
        (RAW_COPY_BY_TWO, PREFAULT),
        Bound::Open,
    ),
    ratio(
        "raw copy: time by one thread / by two, what a second core gives here",
        "fill",
        Metric::TimeMs,
        (RAW_COPY, RAW_COPY_BY_TWO),
        Bound::Open,
    ),
    ratio(
        "the same, of a snapshot served before",
        "fill",
        Metric::TimeMs,
        (RAW_COPY_AGAIN, PREFAULT_AGAIN),
        Bound::AtLeast(0.9),
    ),
    ratio(
        "after a trace: demand faults left",
        "boot-traced",
        Metric::Faults,
        (TRACED, DEFAULTS),
        Bound::AtMost(0.1),
    ),
    ratio(
        "after a trace, guest at work: demand faults left",
        "boot-traced-at-work",
        Metric::Faults,
        (TRACED, DEFAULTS),
        Bound::AtMost(0.05),
    ),
    ratio(
        "after a trace: total time",
        "boot-traced",
        Metric::TimeMs,
        (TRACED, DEFAULTS),
        Bound::AtMost(0.5),
    ),
    ratio(
        "after a trace, guest at work: total time",
        "boot-traced-at-work",
        Metric::TimeMs,
        (TRACED, DEFAULTS),
        Bound::AtMost(0.4),
    ),
    ratio(
        "after a trace, prefetched first: demand faults left",
        "boot-traced",
        Metric::Faults,
        (TRACED_FIRST, DEFAULTS),
        Bound::AtMost(0.1),
    ),
    ratio(
        "after a trace, prefetched first: total time with the wait",
        "boot-traced",
        Metric::TimeMs,
        (TRACED_FIRST, DEFAULTS),
        Bound::AtMost(0.5),
    ),
    ratio(
        "demand fault p99 while a prefault runs",
        "demand",
        Metric::P99Us,
        (WITH_PREFAULT, DEFAULTS),
        Bound::AtMost(1.5),
    ),
    figure(
        "one page per fault, 1,024 threads wait: handler CPU per fault, µs",
        "waiting-1024",
        Metric::HandlerCpuPerFaultUs,
        ONE_PAGE,
        Bound::AtMost(12.0),
    ),
    ratio(
        "the same / floor",
        "waiting-1024",
        Metric::HandlerCpuPerFaultUs,
        (ONE_PAGE, FLOOR),
        Bound::Open,
    ),
    ratio(
        "16 guests at once on two cores: total time / plain, populated first",
        "guests-16",
        Metric::TimeMs,
        (DEFAULTS, POPULATED),
        Bound::AtMost(0.6),
    ),
    ratio(
        "2 MiB pages, in order: total time / plain, populated first",
        "huge",
        Metric::TimeMs,
        (DEFAULTS, POPULATED),
        Bound::AtMost(1.0),
    ),
    ratio(
        "2 MiB pages, random: total time / plain, populated first",
        "huge-random",
        Metric::TimeMs,
        (DEFAULTS, POPULATED),
        Bound::AtMost(1.0),
    ),
    ratio(
        "2 MiB pages that are expected, in order: total time / plain, populated first",
        "huge",
        Metric::TimeMs,
        (EXPECTED, POPULATED),
        Bound::AtMost(1.0),
    ),
    ratio(
        "2 MiB pages that are expected, random: total time / plain, populated first",
        "huge-random",
        Metric::TimeMs,
        (EXPECTED, POPULATED),
        Bound::AtMost(1.0),
    ),
    ratio(
        "2 MiB pages, guest at work: touch p50 / plain, populated first",
        "huge-at-work",
        Metric::P50Us,
        (DEFAULTS, POPULATED),
        Bound::AtMost(0.85),
    ),
    figure(
        "sparse: guest memory / pages with data",
        "sparse",
        Metric::MemoryPerData,
        SPARSE,
        Bound::AtMost(1.0),
    ),
    ratio(
        "sparse, sequential: total time",
        "sparse",
        Metric::TimeMs,
        (SPARSE, DENSE),
        Bound::AtMost(0.7),
    ),
    ratio(
        "sparse, random: total time",
        "sparse-random",
        Metric::TimeMs,
        (SPARSE, DENSE),
        Bound::AtMost(0.7),
    ),
    ratio("REMOVE: madvise p50", "give-back", Metric::P50Us, (DEFAULTS, FLOOR), Bound::AtMost(1.1)),
    ratio(
        "REMOVE: time of all madvise calls",
        "give-back",
        Metric::TimeMs,
        (DEFAULTS, FLOOR),
        Bound::AtMost(1.1),
    ),
    ratio(
        "given back and read again: µs a page / kernel alone",
        "again-read",
        Metric::PerPageUs,
        (DEFAULTS, KERNEL),
        Bound::AtMost(1.5),
    ),
    ratio(
        "given back and written again: µs a page / kernel alone",
        "again-write",
        Metric::PerPageUs,
        (DEFAULTS, KERNEL),
        Bound::AtMost(1.3),
    ),
    ratio(
        "the same, tracked: µs a page / kernel alone",
        "again-tracked",
        Metric::PerPageUs,
        (TRACKED, KERNEL),
        Bound::AtMost(2.0),
    ),
    ratio(
        "given back and read again at random: µs a page / kernel alone",
        "again-random",
        Metric::PerPageUs,
        (DEFAULTS, KERNEL),
        Bound::AtMost(2.0),
    ),
    ratio(
        "in transparent huge pages: time of a random read",
        "roam",
        Metric::ReadNs,
        (COLLAPSED, DEFAULTS),
        Bound::AtMost(0.9),
    ),
    ratio(
        "while a large guest is exported: longest touch / undisturbed",
        "export",
        Metric::MaxUs,
        (WITH_EXPORTS, UNDISTURBED),
        Bound::AtMost(2.0),
    ),
    ratio(
        "a guest with a ledger: touch p50 / without",
        "ledger",
        Metric::P50Us,
        (KEPT, ONE_PAGE),
        Bound::AtMost(1.03),
    ),
    figure(
        "server killed, with a guardian: longest touch, p50 in µs",
        "killed",
        Metric::P50Us,
        KILLED,
        Bound::AtMost(5_000.0),
    ),
    figure("the same, p99 in µs", "killed", Metric::P99Us, KILLED, Bound::AtMost(20_000.0)),
    ratio(
        "handed over: longest touch, p50 / undisturbed",
        "killed",
        Metric::P50Us,
        (HANDED_OVER, UNDISTURBED),
        Bound::AtMost(2.0),
    ),
    figure(
        "server of 64 guests killed: longest touch, p50 in µs",
        "killed-64",
        Metric::P50Us,
        KILLED,
        Bound::AtMost(5_000.0),
    ),
    figure("the same, p99 in µs", "killed-64", Metric::P99Us, KILLED, Bound::AtMost(20_000.0)),
    figure(
        "idle guests: CPU of all of them, % of a core",
        "idle",
        Metric::IdleCpuPercent,
        DEFAULTS,
        Bound::AtMost(0.1),
    ),
    figure(
        "idle guests: KiB each (128, and a byte a page)",
        "idle",
        Metric::IdleKibPerGuest,
        DEFAULTS,
        Bound::AtMost(144.0),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::{self, Scale};

    #[test]
    fn targets_name_workloads_and_contenders_that_exist() {
        for target in ALL {
            let known = workloads::ALL.iter().find(|workload| workload.name == target.workload);
            let contenders = (known.expect(target.workload).contenders)(Scale { quick: true }, 0);
            let is_known = |name| contenders.iter().any(|contender| contender.name == name);
            assert!(is_known(target.of) && target.against.is_none_or(is_known), "{target:?}");
        }
    }
}
