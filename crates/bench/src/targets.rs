//! What has to be reached, each a ratio of two contenders in one round or a figure of one.

use crate::measure::Metric;
use crate::workloads::{DEFAULTS, FLOOR, ONE_PAGE, ONE_PAGE_SLEEPING};

/// A figure that has a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) metric: Metric,
    /// Whose figure it is.
    pub(crate) of: &'static str,
    /// Divided by whose, in the same round; nobody's if it is no ratio.
    pub(crate) against: Option<&'static str>,
    pub(crate) bound: Bound,
}

/// On which side of a limit a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
        }
    }
}

const fn ratio(
    what: &'static str,
    workload: &'static str,
    metric: Metric,
    (of, against): (&'static str, &'static str),
    bound: Bound,
) -> Target {
    Target { what, workload, metric, of, against: Some(against), bound }
}

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
        Bound::AtMost(1.1),
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
];
