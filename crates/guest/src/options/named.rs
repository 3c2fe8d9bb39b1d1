//! What has a name on the command line.

use std::str::FromStr;

use userfaultfd_sys as sys;

/// Declares an enum whose variants have names on the command line.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$doc])* $variant,)*
        }

        impl $type {
            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)*
                    _ => Err([$($name),*].join(", ")),
                }
            }
        }
    };
}

named! {
    /// Where regions lie relative to each other.
    Place {
        /// Addresses rise with snapshot offsets, without gaps.
        Rising = "rising",
        /// Each region lies directly below the one before it, in one mapping.
        Falling = "falling",
        /// Rising, with gaps.
        Apart = "apart",
    }
}

named! {
    /// Whether to ask for faults of user mode only, which needs no privilege.
    UserModeOnly {
        /// As Firecracker: faults of the kernel too.
        No = "no",
        /// User mode only.
        Yes = "yes",
        /// User mode only if the kernel refuses the other.
        Auto = "auto",
    }
}

named! {
    /// What the regions are registered for.
    Register {
        /// Missing pages, as stock Firecracker does.
        Missing = "missing",
        /// Missing pages and write protection.
        WriteProtect = "wp",
    }
}

named! {
    /// Whose JSON to speak.
    Dialect {
        /// Firecracker 1.1: no page size.
        V1_1 = "1.1",
        /// Firecracker 1.7: `page_size_kib`, in bytes.
        V1_7 = "1.7",
        /// Firecracker 1.12: `page_size` too.
        V1_12 = "1.12",
    }
}

named! {
    /// Which piece of a split body carries the descriptor.
    Split {
        /// The first.
        First = "first",
        /// The last.
        Last = "last",
    }
}

pub(super) const FEATURES: [(&str, u64); 13] = [
    ("wp", sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP),
    ("fork", sys::UFFD_FEATURE_EVENT_FORK),
    ("remap", sys::UFFD_FEATURE_EVENT_REMAP),
    ("remove", sys::UFFD_FEATURE_EVENT_REMOVE),
    ("unmap", sys::UFFD_FEATURE_EVENT_UNMAP),
    ("sigbus", sys::UFFD_FEATURE_SIGBUS),
    ("thread-id", sys::UFFD_FEATURE_THREAD_ID),
    ("exact-address", sys::UFFD_FEATURE_EXACT_ADDRESS),
    ("wp-hugetlbfs-shmem", sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM),
    ("wp-unpopulated", sys::UFFD_FEATURE_WP_UNPOPULATED),
    ("poison", sys::UFFD_FEATURE_POISON),
    ("wp-async", sys::UFFD_FEATURE_WP_ASYNC),
    ("move", sys::UFFD_FEATURE_MOVE),
];

/// Reads names joined by commas, or tells the one that is none.
pub(super) fn features(names: &str) -> Result<u64, &str> {
    if names == "none" {
        return Ok(0);
    }
    names.split(',').try_fold(0, |bits, name| {
        let known = FEATURES.iter().find(|(known, _)| *known == name);
        known.map(|(_, bit)| bits | bit).ok_or(name)
    })
}

/// The names that [`features`] reads as these bits.
pub(super) fn feature_names(bits: u64) -> String {
    let names = FEATURES.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name);
    let names = names.collect::<Vec<_>>();
    if names.is_empty() { "none".into() } else { names.join(",") }
}
