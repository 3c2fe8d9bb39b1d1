//! What came of a soak.

use std::fmt;

use uffd_guest::protocol::SoakReport;

use crate::facts::Figures;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Soaked {
    /// What the guest did and found.
    pub guest: SoakReport,
    /// Prefaults that ran meanwhile.
    pub prefaults: u64,
    /// Pages they installed.
    pub prefaulted: u64,
    /// What the session of each guest counted.
    pub sessions: Vec<Figures>,
    /// What does not add up.
    pub mistakes: Vec<String>,
}

impl Soaked {
    /// Pages read or written.
    pub const fn accesses(&self) -> u64 {
        let SoakReport { reads, writes, words, peeks, final_reads, .. } = &self.guest;
        *reads + *writes + *words + *peeks + *final_reads
    }

    /// A sum over all sessions.
    pub fn counted(&self, count: impl Fn(&Figures) -> u64) -> u64 {
        self.sessions.iter().map(count).sum()
    }

    pub(crate) fn add(&mut self, more: Self) {
        let (sum, found) = (&mut self.guest, more.guest);
        sum.reads += found.reads;
        sum.writes += found.writes;
        sum.words += found.words;
        sum.madvises += found.madvises;
        sum.removed_pages += found.removed_pages;
        sum.peeks += found.peeks;
        sum.final_reads += found.final_reads;
        sum.wrong += found.wrong;
        sum.nanos += found.nanos;
        sum.examples.extend(found.examples);
        self.prefaults += more.prefaults;
        self.prefaulted += more.prefaulted;
        self.sessions.extend(more.sessions);
        self.mistakes.extend(more.mistakes);
    }

    /// Whether all was as it must be.
    pub fn is_right(&self) -> bool {
        self.guest.wrong == 0 && self.mistakes.is_empty()
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = &self.guest;
        writeln!(f, "accesses      {}", self.accesses())?;
        writeln!(f, "REMOVEs       {} of {} pages", guest.madvises, guest.removed_pages)?;
        let count = |count: fn(&Figures) -> u64| self.counted(count);
        writeln!(f, "guests        {}, one after the other", self.sessions.len())?;
        writeln!(f, "faults        {}", count(Figures::faults))?;
        writeln!(f, "neighbours    {}", count(|figures| figures.neighbour_pages))?;
        writeln!(f, "prefaulted    {} in {} prefaults", self.prefaulted, self.prefaults)?;
        let (off, again) = (count(|figures| figures.deferred), count(|figures| figures.retried));
        writeln!(f, "put off       {off}, tried again {again}")?;
        writeln!(f, "found there   {}", count(|figures| figures.already_present))?;
        let slowest = self.sessions.iter().map(|figures| figures.slowest).max();
        writeln!(f, "slowest fault {:?}", slowest.unwrap_or_default())?;
        writeln!(f, "wrong         {}", guest.wrong)?;
        for example in &guest.examples {
            writeln!(f, "  {example:?}")?;
        }
        for mistake in &self.mistakes {
            writeln!(f, "MISTAKE       {mistake}")?;
        }
        Ok(())
    }
}
