//! What contenders are called.

pub(crate) const FLOOR: &str = "floor";
pub(crate) const KERNEL: &str = "kernel alone";
pub(crate) const UNREGISTERING: &str = "plain, unregisters";
pub(crate) const PLAIN: &str = "plain";
pub(crate) const POPULATED: &str = "plain, populated first";
pub(crate) const FILE: &str = "file";
pub(crate) const ONE_PAGE: &str = "one page";
pub(crate) const ONE_PAGE_SLEEPING: &str = "one page, no short waits";
pub(crate) const DEFAULTS: &str = "defaults";
pub(crate) const TRACKED: &str = "defaults, tracking";
pub(crate) const TRACED: &str = "traced";
pub(crate) const TRACED_PACKED: &str = "traced, packed";
pub(crate) const TRACED_BY_DEFAULTS: &str = "traced by defaults";
pub(crate) const WITH_PREFAULT: &str = "while a prefault runs";
pub(crate) const UNDISTURBED: &str = "undisturbed";
pub(crate) const WITH_EXPORTS: &str = "while it is exported";
pub(crate) const DENSE: &str = "without zeros";
pub(crate) const SPARSE: &str = "with zeros";
pub(crate) const SPARSE_TRACKED: &str = "with zeros, tracking";
pub(crate) const RAW_COPY: &str = "raw copy";
pub(crate) const RAW_COPY_BY_TWO: &str = "raw copy, two threads";
pub(crate) const RAW_COPY_AGAIN: &str = "raw copy, mapped before";
pub(crate) const PREFAULT: &str = "prefault";
pub(crate) const PREFAULT_AGAIN: &str = "prefault, served before";
