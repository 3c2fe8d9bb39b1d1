//! What the kernel's refusal of an install means.

/// Why nothing was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The first page is there already, installed by somebody else.
    Present,
    /// The first page is there already, or there was no huge page to give: nothing can tell.
    Doubtful,
    /// The address space is changing.
    Changing,
    /// There is no memory for the page.
    NoMemory,
    /// The source's bytes turned out unreadable.
    Unreadable,
    /// The range is not registered with this userfaultfd, or not in one piece.
    Unmapped,
    /// The guest process is gone.
    Gone,
    /// The kernel refused, with this errno.
    Refused(i32),
}
