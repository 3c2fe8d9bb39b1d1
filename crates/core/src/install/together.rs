//! The second step for what nobody waits for: a plan cut into pieces, executed by several threads
//! where that pays, and given up as soon as the guest needs something.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::execute::{Executed, Tools};
use super::plan::{Fill, Install};
use crate::kernel::{Crew, Outcome};
use crate::units::{PageRange, PageSize};

/// Bytes of a piece: so much is copied before somebody looks whether a fault waits.
const PIECE: u64 = 64 << 10;

/// Bytes of a piece that needs no copy, which takes about as long.
const ZEROS: u64 = 512 << 10;

/// The fewest small pieces for each thread: calling one takes as long as some of them.
const SHARE: usize = 4;

/// A part of an install, and what came of it unless it was given up.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) install: Install<'a>,
    executed: OnceLock<Executed>,
}

impl<'a> Piece<'a> {
    const fn of(install: Install<'a>) -> Self {
        Self { install, executed: OnceLock::new() }
    }

    /// What came of it; nothing if it was given up.
    pub(super) fn executed(&self) -> Option<Executed> {
        self.executed.get().copied()
    }
}

/// A plan in pieces, in its order.
pub(super) fn pieces<'a>(plan: &[Install<'a>], page_size: PageSize) -> Vec<Piece<'a>> {
    let cut = |install: &Install<'a>| {
        let bytes = match install.fill {
            Fill::Zeros | Fill::SourceZeros => ZEROS,
            Fill::Bytes(_) | Fill::OwnZeros => PIECE,
        };
        let most = (bytes >> page_size.shift()).max(1);
        let mut left = Some(*install);
        std::iter::from_fn(move || {
            let install = left?;
            let pages = install.pages;
            let part = PageRange::new(pages.start.0, pages.start.0 + most).intersect(pages);
            let rest = PageRange { start: part.end, end: pages.end };
            let bytes = part.len() << page_size.shift();
            left = (!rest.is_empty()).then(|| install.after(bytes, rest));
            Some(Piece::of(Install { pages: part, ..install }))
        })
    };
    plan.iter().flat_map(cut).collect()
}

/// Executes pieces, by several threads if there are enough bytes for them. Ends early where an
/// obstacle is met, or an event waits to be read after so many pieces that are `wanted`: then threads of
/// the guest wait, too. Where others may help, `meanwhile` is called on this thread before each of its
/// pieces.
pub(super) fn execute(
    pieces: &[Piece<'_>],
    tools: &Tools<'_>,
    crew: &'static Crew,
    wanted: usize,
    meanwhile: &(dyn Fn() + Sync),
) {
    let page_size = tools.rules.page_size;
    let share = if page_size == PageSize::Huge { 1 } else { SHARE };
    let hands = (pieces.len() / share).saturating_sub(1);
    let owner = std::thread::current().id();
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    crew.run(hands, &|| {
        let is_owner = std::thread::current().id() == owner;
        while !over.load(Ordering::Relaxed)
            && let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if is_owner && hands > 0 {
                meanwhile();
            }
            let executed = tools.execute(&piece.install);
            let whole = piece.install.pages.len() << page_size.shift();
            let is_whole = executed.outcome == Outcome::Done(whole);
            let _ = piece.executed.set(executed);
            let may_end = || next.load(Ordering::Relaxed) >= wanted;
            if !is_whole || is_owner && may_end() && tools.uffd.has_events() {
                over.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// What of a plan is not done, in its order: pieces of one run joined.
pub(super) type Left = SmallVec<[PageRange; 4]>;

/// Adds pages to what is left.
pub(super) fn leave(left: &mut Left, pages: PageRange) {
    match left.last_mut() {
        _ if pages.is_empty() => {}
        Some(last) if last.end == pages.start => last.end = pages.end,
        _ => left.push(pages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Access;

    fn install(pages: PageRange, fill: Fill<'_>) -> Install<'_> {
        Install { pages, fill, access: Access::Ahead }
    }

    #[test]
    fn pieces_have_every_page_once_and_its_own_bytes() {
        let page = 4096;
        let bytes = vec![0; 40 * page];
        let run = PageRange::new(100, 140);
        let zeros = PageRange::new(0, 300);
        let plan =
            [install(run, Fill::Bytes(bytes.as_slice().into())), install(zeros, Fill::SourceZeros)];
        let pieces = pieces(&plan, PageSize::Small);
        let ranges: Vec<_> = pieces.iter().map(|piece| piece.install.pages).collect();
        let expected = [(100, 116), (116, 132), (132, 140), (0, 128), (128, 256), (256, 300)];
        assert_eq!(ranges, expected.map(|(start, end)| PageRange::new(start, end)));
        for piece in &pieces[..3] {
            let Fill::Bytes(rest) = piece.install.fill else { panic!("{piece:?}") };
            // Each has the bytes from its first page on.
            let pages = 140 - piece.install.pages.start.0;
            assert_eq!(rest.len(), pages * page as u64);
        }
    }

    #[test]
    fn a_huge_page_is_a_piece() {
        let plan = [install(PageRange::new(3, 6), Fill::Zeros)];
        let pieces = pieces(&plan, PageSize::Huge);
        assert!(pieces.iter().all(|piece| piece.install.pages.len() == 1));
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn what_is_left_keeps_its_order_and_is_joined() {
        let mut left = Left::new();
        for (start, end) in [(0, 4), (4, 6), (9, 9), (20, 22), (8, 10), (10, 11)] {
            leave(&mut left, PageRange::new(start, end));
        }
        let expected = [(0, 6), (20, 22), (8, 11)].map(|(start, end)| PageRange::new(start, end));
        assert_eq!(left.as_slice(), expected);
    }
}
