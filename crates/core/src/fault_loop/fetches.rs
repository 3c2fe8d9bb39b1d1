//! What is fetched away from the loop: sent for, waited for, taken back, and kept when it has come.

use std::collections::VecDeque;

use super::guest::Guest;
use super::hand::{Hand, Phase, Trouble};
use super::next::Next;
use super::pause::Blocked;
use crate::contract::{Fetched, Mailbox, Message, PrefaultId};
use crate::source::{Client, Delivery, FetchJob, Fetcher, Full, Ticket, Urgency};
use crate::units::{PageIndex, PageRange};

/// Bytes that are on their way from the source, or that have arrived.
pub(super) struct Fetches {
    fetcher: Client,
    /// For the fetch threads to answer to.
    mailbox: Mailbox,
    /// Pages being fetched for a fault.
    wanted: Vec<(PageRange, Ticket)>,
    pub(super) arrived: VecDeque<Arrived>,
}

/// Fetched bytes that are not all installed yet.
pub(super) struct Arrived {
    /// The page the bytes begin with.
    pub(super) first: PageIndex,
    /// What is left to install.
    pub(super) pages: PageRange,
    pub(super) bytes: Delivery,
    pub(super) prefault: Option<PrefaultId>,
    /// Something has to pass before they can be.
    pub(super) blocked: Option<Blocked>,
    /// That is memory.
    pub(super) short_of_memory: bool,
    /// Page by page, after a longer run did not lie in one mapping.
    pub(super) singly: bool,
}

impl Fetches {
    pub(super) fn new(fetcher: &Fetcher, mailbox: Mailbox) -> Self {
        let room = mailbox.clone();
        let fetcher = fetcher.client(move || room.post(Message::Room));
        Self { fetcher, mailbox, wanted: Vec::new(), arrived: VecDeque::new() }
    }

    pub(super) const fn fetcher(&self) -> &Client {
        &self.fetcher
    }

    /// When the next install is due.
    pub(super) fn next(&self) -> Next {
        self.arrived.iter().fold(Next::Never, |next, arrived| {
            next.or(|| match &arrived.blocked {
                Some(blocked) => Next::At(blocked.until),
                None => Next::Now,
            })
        })
    }

    /// Sends for the pages a fault needs, and parks it until they are here.
    pub(super) fn for_fault(&mut self, guest: &mut Guest, index: usize, pages: PageRange) {
        let fault = guest.hand.get_mut(index);
        fault.phase = Phase::Parked;
        if self.covers(fault.page) {
            return;
        }
        // Where there is no room for its bytes the fault waits until there is.
        if let Ok(ticket) = self.request(guest, pages, None) {
            self.wanted.push((pages, ticket));
        }
    }

    /// Sends for pages that a prefault needs.
    pub(super) fn for_prefault(
        &mut self,
        guest: &mut Guest,
        id: PrefaultId,
        pages: PageRange,
    ) -> Result<Ticket, Full> {
        self.request(guest, pages, Some(id))
    }

    /// Faults that wait for room which nothing frees, since what was fetched before waits for memory,
    /// wait for memory themselves.
    pub(super) fn share_trouble(&self, hand: &mut Hand) {
        if !self.arrived.iter().any(|arrived| arrived.short_of_memory) {
            return;
        }
        for index in 0..hand.len() {
            let fault = hand.get_mut(index);
            if fault.phase == Phase::Parked && fault.trouble.is_none() && !self.covers(fault.page) {
                fault.trouble = Some(Trouble::NoMemory);
            }
        }
    }

    fn covers(&self, page: PageIndex) -> bool {
        self.wanted.iter().any(|(pages, _)| pages.contains(page))
            || self.arrived.iter().any(|arrived| arrived.pages.contains(page))
    }

    fn request(
        &self,
        guest: &mut Guest,
        pages: PageRange,
        prefault: Option<PrefaultId>,
    ) -> Result<Ticket, Full> {
        let mailbox = self.mailbox.clone();
        let done = Box::new(move |bytes| {
            mailbox.post(Message::Fetched(Fetched { pages, bytes, prefault }));
        });
        let urgency = if prefault.is_none() { Urgency::Demand } else { Urgency::Background };
        let ticket =
            self.fetcher.try_submit(FetchJob { want: guest.want(pages), done }, urgency)?;
        guest.memory.counters.fetches += 1;
        Ok(ticket)
    }

    /// Fetches that were refused for want of room can be asked for again.
    pub(super) fn room_again(&self, guest: &mut Guest) {
        for index in 0..guest.hand.len() {
            let fault = guest.hand.get_mut(index);
            if !self.covers(fault.page) {
                fault.unpark();
            }
        }
    }

    /// What was sent for on behalf of a fault has come; whether it was still waited for.
    pub(super) fn ended(&mut self, pages: PageRange) -> bool {
        let at = self.wanted.iter().position(|(wanted, _)| *wanted == pages);
        at.map(|at| self.wanted.swap_remove(at)).is_some()
    }

    /// Faults that are served leave the hand, and what was sent for on their behalf alone is taken
    /// back: their pages were given back meanwhile, or they were given up.
    pub(super) fn drop_served(&mut self, hand: &mut Hand) {
        if !self.wanted.is_empty() {
            for page in hand.served() {
                self.wanted.retain(|(pages, _)| !pages.contains(page) || hand.is_parked_in(*pages));
            }
        }
        hand.drop_served();
    }
}
