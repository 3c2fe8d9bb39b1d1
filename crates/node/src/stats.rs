use napi_derive::napi;
use uffd_core::states::StateCounts;

use crate::latency::Latency;

/// Declares what JavaScript sees of the table in the core: the pages by state.
macro_rules! page_counts {
    ($unit:ident $metric:ident $help:literal {
        $($doc:tt $state:ident : $label:ident = $value:literal;)+
    }) => {
        /// How many pages there are in each state.
        #[napi(object, object_from_js = false)]
        #[derive(Clone, Debug)]
        pub struct PageCounts {
            /// Installed: `clean + zero + dirty`.
            pub faulted: f64,
            $(#[doc = $doc] pub $state: f64,)+
        }

        impl From<StateCounts> for PageCounts {
            fn from(counts: StateCounts) -> Self {
                Self { faulted: counts.faulted() as f64, $($state: counts.$state as f64,)+ }
            }
        }
    };
}

uffd_core::with_page_states! { page_counts! {} }

/// The same of the counters. Bytes can be more than a double holds exactly.
macro_rules! stats {
    (@fields [$($fields:tt)*] [$($names:ident)*]
        bytes $metric:ident $($help:literal)? {
            $($doc:tt $name:ident $(: $label:ident = $value:literal)?;)+
        }
        $($rest:tt)*
    ) => {
        stats! { @fields [$($fields)* $(#[doc = $doc] pub $name: u64,)+] [$($names)* $($name)+] $($rest)* }
    };
    (@fields [$($fields:tt)*] [$($names:ident)*]
        $unit:ident $metric:ident $($help:literal)? {
            $($doc:tt $name:ident $(: $label:ident = $value:literal)?;)+
        }
        $($rest:tt)*
    ) => {
        stats! { @fields [$($fields)* $(#[doc = $doc] pub $name: f64,)+] [$($names)* $($name)+] $($rest)* }
    };
    (@fields [$($fields:tt)*] [$($names:ident)*]) => {
        /// What was done for a guest since its handoff. Counts never go down, and are exact up to
        /// 2^53: more faults than a guest can have in a century.
        #[napi(object, object_from_js = false)]
        #[derive(Clone, Debug)]
        pub struct Stats {
            /// Time since the handoff, in milliseconds.
            pub uptime_ms: f64,
            /// Faults served: `readFaults + writeFaults + protectFaults`.
            pub faults: f64,
            $($fields)*
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
                    $($names: counters.$names as _,)*
                    faults_in_hand: stats.faults_in_hand as f64,
                    pages: stats.pages.into(),
                    latency: stats.latency.into(),
                }
            }
        }
    };
}

uffd_core::with_guest_counters! { stats! { @fields [] [] } }
