//! Something that has to be reached: a ratio of two contenders in one round, or a figure of one.

use crate::measure::Metric;

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
    /// Nowhere: the figure is told so that others can be understood.
    Open,
}

impl Bound {
    /// Whether it is, if it has to be anywhere.
    pub(crate) fn is_met(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(figure <= limit),
            Self::AtLeast(limit) => Some(figure >= limit),
            Self::Open => None,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
            Self::Open => write!(f, "–"),
        }
    }
}

/// A target about the ratio of two contenders.
pub(crate) const fn ratio(
    what: &'static str,
    workload: &'static str,
    metric: Metric,
    (of, against): (&'static str, &'static str),
    bound: Bound,
) -> Target {
    Target { what, workload, metric, of, against: Some(against), bound }
}

/// A target about a figure of one contender.
pub(crate) const fn figure(
    what: &'static str,
    workload: &'static str,
    metric: Metric,
    of: &'static str,
    bound: Bound,
) -> Target {
    Target { what, workload, metric, of, against: None, bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_met_by_what_is_on_their_side() {
        let met = |bound: Bound, figures: [f64; 2]| figures.map(|figure| bound.is_met(figure));
        assert_eq!(met(Bound::AtMost(1.1), [1.1, 1.2]), [Some(true), Some(false)]);
        assert_eq!(met(Bound::AtLeast(0.9), [0.9, 0.8]), [Some(true), Some(false)]);
        assert_eq!(met(Bound::Open, [0.0, 9.0]), [None, None]);
    }
}
