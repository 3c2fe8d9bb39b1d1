//! Run-length lists: what a range of pages is, told once for neighbours that are alike.

use serde::{Deserialize, Serialize};

/// Pages that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run<T> {
    /// The first page.
    pub page: u64,
    /// How many.
    pub count: u64,
    /// What they are.
    pub is: T,
}

/// Pages `page..`, told one after the other, as runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Runs<T>(pub Vec<Run<T>>);

impl<T: PartialEq> Runs<T> {
    /// Joins neighbours that are alike.
    pub fn of(pages: impl IntoIterator<Item = (u64, T)>) -> Self {
        let mut runs: Vec<Run<T>> = Vec::new();
        for (page, is) in pages {
            match runs.last_mut() {
                Some(run) if run.page + run.count == page && run.is == is => run.count += 1,
                _ => runs.push(Run { page, count: 1, is }),
            }
        }
        Self(runs)
    }

    /// What page `page` is, if it was asked about.
    pub fn at(&self, page: u64) -> Option<&T> {
        let run = self.0.iter().find(|run| (run.page..run.page + run.count).contains(&page))?;
        Some(&run.is)
    }

    /// Every page with what it is.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &T)> {
        self.0.iter().flat_map(|run| (run.page..run.page + run.count).map(move |p| (p, &run.is)))
    }

    /// How many pages are `is`.
    pub fn count(&self, is: impl Fn(&T) -> bool) -> u64 {
        self.0.iter().filter(|run| is(&run.is)).map(|run| run.count).sum()
    }

    /// Whether there are pages and all of them are `is`.
    pub fn all(&self, is: impl Fn(&T) -> bool) -> bool {
        !self.0.is_empty() && self.0.iter().all(|run| is(&run.is))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_alike_are_told_once() {
        let runs = Runs::of([(4, 'a'), (5, 'a'), (6, 'b'), (9, 'b')]);
        let told: Vec<_> = runs.0.iter().map(|run| (run.page, run.count, run.is)).collect();
        assert_eq!(told, [(4, 2, 'a'), (6, 1, 'b'), (9, 1, 'b')]);
        assert_eq!(runs.at(5), Some(&'a'));
        assert_eq!(runs.at(7), None);
        assert_eq!(runs.count(|&is| is == 'b'), 2);
        assert_eq!(runs.pages().map(|(page, _)| page).collect::<Vec<_>>(), [4, 5, 6, 9]);
    }
}
