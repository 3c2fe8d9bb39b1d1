//! Whoever serves is killed at random moments, again and again, beside a guest of several threads
//! that reads, writes and gives memory back, every byte checked.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uffd_guest::driver::{DriverError, Guest};
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{SoakMistake, SoakReport};

use crate::cast::Cast;
use crate::facts::State;
use crate::hugepages::HugePages;
use crate::keeping::{Keeper, Keeping};
use crate::kept_mode::KeptMode;

/// What is to be killed.
#[derive(Clone, Debug)]
pub struct Killing {
    /// The program that plays guests and keepers.
    pub cast: Cast,
    /// The guest's page size, and who tracks its writes.
    pub mode: KeptMode,
    /// How many keepers are killed.
    pub kills: u32,
    /// Threads of the guest.
    pub threads: u32,
    /// Pages of the guest.
    pub pages: u64,
    /// Of all choices.
    pub seed: u64,
    /// Whether a guardian serves while no keeper does, and is killed like keepers.
    pub guarded: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Killed {
    /// Keepers killed.
    pub kills: u32,
    /// Of those, the ones that were killed before they said that they serve.
    pub early: u32,
    /// Of those, the ones that were asked to hand over before.
    pub handed_over: u32,
    /// Guardians killed.
    pub guardians: u32,
    /// Guests, one after the other.
    pub guests: u32,
    /// Pages read or written by them.
    pub accesses: u64,
    /// Runs of pages they gave back.
    pub removes: u64,
    /// Pages on which a wrong word was found.
    pub wrong: u64,
    /// The first of them.
    pub examples: Vec<SoakMistake>,
    /// What else is wrong.
    pub mistakes: Vec<String>,
}

/// How long a guest works: then it has touched everything, and the next one begins anew.
const ROUND: Duration = Duration::from_millis(3000);

impl Killing {
    /// A guest of the usual size.
    pub const fn new(cast: Cast, mode: KeptMode, kills: u32, seed: u64) -> Self {
        let pages = if mode.is_huge() { 12 } else { 384 };
        Self { cast, mode, kills, threads: 4, pages, seed, guarded: false }
    }

    /// The same with a guardian.
    pub const fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// Kills, and tells `after` of each guest what came of it all so far.
    ///
    /// # Panics
    /// If the stage cannot be set up.
    pub fn run(&self, mut after: impl FnMut(&Killed)) -> Result<Killed, DriverError> {
        let huge = self.mode.is_huge();
        let _pool = huge.then(|| HugePages::reserve(self.pages).expect("huge pages"));
        let mut sum = Killed::default();
        for seed in self.seed.. {
            if sum.kills >= self.kills || !sum.is_right() {
                break;
            }
            self.one_guest(seed, &mut sum)?;
            sum.guests += 1;
            after(&sum);
        }
        Ok(sum)
    }

    fn keeping(&self, seed: u64) -> Keeping {
        let pattern =
            Pattern::new(seed, self.mode.page_size).with_zero_runs(50).with_lone_zeros(50);
        let regions = [self.pages / 3, self.pages - self.pages / 3];
        let tracked = Some(self.mode.is_tracked());
        let keeping = Keeping::by(self.cast.clone(), pattern, &regions, tracked);
        if self.guarded { keeping.guarded() } else { keeping }
    }

    fn one_guest(&self, seed: u64, sum: &mut Killed) -> Result<(), DriverError> {
        let keeping = self.keeping(seed);
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |options| self.mode.guest(options));
        let over = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let found = guest.thread(0).random(self.work(seed));
                over.store(true, Ordering::Release);
                found
            });
            let mut choices = Choices(seed);
            while !over.load(Ordering::Acquire) && sum.kills < self.kills {
                one_kill(&keeping, &mut keeper, &mut choices, sum);
            }
            keeper.kill();
            keeper = keeping.keeper();
            work.join().expect("a thread that waits for the guest")
        })?;
        sum.add(&found);
        if keeper.recovered() != 1 {
            sum.mistakes.push(format!("the guest was not taken over: {:?}", keeper.left()));
            return Ok(());
        }
        self.check(&keeping, &mut keeper, &guest, sum)
    }

    fn work(&self, seed: u64) -> uffd_guest::protocol::Soak {
        uffd_guest::protocol::Soak {
            seed,
            threads: self.threads,
            chunk: if self.mode.is_huge() { 2 } else { 8 },
            ops: u64::MAX,
            millis: u64::try_from(ROUND.as_millis()).ok(),
            madvise: 14,
            ..Default::default()
        }
    }

    /// What the guest holds, and what the last keeper says of it.
    fn check(
        &self,
        keeping: &Keeping,
        keeper: &mut Keeper,
        guest: &Guest,
        sum: &mut Killed,
    ) -> Result<(), DriverError> {
        let settled = keeper.ask("settle");
        if settled != "Ok(())" {
            sum.mistakes.push(format!("the session does not settle: {settled}"));
            return Ok(());
        }
        let export = keeper.export();
        let tracked = self.mode.is_tracked();
        if export.exact != tracked {
            sum.mistakes.push(format!("an export says exact: {}", export.exact));
        }
        for page in 0..self.pages {
            let holds = guest.thread(0).read_page(page)?;
            let number = u32::try_from(page).expect("few pages");
            let index = usize::try_from(page).expect("few pages");
            let said = Said {
                state: export.states[index],
                dirty: export.dirty.contains(&number),
                empty: export.empty.contains(&number),
            };
            let zero_source = keeping.pattern().is_zero(page);
            if !said.is_right(&holds, zero_source, tracked) && sum.mistakes.len() < MOST_MISTAKES {
                sum.mistakes.push(format!("page {page} holds {holds}, and it is said: {said:?}"));
            }
        }
        Ok(())
    }
}

/// Mistakes that are told.
const MOST_MISTAKES: usize = 8;

/// What an export says of a page.
#[derive(Clone, Copy, Debug)]
struct Said {
    state: State,
    dirty: bool,
    empty: bool,
}

impl Said {
    /// Whether that agrees with what the page holds: nothing that was written is left out, and,
    /// where writes are tracked, nothing that never was is in.
    fn is_right(self, holds: &Content, zero_source: bool, tracked: bool) -> bool {
        let Self { state, dirty, empty } = self;
        let is_faulted = state == State::Faulted;
        match holds {
            _ if dirty && (empty || !is_faulted) => false,
            Content::Source => {
                !empty && (!dirty || !tracked) && matches!(state, State::Unfaulted | State::Faulted)
            }
            Content::Zeros if zero_source => state != State::Poisoned,
            // A page that was written may have been given back in the very moment.
            Content::Zeros => dirty || (empty && matches!(state, State::Removed | State::Faulted)),
            Content::Stamp(_) | Content::Patched { .. } | Content::Other(_) => dirty,
            Content::Poisoned => false,
        }
    }
}

/// One keeper is killed, and the next one begins.
fn one_kill(keeping: &Keeping, keeper: &mut Keeper, choices: &mut Choices, sum: &mut Killed) {
    // The moment of the kill is what this is about; nothing is waited for by it.
    let moment = Duration::from_micros(100 + choices.of(20_000));
    if keeper.is_ready() {
        match choices.of(8) {
            0 => {
                keeper.tell("hand over");
                sum.handed_over += 1;
            }
            1 => keeper.tell("export"),
            2 | 3 => keeper.tell("prefault"),
            _ => {}
        }
    } else {
        sum.early += 1;
    }
    std::thread::sleep(moment);
    if let Some(guardian) = keeping.guardian()
        && choices.of(6) == 0
    {
        // Whether it serves, waits, gives back or takes over.
        let _ = kill(Pid::from_raw(guardian), Signal::SIGKILL);
        sum.guardians += 1;
    }
    keeper.kill();
    sum.kills += 1;
    // One in three is killed again before it serves, in the middle of taking over.
    *keeper = match choices.of(3) {
        0 => keeping.begin_keeper(|_| {}),
        _ => keeping.keeper(),
    };
}

/// Numbers that a seed decides.
struct Choices(u64);

impl Choices {
    /// One of `count`.
    fn of(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % count
    }
}

impl Killed {
    /// Whether all was as it must be.
    pub fn is_right(&self) -> bool {
        self.wrong == 0 && self.mistakes.is_empty()
    }

    fn add(&mut self, found: &SoakReport) {
        let SoakReport { reads, writes, words, peeks, final_reads, .. } = found;
        self.accesses += reads + writes + words + peeks + final_reads;
        self.removes += found.madvises;
        self.wrong += found.wrong;
        self.examples.extend(found.examples.iter().cloned());
    }
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kills         {}, {} while taking over", self.kills, self.early)?;
        writeln!(f, "handed over   {}", self.handed_over)?;
        writeln!(f, "guardians     {} killed", self.guardians)?;
        writeln!(f, "guests        {}, one after the other", self.guests)?;
        writeln!(f, "accesses      {}", self.accesses)?;
        writeln!(f, "REMOVEs       {}", self.removes)?;
        writeln!(f, "wrong         {}", self.wrong)?;
        for example in &self.examples {
            writeln!(f, "  {example:?}")?;
        }
        for mistake in &self.mistakes {
            writeln!(f, "MISTAKE       {mistake}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_page_is_right_or_wrong() {
        use Content::{Source, Stamp, Zeros};
        use State::{Faulted, Removed, Unfaulted};
        let said = |state, dirty, empty, holds: &Content, tracked| {
            Said { state, dirty, empty }.is_right(holds, false, tracked)
        };
        assert!(said(Unfaulted, false, false, &Source, true));
        assert!(said(Faulted, false, false, &Source, true));
        assert!(!said(Faulted, true, false, &Source, true));
        assert!(said(Faulted, true, false, &Source, false));
        assert!(!said(Faulted, false, true, &Source, false));
        assert!(!said(Removed, false, true, &Source, true));
        assert!(said(Removed, false, true, &Zeros, true));
        assert!(said(Faulted, true, false, &Zeros, true));
        assert!(!said(Faulted, false, false, &Zeros, true));
        assert!(!said(Unfaulted, false, false, &Zeros, true));
        assert!(said(Faulted, true, false, &Stamp(3), true));
        assert!(!said(Faulted, false, false, &Stamp(3), true));
        assert!(!said(Removed, true, false, &Stamp(3), true));
        assert!(!said(Faulted, true, true, &Zeros, true));
    }
}
