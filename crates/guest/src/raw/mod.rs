//! The one place with `unsafe`: mappings, accesses that survive SIGBUS, and system calls on
//! addresses.

mod access;
mod mapping;
mod scan;
mod uffd;

pub(crate) use access::{Poisoned, recover_from_sigbus};
pub(crate) use mapping::Mapping;
pub(crate) use scan::{PageBits, scan};
pub(crate) use uffd::{
    create_uninitialised, create_user_mode_only, replace, set_default_action, set_up_io_uring,
};
