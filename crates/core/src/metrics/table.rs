//! The one table of what is counted. A line says what a number is, which metric it belongs to and
//! by which labels; everything else is made from it: the types here and in JavaScript, the page of
//! the documentation, what `/metrics` and OpenTelemetry are given.
//!
//! A metric is `unit name "help" { "what it is" number: label = "value"; … }`. One with a single
//! number takes its help from that.
//! Units are `events`, which is none, `pages` and `bytes`; the metric's name ends with the last two.

use super::words::words;

/// Hands the counters of a guest to the macro `$then`, as they stand in the table. Their order is
/// that of the ledger, which a later version may read: new ones are added at the end.
#[macro_export]
macro_rules! with_guest_counters {
    ($then:ident! { $($before:tt)* }) => {
        $then! {
            $($before)*
            events faults "Page faults served, by what their thread wanted." {
                "Missing-page faults served whose thread wanted to read."
                read_faults: kind = "read";
                "Missing-page faults served whose thread wanted to write."
                write_faults: kind = "write";
                "Write-protect faults served."
                protect_faults: kind = "protect";
            }
            events duplicate_faults {
                "Faults of another thread on a page whose fault was already in hand; served with it."
                duplicate_faults;
            }
            events stray_faults {
                "Faults on pages that were unmapped before they could be served; their threads were woken."
                stray_faults;
            }
            pages installed_pages "Pages installed, whatever for, by what they hold." {
                "Pages installed with the snapshot's bytes, whatever for."
                source_pages: filled = "source";
                "Pages installed as zeros, whatever for."
                zero_pages: filled = "zeros";
            }
            pages ahead_pages "Of the pages installed, those that no thread waited for." {
                "Of the pages installed, those around a fault that nobody had asked for yet."
                neighbour_pages: reason = "neighbour";
                "Of the pages installed, those of a prefault."
                prefault_pages: reason = "prefault";
            }
            bytes copied_bytes {
                "Bytes copied into the guest, zeros that had to be copied included."
                copied_bytes;
            }
            events removes {
                "Times the guest gave memory back (REMOVE events)."
                remove_events;
            }
            pages removed_pages {
                "Pages the guest gave back, counted each time."
                removed_pages;
            }
            events deferrals {
                "Times that work was put off because the address space was changing (EAGAIN)."
                deferred;
            }
            events retries {
                "Times that an install was tried again, whatever had stopped it."
                retried;
            }
            events present_installs {
                "Installs that met a page already present."
                already_present;
            }
            events wakes {
                "Wakes on their own, without an install."
                wakes;
            }
            events out_of_memory {
                "Installs for which there was no memory."
                out_of_memory;
            }
            events fetches {
                "Reads of the snapshot made away from the fault loop, because a page was not in memory."
                fetches;
            }
            events failed_fetches {
                "Reads of the snapshot that failed."
                failed_fetches;
            }
            pages poisoned_pages {
                "Pages poisoned because they could not be had."
                poisoned_pages;
            }
            events collapses "Ranges of 2 MiB that were to become a transparent huge page, by what came of it." {
                "Ranges of 2 MiB that have become a transparent huge page."
                collapsed: result = "done";
                "Times that the kernel did not make a transparent huge page of a range of 2 MiB."
                not_collapsed: result = "refused";
            }
        }
    };
}

/// Hands the states that pages are counted by to the macro `$then`, as they stand in the table.
#[macro_export]
macro_rules! with_page_states {
    ($then:ident! { $($before:tt)* }) => {
        $then! {
            $($before)*
            pages pages "Pages of the guests that are served now, by state." {
                "Never installed."
                unfaulted: state = "unfaulted";
                "Installed, equal to the snapshot."
                clean: state = "clean";
                "Installed as zeros."
                zero: state = "zero";
                "Written, or possibly written."
                dirty: state = "dirty";
                "Given back by the guest; they read as zeros."
                removed: state = "removed";
                "Their source failed; accesses raise SIGBUS."
                poisoned: state = "poisoned";
            }
        }
    };
}

with_guest_counters! { words! {
    /// What a session has done so far. Counts never go down.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    Counters:
} }

with_page_states! { words! {
    /// How many pages there are in each state.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    StateCounts:
} }

words! {
    /// What a session has before it at one moment.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    Ahead:
    events faults_in_hand {
        "Faults read and not served yet."
        faults_in_hand;
    }
    pages prefault_pending_pages {
        "Pages that prefaults were asked for and have not accounted for yet."
        prefault_pending_pages;
    }
}

words! {
    /// What a server has done so far, beside what its guests count.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    ServerCounters:
    events arrivals "Guests that came, by where from." {
        "Guests that were handed off."
        handed_off: from = "handoff";
        "Guests that another process had left, and that were taken over."
        recovered: from = "recovery";
    }
    events ends "Guests that ended, by reason." {
        "Guests whose process exited."
        exited: reason = "guest-exited";
        "Guests that were stopped."
        stopped: reason = "stopped";
        "Guests that were left to a successor."
        handed_over: reason = "handed-over";
        "Guests that have all they need, and need no handler."
        released: reason = "released";
        "Guests that cannot be served any longer."
        failed: reason = "failed";
    }
    events refusals {
        "Guests that were refused."
        refused;
    }
    events not_recovered {
        "Guests that another process had left, and that this server has not taken over: a guardian serves them, or they wait."
        not_recovered;
    }
}

words! {
    /// What a server has at one moment.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    Holdings:
    events guests {
        "Guests that are served now."
        guests;
    }
    events guarded_guests {
        "Of the guests that are served now, those that the guardian would serve at once."
        guarded_guests;
    }
    bytes fetch_bytes {
        "Bytes of snapshots that are being fetched, or were and are not installed yet, in all of the process."
        fetch_bytes;
    }
}
