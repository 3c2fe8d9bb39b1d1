//! Whether anybody waits for what is fetched.

use std::ops::{Index, IndexMut};

/// Whether a guest's thread waits for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// A fault waits: before everything else.
    Demand,
    /// A prefault.
    Background,
}

impl Urgency {
    /// Both, the more urgent first.
    pub const ALL: [Self; 2] = [Self::Demand, Self::Background];
}

/// One of something for each urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByUrgency<T> {
    pub(super) demand: T,
    pub(super) background: T,
}

impl<T> Index<Urgency> for ByUrgency<T> {
    type Output = T;

    fn index(&self, urgency: Urgency) -> &T {
        match urgency {
            Urgency::Demand => &self.demand,
            Urgency::Background => &self.background,
        }
    }
}

impl<T> IndexMut<Urgency> for ByUrgency<T> {
    fn index_mut(&mut self, urgency: Urgency) -> &mut T {
        match urgency {
            Urgency::Demand => &mut self.demand,
            Urgency::Background => &mut self.background,
        }
    }
}
