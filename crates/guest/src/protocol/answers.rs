//! What a guest answers.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::pattern::Content;

/// How many pages were touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// In order.
    pub pages: u64,
    /// Of them, how many raised SIGBUS.
    pub poisoned: u64,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Pages compared.
    pub pages: u64,
    /// Pages that held something else.
    pub wrong: u64,
    /// The first of them.
    pub examples: Vec<Wrong>,
}

/// A page that holds what it must not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// Which.
    pub page: u64,
    /// What it holds.
    pub found: Content,
}

/// The outcome of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Steps carried out.
    pub steps: u64,
    /// All `verify` steps together.
    pub verified: Verified,
    /// Steps that were refused.
    pub refused: u64,
    /// The first of them.
    pub refusals: Vec<RefusedStep>,
}

/// A step that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStep {
    /// Its place in the list.
    pub step: u64,
    /// Why.
    pub why: Refusal,
}

/// What the page tables say about a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageState {
    /// There is a page.
    pub present: bool,
    /// It is swapped out, or a marker stands in its place, such as that of a poisoned page.
    pub swapped: bool,
    /// Write-protected by userfaultfd.
    pub wp: bool,
    /// It is the shared page of zeros.
    pub zero: bool,
    /// It is part of a transparent huge page, or is a hugetlb page.
    pub huge: bool,
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rss {
    /// Of the guest's regions, shared pages of zeros aside.
    pub guest: u64,
    /// Of the whole process, without hugetlb pages.
    pub process: u64,
    /// hugetlb pages.
    pub hugetlb: u64,
}

/// Where a thread of the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Its id.
    pub tid: i32,
    /// The page it touched last, or waits for.
    pub page: u64,
    /// The kernel function it waits in, such as `handle_userfault`, where the kernel tells.
    pub wchan: String,
}

impl Whereabouts {
    /// Whether it waits for its page.
    pub fn waits_for_page(&self) -> bool {
        self.wchan.contains("userfault")
    }
}
