use napi_derive::napi;
use uffd_core::states::StateCounts;

use crate::latency::Latency;

/// How many pages there are in each state.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct PageCounts {
    /// Never installed.
    pub unfaulted: f64,
    /// Installed: `clean + zero + dirty`.
    pub faulted: f64,
    /// Given back by the guest; they read as zeros.
    pub removed: f64,
    /// Their source failed; accesses raise SIGBUS.
    pub poisoned: f64,
    /// Installed, equal to the snapshot.
    pub clean: f64,
    /// Installed as zeros.
    pub zero: f64,
    /// Written, or possibly written.
    pub dirty: f64,
}

impl From<StateCounts> for PageCounts {
    fn from(counts: StateCounts) -> Self {
        Self {
            unfaulted: counts.unfaulted as f64,
            faulted: counts.faulted() as f64,
            removed: counts.removed as f64,
            poisoned: counts.poisoned as f64,
            clean: counts.clean as f64,
            zero: counts.zero as f64,
            dirty: counts.dirty as f64,
        }
    }
}

/// What was done for a guest since its handoff. Counts never go down, and are exact up to 2^53:
/// more faults than a guest can have in a century.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct Stats {
    /// Time since the handoff, in milliseconds.
    pub uptime_ms: f64,
    /// Faults served: `readFaults + writeFaults + protectFaults`.
    pub faults: f64,
    /// Missing-page faults served whose thread wanted to read.
    pub read_faults: f64,
    /// Missing-page faults served whose thread wanted to write.
    pub write_faults: f64,
    /// Write-protect faults served.
    pub protect_faults: f64,
    /// Faults of another thread on a page whose fault was already in hand; served with it.
    pub duplicate_faults: f64,
    /// Fault events whose address lies in no region; their threads were woken.
    pub stray_faults: f64,
    /// Pages installed with the snapshot's bytes, whatever for.
    pub source_pages: f64,
    /// Pages installed as zeros, whatever for.
    pub zero_pages: f64,
    /// Of the pages installed, those around a fault that nobody had asked for yet.
    pub neighbour_pages: f64,
    /// Of the pages installed, those of a prefault.
    pub prefault_pages: f64,
    /// Bytes copied into the guest, zeros that had to be copied included.
    pub copied_bytes: u64,
    /// Times the guest gave memory back (REMOVE events).
    pub remove_events: f64,
    /// Pages they covered, counted each time.
    pub removed_pages: f64,
    /// Times that work was put off because the address space was changing (EAGAIN).
    pub deferred: f64,
    /// Times that an install was tried again, whatever had stopped it.
    pub retried: f64,
    /// Installs that met a page already present.
    pub already_present: f64,
    /// Wakes on their own, without an install.
    pub wakes: f64,
    /// Installs for which there was no memory.
    pub out_of_memory: f64,
    /// Reads of the snapshot made away from the fault loop, because a page was not in memory.
    pub fetches: f64,
    /// Of those, the ones that failed.
    pub failed_fetches: f64,
    /// Pages poisoned because they could not be had.
    pub poisoned_pages: f64,
    /// Faults in hand: read, and not served yet.
    pub faults_in_hand: f64,
    /// Pages by state, at this moment.
    pub pages: PageCounts,
    /// Latency of the faults served.
    pub latency: Latency,
}

impl From<&uffd_core::stats::Stats> for Stats {
    fn from(stats: &uffd_core::stats::Stats) -> Self {
        let counters = &stats.counters;
        Self {
            uptime_ms: stats.uptime.as_secs_f64() * 1e3,
            faults: counters.faults() as f64,
            read_faults: counters.read_faults as f64,
            write_faults: counters.write_faults as f64,
            protect_faults: counters.protect_faults as f64,
            duplicate_faults: counters.duplicate_faults as f64,
            stray_faults: counters.stray_faults as f64,
            source_pages: counters.source_pages as f64,
            zero_pages: counters.zero_pages as f64,
            neighbour_pages: counters.neighbour_pages as f64,
            prefault_pages: counters.prefault_pages as f64,
            copied_bytes: counters.copied_bytes,
            remove_events: counters.remove_events as f64,
            removed_pages: counters.removed_pages as f64,
            deferred: counters.deferred as f64,
            retried: counters.retried as f64,
            already_present: counters.already_present as f64,
            wakes: counters.wakes as f64,
            out_of_memory: counters.out_of_memory as f64,
            fetches: counters.fetches as f64,
            failed_fetches: counters.failed_fetches as f64,
            poisoned_pages: counters.poisoned_pages as f64,
            faults_in_hand: stats.faults_in_hand as f64,
            pages: stats.pages.into(),
            latency: stats.latency.into(),
        }
    }
}
