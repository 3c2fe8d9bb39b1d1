//! When there is next something to do.

use std::time::Instant;

/// When to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is something to do now.
    Now,
    /// At this time, whatever happens until then.
    At(Instant),
    /// Only when something happens.
    Never,
}

impl Next {
    /// The earlier of the two; the other is not asked for where this one is now.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Now {
            return self;
        }
        match (self, other()) {
            (_, Self::Now) => Self::Now,
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            (Self::Never, next) | (next, Self::Never) => next,
            (Self::Now, _) => Self::Now,
        }
    }
}

impl From<Option<Instant>> for Next {
    fn from(time: Option<Instant>) -> Self {
        time.map_or(Self::Never, Self::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_earliest_decides() {
        let soon = Instant::now();
        let late = soon + Duration::from_secs(1);
        let all = [Next::Now, Next::At(soon), Next::At(late), Next::Never];
        for (one, first) in all.iter().enumerate() {
            for (other, second) in all.iter().enumerate() {
                assert_eq!(first.or(|| *second), all[one.min(other)]);
            }
        }
    }

    #[test]
    fn nothing_is_asked_once_there_is_something_to_do() {
        assert_eq!(Next::Now.or(|| panic!("asked")), Next::Now);
    }
}
