//! The items of `linux/userfaultfd.h` as plain Rust, under the kernel's own names.
//!
//! Generated bindings need libclang, and see only what the headers of the build machine know.
//! These are written out instead, up to the features of Linux 6.8, and checked while compiling:
//! every struct against its size and offsets, every ioctl number against its encoding.

#![no_std]
#![allow(non_camel_case_types)]

mod features;
mod ioctls;
mod messages;

pub use features::*;
pub use ioctls::*;
pub use messages::*;

/// The version of the interface, for `uffdio_api.api`.
pub const UFFD_API: u64 = 0xAA;

/// Flag of `userfaultfd(2)`: handle faults of user mode only, which needs no privilege.
pub const UFFD_USER_MODE_ONLY: u32 = 1;

/// The ioctl type of `/dev/userfaultfd`.
pub const USERFAULTFD_IOC: u32 = 0xAA;
